"""As a new user would: a wheel, an empty folder, a family and images of one's own."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commands import kill_orchestrator
from PIL import Image

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

SWEEP = """\
question: Does turning help?
parts: parts
base:
  dataset: folder
  dataset.path: shapes
  dataset.image_size: 24
  scale: smoke
  training.train_images: 60
  training.batch_size: 20
  locnet@locnet1: conv
  locnet1.sizes: [50, 50, 30]
axes:
  transformer: [affine, my_turn]
seeds: [1, 2]
columns: [ece, mean_corruption_error]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, timeout=120, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("stnbench-*.whl"))) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with images of three shapes, in sub-folders of classes, 30 pixels wide and 26 high."""
    generator = np.random.default_rng(1)
    for label, name in enumerate(("bars", "dots", "rings")):
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for number in range(40):
            pixels = generator.integers(0, 60, (26, 30, 3), np.uint8)
            y, x = np.mgrid[:26, :30] + generator.integers(-4, 5, (2, 1, 1))
            away = np.hypot(y - 13, x - 15)
            shape = (abs(x - 15) < 3, away < 5, abs(away - 8) < 2)[label]
            pixels[shape] += 150
            Image.fromarray(pixels).save(tmp_path / "shapes" / name / f"{number}.png")
    return tmp_path


def environment(home: Path, installed: Path) -> dict[str, str]:
    """What a user's shell has: the wheel, and nothing of the checkout."""
    known = {key: value for key, value in os.environ.items() if not key.startswith(("STNBENCH", "MLFLOW"))}
    return known | {"PYTHONPATH": str(installed), "HOME": str(home), "COLUMNS": "200"}


def stnbench(home: Path, installed: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "stnbench", *arguments],
        cwd=home,
        env=environment(home, installed),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_family_and_images_of_ones_own_from_an_installed_wheel(home: Path, installed: Path) -> None:
    """It passes its contract, is compared with affine, survives a kill, is on the page, and edited it is another."""
    made = stnbench(home, installed, "new", "transformer", "my_turn")
    assert made.returncode == 0, made.stderr
    part = home / "parts" / "my_turn.py"
    assert len(part.read_text().splitlines()) < 60
    assert (home / "conf" / "transformer" / "my_turn.yaml").read_text().splitlines() == ["family: my_turn"]
    (home / "sweeps").mkdir()
    (home / "sweeps" / "mine.yaml").write_text(SWEEP)

    begun = start(home, installed)
    wait_for(home, "done ")
    kill_orchestrator(begun)
    done = stnbench(home, installed, "sweep", "mine", "--json", "--no-mlflow")
    assert done.returncode == 0, done.stderr
    rows = {row["cell"]: row for row in json.loads(done.stdout)["rows"]}
    assert set(rows) == {"affine", "my_turn", "no ST"}
    assert all(row["n"] == 2 for row in rows.values())
    assert all(0 <= row["metric_mean_corruption_error"]["mean"] <= 1 for row in rows.values()), rows
    page = (home / "reports" / "mine" / "index.html").read_text()
    assert "my_turn" in page
    shutil.rmtree(home / "shapes")  # the cache is enough from here on

    status = json.loads(stnbench(home, installed, "status", "mine", "--json").stdout)
    assert status["sweeps"][0]["complete"] == 6
    part.rename(home / "gone.py")
    absent = stnbench(home, installed, "report", "mine", "--format", "json")
    assert absent.returncode == 0, absent.stderr
    assert "my_turn" in absent.stdout
    (home / "gone.py").rename(part)


def test_an_edited_family_makes_new_trials(home: Path, installed: Path) -> None:
    """Only the trials with the part are planned anew, and a bound of its own is a key of the configuration."""
    stnbench(home, installed, "new", "transformer", "my_turn")
    (home / "sweeps").mkdir()
    (home / "sweeps" / "mine.yaml").write_text(SWEEP)
    part = home / "parts" / "my_turn.py"

    plans = [plan(home, installed)]
    part.write_text(part.read_text() + "# edited\n")
    plans.append(plan(home, installed))
    other = stnbench(home, installed, "sweep", "mine", "--plan", "--json", "transformer.bound=0.5")
    checked = stnbench_with_parts(home, installed, "check-part", "my_turn", "bound=0.5")

    assert plans[0] == plans[1] == 6
    assert other.returncode == 2
    assert re.search(r"transformer.bound|bound", other.stderr)
    assert checked.returncode == 0, checked.stdout
    assert "11 of 11 checks passed" in checked.stdout


def test_a_family_of_an_installed_package_needs_no_other_file(home: Path, installed: Path, tmp_path: Path) -> None:
    """Neither ``parts:`` nor ``conf/``: its name is a choice, and edited code of the same version is another trial."""
    site = tmp_path / "site"
    shutil.copytree(installed, site)
    stnbench(home, site, "new", "transformer", "my_turn")
    package, about = site / "turning", site / "turning_parts-1.2.dist-info"
    package.mkdir()
    about.mkdir()
    (home / "parts" / "my_turn.py").rename(package / "__init__.py")
    for folder in ("parts", "conf"):
        shutil.rmtree(home / folder)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: turning-parts\nVersion: 1.2\n")
    (about / "top_level.txt").write_text("turning\n")
    (about / "entry_points.txt").write_text("[stnbench.parts]\nturning = turning\n")
    (home / "sweeps").mkdir()
    (home / "sweeps" / "mine.yaml").write_text(SWEEP.replace("parts: parts\n", ""))

    checked = stnbench(home, site, "check-part", "my_turn")
    before = planned(home, site)
    (package / "__init__.py").write_text((package / "__init__.py").read_text() + "# edited\n")
    after = planned(home, site)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert [*before] == [*after] == ["no ST", "affine", "my_turn"]
    assert [before[name] == after[name] for name in before] == [True, True, False]


def plan(home: Path, installed: Path) -> int:
    """How many trials are planned."""
    done = stnbench(home, installed, "sweep", "mine", "--plan", "--json")
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["trials"])


def planned(home: Path, installed: Path) -> dict[str, str]:
    """Identities of the planned configurations by label."""
    done = stnbench(home, installed, "sweep", "mine", "--plan", "--json")
    assert done.returncode == 0, done.stderr
    return {entry["cell"]: entry["cell_id"] for entry in json.loads(done.stdout)["cell_list"]}


def stnbench_with_parts(home: Path, installed: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The program where the user names the parts."""
    return subprocess.run(
        [sys.executable, "-m", "stnbench", *arguments],
        cwd=home,
        env=environment(home, installed) | {"STNBENCH_PARTS": "parts"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def start(home: Path, installed: Path) -> "subprocess.Popen[str]":
    """Begin the sweep; its output goes to ``command.log``."""
    with (home / "command.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "stnbench", "sweep", "mine", "--no-mlflow"],
            cwd=home,
            env=environment(home, installed),
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def wait_for(home: Path, text: str, timeout_s: float = 150) -> None:
    """Wait until the sweep has printed a text."""
    deadline = time.monotonic() + timeout_s
    while text not in (home / "command.log").read_text():
        assert time.monotonic() < deadline, (home / "command.log").read_text()
        time.sleep(0.05)
