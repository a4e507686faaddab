"""An installed wheel works from any folder."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_a_wheel_carries_groups_and_sweeps_and_runs_anywhere(tmp_path: Path) -> None:
    """Built, unpacked and run from an empty folder, it plans a shipped sweep and one of the user's own."""
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, timeout=120, capture_output=True)
    wheel = next(tmp_path.glob("stnbench-*.whl"))
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert (installed / "stnbench" / "conf" / "trial.yaml").exists()
    assert (installed / "stnbench" / "sweeps" / "locnet_sizes.yaml").exists()
    assert (installed / "stnbench" / "sweeps" / "schema.json").exists()
    assert (installed / "stnbench" / "reports" / "published" / "moodstocks_2015.csv").exists()
    assert list((installed / "stnbench" / "store" / "migrations" / "versions").glob("*.py"))
    page = installed / "stnbench" / "report" / "html"
    assert {path.name for path in page.glob("*.[cj]s*")} == {"page.css", "page.js", "plotly-cartesian.min.js.gz"}

    folder = tmp_path / "elsewhere"
    (folder / "sweeps").mkdir(parents=True)
    (folder / "sweeps" / "mine.yaml").write_text(
        "question: Is it found?\naxes: {network: [lecun, idsia]}\nseeds: [1]\n"
    )
    environment = os.environ | {"PYTHONPATH": str(installed), "STNBENCH_RUNS": str(folder / "runs")}
    for name, trials in (("locnet_sizes", 27), ("mine", 2)):
        done = subprocess.run(
            [sys.executable, "-c", PLAN, name],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        plan = json.loads(done.stdout.splitlines()[-1])
        assert plan["trials"] == trials
        assert plan["where"].startswith(str(installed))


PLAN = """
import json, sys
from pathlib import Path
import stnbench
from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder, find_sweep
from stnbench.config.axes import PointComposer
from stnbench.config.sweeps import read_sweep
from stnbench.planning.build import GridPlanner
composer = Composer(conf_folder())
sweep = read_sweep(find_sweep(sys.argv[1], Path.cwd()), composer)
print(json.dumps({"trials": len(GridPlanner(sweep, PointComposer(sweep, composer)).ask()), "where": stnbench.__file__}))
"""
"""What ``--plan`` composes, without importing torch to price it."""
