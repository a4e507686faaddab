"""Parts from outside: registered, loaded, identified, and read where they are absent."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import stnbench
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.identity import Json
from stnbench.spec import parts, registry
from stnbench.spec.codec import from_json, from_plain, from_stored, to_json
from stnbench.spec.parts import VARIABLE, add_places, load_parts, require_same_parts
from stnbench.spec.transformer import TRANSFORMERS, ConvLocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrialSpec

FAMILY = """
from dataclasses import dataclass
import stnbench

@stnbench.register("transformer", "{name}")
class Made:
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        bound: float = 0.5
        sides: tuple[int, ...] = (1, 2)
        control_points: int = 6

        def __post_init__(self):
            if self.bound <= 0:
                raise stnbench.core.errors.SpecError(f"bound is {{self.bound}}", remedy="above 0")

    def __init__(self, spec):
        self.spec = spec
"""


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers and loads is forgotten after it."""
    monkeypatch.setenv(VARIABLE, "")
    known, loaded = dict(TRANSFORMERS._parts), set(parts._loaded)
    modules, path = set(sys.modules), list(sys.path)
    yield
    TRANSFORMERS._parts.clear()
    TRANSFORMERS._parts.update(known)
    registry._generation += 1
    parts._loaded.clear()
    parts._loaded.update(loaded)
    for name in set(sys.modules) - modules:
        if name.startswith("stnbench_part_") or name == "helper":
            del sys.modules[name]
    sys.path[:] = path


def family(folder: Path, name: str = "made", extra: str = "") -> Path:
    """A folder with a file that registers a family."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(FAMILY.format(name=name) + extra)
    return folder


def trial(name: str = "made", **options: Json) -> TrialSpec:
    """A trial with a transformer of a family."""
    spec = from_plain(PlacedTransformerSpec, {"place": 1, "transformer": {"family": name, **options}}, where="a test")
    return TrialSpec(transformers=(spec,))


def forget(name: str = "made") -> None:
    """As in a process that does not know the part."""
    del TRANSFORMERS._parts[name]
    registry._generation += 1


def test_a_folder_of_the_variable_is_loaded_when_a_name_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody loads it by hand: the first name that is not one of ours does."""
    monkeypatch.setenv(VARIABLE, str(family(tmp_path / "parts")))
    made: Any = trial(bound=0.25).transformers[0].transformer

    assert made.bound == 0.25
    assert made.sides == (1, 2)
    assert made.control_points == 6
    assert trial(control_points=8).transformers[0].transformer.control_points == 8
    assert TRANSFORMERS.implementation("made")(made).spec == made
    assert "made" in TRANSFORMERS.names()


def test_a_trial_with_a_part_names_its_source(tmp_path: Path) -> None:
    """The file and a digest of its code are in the specification, and so in the identity."""
    add_places([str(family(tmp_path))], base=tmp_path)
    (source,) = trial().parts

    assert (source.kind, source.name, source.distribution) == ("transformer", "made", "made.py")
    assert len(source.digest) == 16
    assert trial().trial_id != trial(bound=0.25).trial_id
    assert TrialSpec().parts == ()
    assert replace(trial(), transformers=()).trial_id == TrialSpec().trial_id


@pytest.mark.parametrize("where", ["the part", "a file that it imports"])
def test_edited_code_makes_new_trials(where: str, tmp_path: Path) -> None:
    """Old results never pass for those of edited code, nor is a trial run with other code than planned."""
    folder = family(tmp_path, extra="import helper\n")
    (folder / "helper.py").write_text("FACTOR = 1\n")
    add_places([str(folder)], base=tmp_path)
    before = trial()
    edited = folder / ("made.py" if where == "the part" else "helper.py")
    edited.write_text(edited.read_text() + "# edited\n")
    forget()
    parts._loaded.clear()
    for name in [name for name in sys.modules if name.startswith("stnbench_part_")]:
        del sys.modules[name]
    load_parts()

    assert trial().trial_id != before.trial_id
    with pytest.raises(SpecError, match=r"transformer made has changed since this trial was planned \(made.py\)"):
        require_same_parts(before.parts)


def test_an_absent_part_is_read_with_its_identity(tmp_path: Path) -> None:
    """A stored trial is listed where its part is not: every key is kept, and its identity is the same."""
    add_places([str(family(tmp_path))], base=tmp_path)
    own = trial(bound=0.25, sampler="bicubic", control_points=8)
    stored, identity = to_json(own), own.trial_id
    forget()
    os.environ[VARIABLE] = ""
    again = from_stored(TrialSpec, stored, where="the store")

    assert again.trial_id == identity
    assert json.loads(to_json(again)) == json.loads(stored)
    assert again.transformers[0].transformer.sampler == "bicubic"
    assert again.transformers[0].transformer.control_points == 8
    assert "made" not in TRANSFORMERS.names()
    with pytest.raises(SpecError, match=r"transformer made of this trial \(made.py\) is not here: .*STNBENCH_PARTS"):
        require_same_parts(again.parts)
    with pytest.raises(UnknownNameError, match="unknown transformer 'made'"):
        TRANSFORMERS.implementation("made")


def test_what_is_stored_loads_nothing(tmp_path: Path) -> None:
    """A stored trial that names a part from a file does not get the file run."""
    folder = family(tmp_path, extra="raise RuntimeError('it was run')\n")
    stored = to_json(TrialSpec()).replace(
        '"parts":[]',
        f'"parts":[{{"kind":"transformer","name":"made","distribution":"{folder}/made.py","digest":"0"}}]',
    )

    assert from_stored(TrialSpec, stored, where="the store").transformers == ()


def test_a_misspelt_family_is_refused_with_those_of_outside(tmp_path: Path) -> None:
    """The nearest name may be a user's."""
    add_places([str(family(tmp_path))], base=tmp_path)

    with pytest.raises(UnknownNameError, match=r"unknown transformer.family 'mad' in a test: did you mean made"):
        trial("mad")
    with pytest.raises(UnknownNameError, match=r"unknown key 'transformer.bond'.*did you mean transformer.bound"):
        trial(bond=1)


def test_a_stored_name_without_a_source_is_an_error() -> None:
    """Only what a trial says to be from outside may be unknown: anything else is damage."""
    plain = json.loads(to_json(trial("affine")))
    plain["transformers"][0]["transformer"]["family"] = "afine"

    with pytest.raises(UnknownNameError, match="did you mean affine"):
        from_stored(TrialSpec, json.dumps(plain), where="the store")


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("affine", "bound: float = 1.0", "transformer affine is registered twice: stnbench itself has it already"),
        ("Bad-Name", "bound: float = 1.0", "the transformer is called 'Bad-Name'"),
        ("made", "bound: float", "the parameter bound of the transformer made has no default"),
        ("made", "sampler: str = 'x'", "the transformer made has a parameter sampler"),
    ],
)
def test_what_cannot_be_registered_is_refused(name: str, body: str, message: str) -> None:
    """A name that is taken or malformed, and a parameter that would be in the way."""
    namespace: dict[str, Any] = {}
    exec(f"class Spec:\n    {body}\n", namespace)  # noqa: S102 - a class made of a parameter of the test
    inner = dataclass(frozen=True, kw_only=True)(namespace["Spec"])

    with pytest.raises(SpecError, match=message):
        stnbench.register("transformer", name)(type("Made", (), {"Spec": inner}))


def test_an_unknown_kind_of_part_is_refused() -> None:
    """There are so many registries."""
    with pytest.raises(UnknownNameError, match="unknown kind of part 'transfomer': did you mean transformer"):
        stnbench.register("transfomer", "made")


def test_a_file_that_fails_is_named_with_its_line(tmp_path: Path) -> None:
    """One line that says where; the traceback is the cause."""
    (tmp_path / "broken.py").write_text("x = 1\ny = x / 0\n")

    with pytest.raises(SpecError, match=r"broken.py cannot be loaded \(ZeroDivisionError.*line 2 of broken.py"):
        add_places([str(tmp_path)], base=tmp_path)


def test_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A folder that does not exist is no module either."""
    with pytest.raises(SpecError, match=r"is not there|cannot be loaded"):
        add_places(["no_such_parts"], base=tmp_path)
    with pytest.raises(SpecError, match=r"parts .*missing\.py are not there"):
        add_places([str(tmp_path / "missing.py")], base=tmp_path)


def test_a_specification_that_is_no_dataclass_is_refused() -> None:
    """Its keys could not be read from its annotations."""
    with pytest.raises(SpecError, match="Spec of the transformer made is no dataclass"):
        stnbench.register("transformer", "made")(type("Made", (), {"Spec": type("Spec", (), {})}))


def test_an_installed_package_joins_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its distribution and version are in the source of its parts."""
    package = tmp_path / "wobbles"
    family(package, "pkg_family")
    (package / "__init__.py").write_text("from wobbles import pkg_family\n")
    facts = tmp_path / "wobbles-1.5.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: wobbles\nVersion: 1.5\n")
    (facts / "entry_points.txt").write_text("[stnbench.parts]\nwobbles = wobbles\n")
    (facts / "top_level.txt").write_text("wobbles\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    parts._loaded.discard(parts._INSTALLED)
    (source,) = trial("pkg_family").parts

    assert source.distribution == "wobbles 1.5"


def test_a_trial_with_a_part_survives_the_journey_through_json(tmp_path: Path) -> None:
    """Decoding what was encoded gives the same trial."""
    add_places([str(family(tmp_path))], base=tmp_path)
    made = trial(sides=[3, 4])

    assert from_json(TrialSpec, to_json(made), where="a test") == made
    assert isinstance(made.transformers[0].locnet, ConvLocnetSpec)
