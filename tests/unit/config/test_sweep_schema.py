"""The schema of sweep files agrees with what reads them."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from own_parts import write_part

from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder, sweep_files
from stnbench.config.sweep_schema import FILE_NAME, MODELINE, is_schema, schema_text, sweep_schema
from stnbench.config.sweeps import SWEEP_KEYS, read_sweep
from stnbench.config.values import parse_yaml, read_yaml
from stnbench.core.errors import SpecError
from stnbench.core.identity import Json
from stnbench.spec.planner import PLANNERS, PRUNERS

ROOT = Path(__file__).parents[3]
SWEEPS = [*sweep_files(Path("/nowhere")).values(), ROOT / "benchmarks" / "compare_commits.yaml"]
QUESTION = "question: Does it matter?\n"

RIGHT = {
    "nothing but a question": "",
    "empty sections": "base:\naxes:\nexclude:\npruner:\nlimits:\nparts:",
    "two grids": "axes: [{a.b: [1, 2]}, {a.b: [3]}]",
    "lists as values": "axes: {network.sizes: [[1, 2, 3], [4, 5, 6]]}\nexclude: [{network.sizes: [1, 2, 3]}]",
    "a choice that sets nothing": "axes: {light: {none: {}, empty: , gamma: {augment.gamma: 1.0}}}",
    "conditions": "axes: {st: {one: {a: 1}, two: {b: 1}}, c: {values: [x, y], when: {st: two}}}",
    "conditions of each kind": "axes: {s: [x, y], i: {int: [1, 3], step: 1, when: {s: [x, y]}}, "
    "z: {zip: {a: [1, 2], b: [3, 4]}, when: {s: x}}, n: {choices: {c: {d: 1}}, when: {s: x}}}",
    "ranges of a grid": "axes: {a.b: {int: [1, 9], step: 2}, a.c: {float: [0.1, 1], log: true, values: 3, step: null}}",
    "a choice called as a key of a range": "axes: {a: {log: {b: 1}, when: {b: 2}}}",
    "how many seeds": "seeds: 3",
    "as many seeds as it takes": "seeds: until_decided\nplanner: {kind: until_decided}\nbaselines: equal_parameters",
    "no limit but one": "limits: {parameters: null, flops: 5e7}",
    "no limit": "limits: {parameters: null}",
    "one column": "columns: ece",
    "columns": "columns: [nll, ece]",
    "margin and within": "margin: 0\nwithin: a\naxes: {a: [x, y]}",
    "a search": "planner: {kind: tpe, trials: 5, at_once: null}\naxes: {a.b: {float: [0.1, 1]}}\nstart_from: other",
    "any sampler": "planner: {kind: optuna, sampler: CmaEsSampler, options: {n_startup_trials: 5, magnitude: null}}",
    "a threshold": "pruner: {kind: threshold, accuracy: 0.1}",
    "verdicts": "pruner: {kind: health, verdicts: [collapsed, identity], warmup_epochs: 2}",
    "no pruner": "pruner: none",
}
"""What both accept."""

WRONG = {
    "no question": ("question: [a]", "asks no question"),
    "an unknown key": ("sedes: 3", "seeds"),
    "a question that is a number": ("question: 3", "asks no question"),
    "two planners": ("planner: [grid, racing]", "planner"),
    "an unknown planner": ("planner: racng", "racing"),
    "a key of another planner": ("planner: {kind: racing, looks: 3}", "looks"),
    "a planner without a kind": ("planner: {trials: 3}", "kind"),
    "a planner without what it needs": ("planner: optuna", "sampler"),
    "a planner out of its range": ("planner: {kind: nsga2, population: 1}", "population"),
    "a number as text": ("planner: {kind: tpe, trials: many}", "trials"),
    "an unknown pruner": ("pruner: {kind: hyperbad}", "hyperband"),
    "a pruner that ends nothing": ("pruner: threshold", "accuracy"),
    "an unknown verdict": ("pruner: {kind: health, verdicts: [colapsed]}", "colapsed"),
    "no seeds": ("seeds: 0", "seeds"),
    "half a seed": ("seeds: [1, 1.5]", "seeds"),
    "a seed that stands twice": ("seeds: [1, 1]", "seeds"),
    "too many seeds": ("seeds: 10001", "seeds"),
    "unclear baselines": ("baselines: maybe", "baselines"),
    "baselines that a race has not": ("baselines: equal_parameters\nplanner: racing", "baselines"),
    "seeds of a search until decided": ("seeds: until_decided\nplanner: tpe", "tpe"),
    "a grid that learns": ("start_from: other", "start_from"),
    "a search within an axis": ("within: a\naxes: {a: [x, y]}\nplanner: tpe", "within"),
    "a margin as text": ("margin: wide", "margin"),
    "a margin of everything": ("margin: 100", "margin"),
    "an unknown metric": ("columns: [ecee]", "ece"),
    "an unknown table": ("published: moodstocks", "moodstocks_2015"),
    "an unknown limit": ("limits: {parameter: 1}", "parameters"),
    "a limit of nothing": ("limits: {flops: 0}", "flops"),
    "no limits": ("limits: {}", "limits"),
    "an axis without values": ("axes: {a: []}", "axes.a"),
    "an axis that is one value": ("axes: {a: x}", "axes.a"),
    "a value that stands twice": ("axes: {a: [x, x]}", "axes.a"),
    "an axis with a mapping as value": ("axes: {a: [{b: 1}]}", "axes.a"),
    "a range with one end": ("axes: {a: {int: [1], step: 1}}", "axes.a"),
    "a range of whole numbers with a half": ("axes: {a: {int: [1, 2.5], step: 1}}", "axes.a"),
    "a range with two rasters": ("axes: {a: {float: [1, 2], step: 0.5, values: 3}}", "step"),
    "steps on a logarithmic scale": ("axes: {a: {float: [1, 2], step: 0.5, log: true}}", "step"),
    "an unknown key of a range": ("axes: {a: {int: [1, 3], stepp: 1}}", "step"),
    "one key alone that changes together": ("axes: {a: {zip: {b: [1, 2]}}}", "zip"),
    "a choice that is a value": ("axes: {a: {b: 1}}", "axes.a.b"),
    "no grid": ("axes: []", "axes"),
    "a base with a mapping below": ("base: {network: {sizes: 3}}", "base.network"),
    "a base with lists of lists": ("base: {network.sizes: [[1, 2]]}", "base.network.sizes"),
    "points to leave out as a mapping": ("exclude: {a: x}", "exclude"),
    "parts that are a number": ("parts: 3", "parts"),
}
"""What both refuse, and what the reader's message names."""

BACKWARDS = """
from dataclasses import dataclass
import stnbench
from stnbench.planning import Planner

@stnbench.register("planner", "backwards")
class Backwards(Planner):
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        most: int = 3

    def ask(self):
        return []

    def tell(self, observation):
        pass

    @property
    def is_exhausted(self):
        return True
"""


@pytest.fixture(scope="module")
def composer() -> Composer:
    """The shipped groups."""
    return Composer(conf_folder())


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    """The schema, which is one itself."""
    schema = sweep_schema()
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def text_of(content: str) -> str:
    """A sweep file with this content; one that has a question of its own gets no other."""
    return content if content.startswith("question:") else QUESTION + content


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_shipped_sweep_keeps_the_schema(path: Path, validator: Draft7Validator) -> None:
    """Nothing in it is marked by an editor, and those beside the schema name it in their first line."""
    assert list(validator.iter_errors(read_yaml(path))) == []
    assert (path.read_text().splitlines()[0] == MODELINE) == (path.parent.name == "sweeps")


@pytest.mark.parametrize("content", RIGHT.values(), ids=RIGHT)
def test_what_the_reader_accepts_is_not_marked(
    content: str, tmp_path: Path, composer: Composer, validator: Draft7Validator
) -> None:
    """Every form that a sweep may have."""
    path = tmp_path / "mine.yaml"
    path.write_text(text_of(content))
    read_sweep(path, composer)

    assert [error.message for error in validator.iter_errors(read_yaml(path))] == []


@pytest.mark.parametrize(("content", "named"), WRONG.values(), ids=WRONG)
def test_what_the_reader_refuses_is_marked(
    content: str, named: str, tmp_path: Path, composer: Composer, validator: Draft7Validator
) -> None:
    """Unknown keys and names, wrong types, numbers out of range, and planners that lack what another key asks for."""
    path = tmp_path / "mine.yaml"
    path.write_text(text_of(content))
    with pytest.raises(SpecError, match=named):
        read_sweep(path, composer)

    assert not validator.is_valid(read_yaml(path))


def test_every_key_is_described(validator: Draft7Validator) -> None:
    """Those of a sweep, of every planner and pruner, of ranges and of limits: an editor shows the description."""
    schema = validator.schema
    assert list(schema["properties"]) == list(SWEEP_KEYS)
    found = keys(schema["properties"], schema["definitions"])
    silent = [
        key for key, value in found if "description" not in value | schema["definitions"].get(referred(value), {})
    ]

    assert silent == []
    assert len(found) > 60


def test_every_limit_of_a_number_is_that_of_the_reader(validator: Draft7Validator) -> None:
    """At its limit a key of a planner or a pruner is accepted by both, and beyond it by neither."""
    tried = 0
    for section, registry in (("planner", PLANNERS), ("pruner", PRUNERS)):
        for part in parts_of(validator.schema["definitions"][section]):
            kind = part["properties"]["kind"]["const"]
            spec = registry.part(kind).spec
            needed: dict[str, Json] = {"sampler": "CmaEsSampler"} if "sampler" in part["required"] else {}
            needed |= {"accuracy": 0.5} if kind == "threshold" else {}
            for key, said in part["properties"].items():
                for bound, beyond in (("minimum", -1), ("maximum", 1)):
                    if bound not in said:
                        continue
                    tried += 1
                    spec(**needed | {key: said[bound]})
                    assert validator.is_valid(sweep({section: {"kind": kind, **needed, key: said[bound]}}))
                    with pytest.raises(SpecError, match=key):
                        spec(**needed | {key: said[bound] + beyond})
                    assert not validator.is_valid(sweep({section: {"kind": kind, **needed, key: said[bound] + beyond}}))

    assert tried > 20


def test_a_sweep_with_parts_may_name_others(validator: Draft7Validator) -> None:
    """Names that its parts bring are not marked; keys of ours that are wrong are, as before."""
    others = {"parts": "parts", "planner": {"kind": "mine", "any": [1]}, "pruner": "mine", "columns": ["mine"]}

    assert validator.is_valid(sweep(others))
    assert not validator.is_valid(sweep({**others, "planner": {"kind": "racing", "looks": 3}}))
    assert not validator.is_valid(sweep({key: value for key, value in others.items() if key != "parts"}))


@pytest.mark.usefixtures("parts_forgotten")
def test_parts_from_outside_are_in_ones_own_schema_only(tmp_path: Path) -> None:
    """The one that is checked in holds on every machine; ``stnbench new sweep`` writes one with what is registered."""
    write_part(tmp_path, "backwards", BACKWARDS)
    mine, shipped = Draft7Validator(sweep_schema(own=True)), Draft7Validator(sweep_schema())

    for planner in ("backwards", {"kind": "backwards", "most": 2}):
        assert mine.is_valid(sweep({"planner": planner}))
        assert not shipped.is_valid(sweep({"planner": planner}))
    assert not mine.is_valid(sweep({"planner": "forwards"}))


def test_the_schema_is_no_sweep(tmp_path: Path) -> None:
    """It lies beside the shipped ones and is not listed; it is known again, and other files are not taken for it."""
    shipped = sweep_files(tmp_path)
    assert (next(iter(shipped.values())).parent / FILE_NAME).read_text() == schema_text()
    assert Path(FILE_NAME).stem not in shipped
    assert is_schema(schema_text())
    assert [is_schema(text) for text in ("{}", "[]", "no JSON", json.dumps({"title": "another"}))] == [False] * 4


def sweep(content: dict[str, Any]) -> dict[str, Any]:
    """A sweep with a question and more."""
    return {**parse_yaml(QUESTION, where="here"), **copy.deepcopy(content)}


def parts_of(definition: dict[str, Any]) -> list[dict[str, Any]]:
    """The planners or pruners of a definition that are mappings."""
    nested = [item for form in definition["anyOf"] for item in (form, *form.get("anyOf", ()))]
    return [form for form in nested if "kind" in form.get("properties", {})]


def referred(schema: dict[str, Any]) -> str:
    """The definition that a schema refers to; empty for none."""
    return str(schema.get("$ref", "")).rpartition("/")[2]


def keys(*schemas: Any) -> list[tuple[str, dict[str, Any]]]:
    """Every key with its schema, at any depth, but for the conditions on others."""
    found: list[tuple[str, dict[str, Any]]] = list(schemas[0].items())
    waiting: list[Any] = list(schemas)
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            found += [*item.get("properties", {}).items()] if item.get("additionalProperties") is False else []
            waiting += [value for key, value in item.items() if key not in ("if", "not", "required")]
        elif isinstance(item, list):
            waiting += item
    return found
