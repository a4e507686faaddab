"""``stnbench new`` and ``stnbench check-part``."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from stnbench.cli import check_part, main, new
from stnbench.config.locate import sweep_files
from stnbench.config.values import read_yaml
from stnbench.core.errors import FolderError, SpecError, UnknownNameError

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("transformer", 11), ("network", 10), ("dataset", 10)])
def test_a_new_part_passes_its_contract(kind: str, least: int, own_folder: Path) -> None:
    """The skeleton is whole: every check passes, and the test that comes with it too."""
    assert new.main([kind, "my_turn"]) == 0
    checked = run(own_folder, "-m", "stnbench", "check-part", "my_turn", "--json")
    tested = run(own_folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "parts")

    assert checked.returncode == 0, checked.stderr
    found = json.loads(checked.stdout)
    assert (found["kind"], found["failed"]) == (kind, 0), found
    assert len(found["checks"]) >= least
    assert tested.returncode == 0, tested.stdout


@pytest.mark.thorough
@pytest.mark.slow
def test_a_broken_part_is_told_what_it_breaks(own_folder: Path) -> None:
    """A family that is not the identity at the start, and one with a wrong gradient, fail there and nowhere else."""
    new.main(["transformer", "my_turn"])
    file = own_folder / "parts" / "my_turn.py"
    whole = file.read_text()
    file.write_text(whole.replace("return (0.0,)", "return (0.5,)"))
    moved = run(own_folder, "-m", "stnbench", "check-part", "my_turn")
    file.write_text(whole.replace("angle = self.bound", "angle = self.bound * 2 - self.bound.__float__()"))
    file.write_text(whole.replace(".tanh()", ".tanh() + (p := self.checked(parameters)[:, 0]) - p.detach()"))
    wrong = run(own_folder, "-m", "stnbench", "check-part", "my_turn")

    assert moved.returncode == 1
    assert "FAILED  identity at the start: the identity moves points, by 0" in moved.stdout
    assert moved.stdout.count("FAILED") == 1
    assert wrong.returncode == 1
    assert "FAILED  gradients in float64: gradients are wrong at the identity" in wrong.stdout


def test_a_part_that_nobody_named_is_told_where_it_is(own_folder: Path) -> None:
    """A file of the name in ``parts/`` was most likely meant; without one the message is as it was."""
    new.main(["transformer", "my_turn"])
    with pytest.raises(UnknownNameError) as told:
        main.main(["check-part", "my_turn"])
    assert str(told.value).endswith(
        "; parts/my_turn.py is loaded with STNBENCH_PARTS=parts, or by parts: parts in a sweep"
    )
    with pytest.raises(UnknownNameError) as told:
        main.main(["check-part", "my_other"])
    assert "STNBENCH_PARTS" not in str(told.value)


def test_a_new_sweep_takes_up_the_parts_that_are_there(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It compares a family of one's own with affine."""
    new.main(["transformer", "my_turn"])
    new.main(["sweep", "mine"])

    text = (own_folder / "sweeps" / "mine.yaml").read_text()
    assert "parts: parts" in text
    assert "transformer: [affine, my_turn]" in text
    assert capsys.readouterr().out.endswith("look at its plan: stnbench sweep mine --plan\n")


@pytest.mark.thorough
@pytest.mark.slow
def test_a_new_sweep_takes_up_networks_and_data_sets(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its plan has the user's transformer and network beside ours, on the user's images."""
    for kind in ("transformer", "network", "dataset"):
        new.main([kind, f"my_{kind}"])
    new.main(["sweep", "mine"])
    planned = run(own_folder, "-m", "stnbench", "sweep", "mine", "--plan", "--json")

    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert (plan["cells"], plan["trials"], plan["infeasible"]) == (6, 18, [])  # two networks, two families, no ST
    assert "dataset: my_dataset" in (own_folder / "sweeps" / "mine.yaml").read_text()


def test_a_new_sweep_brings_its_schema(own_folder: Path) -> None:
    """Editors find it beside the sweep, anywhere; the sweep keeps it, and an older schema of ours is written anew."""
    new.main(["sweep", "mine"])
    schema = own_folder / "sweeps" / "schema.json"
    whole = schema.read_text()
    schema.write_text(json.dumps({"title": json.loads(whole)["title"], "of": "an older version"}))
    new.main(["sweep", "another"])

    first = (own_folder / "sweeps" / "mine.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=schema.json"
    assert schema.read_text() == whole
    for name in ("mine", "another"):
        content = read_yaml(own_folder / "sweeps" / f"{name}.yaml")
        assert list(jsonschema.Draft7Validator(json.loads(whole)).iter_errors(content)) == []
    assert not {"schema"} & sweep_files(own_folder).keys()


def test_a_schema_of_something_else_stays(own_folder: Path) -> None:
    """A file that stnbench has not written is not overwritten, and no sweep is written that would name it."""
    (own_folder / "sweeps").mkdir()
    (own_folder / "sweeps" / "schema.json").write_text('{"title": "of something else"}')
    with pytest.raises(FolderError, match=r"sweeps/schema.json is there already"):
        new.main(["sweep", "mine"])

    assert [path.name for path in (own_folder / "sweeps").iterdir()] == ["schema.json"]


def test_nothing_is_overwritten() -> None:
    """A file that is there stays, and none is written beside it."""
    Path("parts").mkdir()
    Path("parts/test_mine.py").write_text("mine")
    with pytest.raises(FolderError, match=r"parts/test_mine.py is there already"):
        new.main(["transformer", "mine"])

    assert [path.name for path in Path().rglob("*") if path.is_file()] == ["test_mine.py"]


@pytest.mark.parametrize("name", ["../up", "Mine", "1st", ""])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """It becomes a file's and a class's name."""
    with pytest.raises(SpecError, match="the name is"):
        new.main(["transformer", name])


def test_a_part_that_is_not_there_is_refused() -> None:
    """So is a key that its specification has not."""
    with pytest.raises(UnknownNameError, match="unknown part 'afine': did you mean affine"):
        check_part.main(["afine"])
    with pytest.raises(UnknownNameError, match="unknown key"):
        check_part.main(["tps", "points=3"])


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Python in the user's folder, with the parts in it."""
    import os

    environment = {**os.environ, "STNBENCH_PARTS": "parts", "STNBENCH_RUNS": str(folder / "runs")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
