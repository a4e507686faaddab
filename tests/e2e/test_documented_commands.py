"""Every command that README and docs show is run to its end, or is named here with the test that does it.

Commands are read from the documents. One that no rule knows fails the first test, so that whoever writes a command also
says how it is tried. All run in one folder, in which the sweep ``locnet_sizes`` is a tiny one.
"""

import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import TINY, Workplace

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BEGINS = re.compile(
    r"^(?:[A-Z_]+=\S+ )*(?:make [a-z]|python -m stnbench|stnbench [a-z]|\.ci/|pip install|ray |export )"
)
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Run:
    """A command that is run as it is written, words of ``more`` added; what it must leave and print."""

    pattern: str
    more: str = ""
    leaves: str = ""
    prints: str = ""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A command that cannot run here, and what tries it instead, or why nothing can."""

    pattern: str
    by: str


PAGE = "reports/locnet_sizes/index.html"
RUNS = (
    Run(r"make help", prints="make sweep"),
    Run(r"make plan SWEEP=locnet_sizes", prints="trials"),
    Run(r"make plan SWEEP=<name>", prints="trials"),
    Run(r"stnbench sweep (sweeps/)?my_sweep(\.yaml)? --plan", prints="trials"),
    Run(r"stnbench list", prints="locnet_sizes"),
    Run(r"make sweep SWEEP=locnet_sizes", leaves=PAGE, prints="affine"),
    Run(r"make sweep SWEEP=<name> SCALE=smoke", leaves=PAGE),
    Run(r"stnbench sweep my_sweep( scale=smoke)?", leaves="reports/my_sweep/index.html"),
    Run(r"stnbench sweep my_sweep training\.epochs=8", more="seeds=[1]", leaves=PAGE),
    Run(r"stnbench sweep locnet_sizes training\.epochs=8 --budget 2h", more="seeds=[1]", leaves=PAGE),
    Run(r"stnbench sweep locnet_sizes --until decided --device-hours 8", more="--plan", prints="looks are planned"),
    Run(r"stnbench sweep locnet_sizes --plan", prints="trials"),
    Run(r"stnbench sweep locnet_sizes '?transformer=\S+", more="seeds=[1]"),
    Run(
        r"stnbench train network=idsia locnet@locnet1=conv",
        more="scale=smoke dataset.tracks_per_class=2 split.tracks_per_class=1",
    ),
    Run(r"make status|stnbench status", prints="locnet_sizes"),
    Run(r"stnbench trials --diff locnet_sizes:best locnet_sizes:best:2", prints="validation accuracy"),
    Run(r"stnbench trials", more="locnet_sizes", prints="affine"),
    Run(r"stnbench control locnet_sizes list", prints="asked"),
    Run(r"stnbench control locnet_sizes (pause|resume|slots 4|seeds \+2)", prints="when locnet_sizes is started"),
    Run(r"make report|stnbench report", leaves=PAGE, prints="affine"),
    Run(r"stnbench evaluate TRIAL --split test --(views|tta) nine", prints="test"),
    Run(r"stnbench evaluate TRIAL --corruptions --reference TRIAL", prints="mean corruption error 100.0 %"),
    Run(r"stnbench show transform TRIAL"),
    Run(r"stnbench mirror( --pictures)?", leaves="runs/mlflow.db", prints="shown in"),
    Run(r"stnbench report SWEEP --(committee|ensemble) top:5 --split test", prints="test"),
    Run(r"stnbench sweep locnet_sizes --verify 5", prints="all reproduced"),
    Run(r"stnbench sources TRIAL", prints="commit"),
    Run(r"stnbench store backup", leaves="runs/backups"),
    Run(r"stnbench store export locnet_sizes sizes\.stnb", leaves="sizes.stnb"),
    Run(r"stnbench store import sizes\.stnb", prints="here already"),
    Run(r"stnbench store merge /mnt/other/runs", prints="here already"),
    Run(r"stnbench store metrics", prints="scores"),
    Run(r"stnbench store rebuild", more="--force", prints="complete"),
    Run(r"make ui", prints="http://127.0.0.1"),
)
"""In the order in which they are tried."""

SERVICES = ("make ui",)
"""What runs until it is asked to end."""

ELSEWHERE = (
    Elsewhere(
        r"make (test|test-(fast|thorough|full|exhaustive|scheduler|gpu)|coverage|check|lint|format|docs)",
        "they are what runs this test, or change the checkout",
    ),
    Elsewhere(r"\.ci/with-postgres make test", "CI"),
    Elsewhere(r"make setup|pip install .*", "test_wheel.py installs the package"),
    Elsewhere(
        r"make bench-[a-z]+|make chaos(-shared)?|make compare.*",
        "minutes of measurement; test_chaos.py runs a short chaos",
    ),
    Elsewhere(r"make sweep SWEEP=\w+ DATASET=gtsrb SCALE=paper", "hours on GTSRB; its parts as make sweep here"),
    Elsewhere(r"stnbench train experiment=record dataset\.root=\.\.\.", "hours on GTSRB; test_zoo.py"),
    Elsewhere(r"stnbench data prepare gtsrb --download", "unit/data: a download from a server here"),
    Elsewhere(r"stnbench report \w+ --(committee|ensemble) all", "needs the 25 networks; top:5 runs here"),
    Elsewhere(r"(make|stnbench) .*(ENGINE=ray|--engine (ray|slurm)).*", "test_ray.py, test_slurm.py"),
    Elsewhere(r"stnbench sweep locnet_sizes --only .*", "the tests of narrowed axes; the tiny sweep has other axes"),
    Elsewhere(
        r"(\w+=\w+ )?stnbench (new|check-part) .*|stnbench sweep mine|stnbench data check folder.*", "test_own_parts.py"
    ),
    Elsewhere(
        r"stnbench control locnet_sizes (stop LABEL|retry all)", "unit/cli/test_control.py; all are complete here"
    ),
    Elsewhere(r"stnbench sweep locnet_sizes --serve|stnbench serve( locnet_sizes)?|ssh .*", "test_live_page.py"),
    Elsewhere(
        r"stnbench sources TRIAL --out code", "unit/orchestration/test_sources.py: 1 where something is untracked"
    ),
    Elsewhere(r"stnbench compare .*", "unit/cli and unit/analysis: needs a table of results"),
    Elsewhere(r"stnbench (export|evaluate) (locnet_sizes:best|DIR --split test)", "test_export.py"),
    Elsewhere(r"stnbench export --half|stnbench evaluate TRIAL .*--without-duplicates near", "test_dataset_root.py"),
    Elsewhere(r"stnbench data check DATASET", "unit/cli/test_data.py, of every data set that comes along"),
    Elsewhere(r"stnbench report locnet_sizes --against /mnt/other/runs", "unit/report/test_against.py"),
    Elsewhere(r"stnbench sweep NAME --optuna-storage", "unit/planning/test_study.py reads what is written by Optuna"),
    Elsewhere(r"stnbench sweep (locnet_sizes|st_paper)|stnbench store import", "two at once: test_shared_store.py"),
    Elsewhere(r"ray .*|export .*", "tests/support/ray_clusters.py starts and stops clusters"),
)


def documented() -> dict[str, str]:
    """Every command of the documents, with the first one that shows it."""
    found: dict[str, str] = {}
    for document in DOCUMENTS:
        text = document.read_text()
        blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
        lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))
        for line in lines:
            if BEGINS.match(line):
                found.setdefault(line.removesuffix(" &"), document.name)
    return found


def rule_for(command: str) -> "Run | Elsewhere | None":
    """How a command is tried."""
    rules: tuple[Run | Elsewhere, ...] = (*RUNS, *ELSEWHERE)
    command = command.replace("python -m stnbench.", "stnbench ")  # the same, in either form
    return next((rule for rule in rules if re.fullmatch(rule.pattern, command)), None)


def test_every_documented_command_is_tried() -> None:
    """A command without a rule is one that nobody has run to its end."""
    unknown = {command: where for command, where in documented().items() if rule_for(command) is None}
    assert not unknown, f"add a rule to {Path(__file__).name} for: {unknown}"
    assert sum(isinstance(rule_for(command), Run) for command in documented()) >= 15


def words_of(command: str, rule: Run, place: Workplace) -> list[str]:
    """The command as a shell would start it, with this Python, for this folder."""
    trial = next(
        (path.name for path in sorted((place.runs / "trials").glob("*/")) if (path / "001/snapshots.npy").exists()), ""
    )
    other = str(place.folder / "other" / "runs")
    for name, value in {
        "<name>": "locnet_sizes",
        "TRIAL": trial,
        "SWEEP ": "locnet_sizes ",
        "/mnt/other/runs": other,
    }.items():
        command = command.replace(name, value)
    words = shlex.split(command)
    if words[0] == "make":
        dry = ["make", "-n", "-s", "-C", str(ROOT), *words[1:], "-o", ".venv/.stnbench-installed", f"BIN={BIN}"]
        if words[1:] == ["help"]:
            return ["make", "-s", "-C", str(ROOT), "help"]
        port = ["PORT=0"] if command in SERVICES else []
        made = subprocess.run([*dry, *port], capture_output=True, text=True, check=True, timeout=60).stdout
        words = shlex.split(made.strip().splitlines()[-1])
    elif words[0] == "python":
        words[0] = sys.executable
    elif words[0] == "stnbench":
        words[:1] = [sys.executable, "-m", "stnbench"]
    return [*words, *shlex.split(rule.more)]


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_documented_command_runs_to_its_end(tmp_path: Path, shared_data: Path) -> None:
    """Each ends with 0, leaves what it says it writes, prints what it is about, and shows no traceback."""
    (tmp_path / "sweeps").mkdir()
    for name in ("locnet_sizes", "my_sweep"):
        (tmp_path / "sweeps" / f"{name}.yaml").write_text(TINY)
    place = Workplace(tmp_path, shared_data)
    wrong = []
    for rule in RUNS:
        for command in documented():
            if rule_for(command) is rule:
                if "merge" in command:
                    (tmp_path / "other").mkdir()
                    subprocess.run(["cp", "-r", str(place.runs), str(tmp_path / "other" / "runs")], check=True)
                wrong += complaints(command, rule, place)
    assert not wrong, "\n\n".join(wrong)


def complaints(command: str, rule: Run, place: Workplace) -> list[str]:
    """Run a command; what is wrong with how it ended."""
    words = words_of(command, rule, place)
    if command in SERVICES:
        return serve(command, words, place)
    done = subprocess.run(
        words, cwd=place.folder, env=place.environment(), capture_output=True, text=True, timeout=300, check=False
    )
    said = f"{command}\n$ {shlex.join(words)}\nexit code {done.returncode}\n{done.stdout[-800:]}\n{done.stderr[-800:]}"
    is_well = done.returncode == 0 and "Traceback" not in done.stderr and rule.prints in done.stdout + done.stderr
    return [] if is_well and (not rule.leaves or (place.folder / rule.leaves).exists()) else [said]


def serve(command: str, words: list[str], place: Workplace) -> list[str]:
    """Start a service, wait until it says where it is, and end it; what is wrong."""
    words = ["5987" if word == "0" else word for word in words]
    with subprocess.Popen(
        words, cwd=place.folder, env=place.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        time.sleep(1)
        is_running = process.poll() is None
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
    return [] if "http://127.0.0.1" in line and is_running and code == 143 else [f"{command}: {line} {code}"]
