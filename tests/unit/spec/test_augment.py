"""Augmentation as a trial describes it, and the choices in conf/."""

from pathlib import Path

import pytest
import yaml

from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder
from stnbench.config.resolve import resolve_trial
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.codec import from_plain, to_identity, to_plain
from stnbench.spec.optimizer import AugmentSpec
from stnbench.spec.sweep import Override
from stnbench.spec.trial import TrialSpec

CHOICES = Path(__file__).parents[3] / "conf" / "augment"


def test_nothing_is_varied_by_default() -> None:
    """A specification without keys asks for nothing, and its identity holds its kind alone."""
    spec = AugmentSpec()
    assert (spec.is_geometric, spec.is_colour, spec.needs_rgb) == (False, False, False)
    assert to_identity(spec) == {"kind": "random"}


@pytest.mark.parametrize(
    ("key", "geometric", "colour", "rgb"),
    [
        ("perspective", True, False, False),
        ("scale", True, False, False),
        ("aspect", True, False, False),
        ("shear_deg", True, False, False),
        ("rotation_deg", True, False, False),
        ("translation", True, False, False),
        ("brightness", False, True, False),
        ("contrast", False, True, False),
        ("saturation", False, True, True),
        ("hue_deg", False, True, True),
    ],
)
def test_every_key_is_geometry_or_colour(key: str, geometric: bool, colour: bool, rgb: bool) -> None:
    """Each key by itself says whether images are resampled, recoloured, and need colours."""
    spec = from_plain(AugmentSpec, {"kind": "random", key: 0.1}, where="a test")
    assert (spec.is_geometric, spec.is_colour, spec.needs_rgb) == (geometric, colour, rgb)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("perspective", 0.25),
        ("perspective", -0.1),
        ("scale", 1.0),
        ("aspect", 1.0),
        ("shear_deg", 61.0),
        ("rotation_deg", 181.0),
        ("translation", 1.1),
        ("brightness", 1.1),
        ("contrast", -0.1),
        ("saturation", 2.0),
        ("hue_deg", -1.0),
    ],
)
def test_values_that_cannot_be_meant_are_errors(key: str, value: float) -> None:
    """The message names the key and the value."""
    with pytest.raises(SpecError, match=f"{key} is {value}"):
        from_plain(AugmentSpec, {key: value}, where="a test")


@pytest.mark.parametrize("name", sorted(path.stem for path in CHOICES.glob("*.yaml") if path.stem != "none"))
def test_a_choice_says_what_differs_and_every_key_can_be_set(name: str) -> None:
    """A choice decodes, survives its own JSON, names no default, and any key can be overridden."""
    plain = yaml.safe_load((CHOICES / f"{name}.yaml").read_text())
    spec = from_plain(AugmentSpec, plain, where=name)
    defaults = to_plain(AugmentSpec())
    composer = Composer(conf_folder())

    assert [key for key, value in plain.items() if key != "kind" and defaults[key] == value] == []
    assert from_plain(AugmentSpec, to_plain(spec), where=name) == spec
    assert spec.is_geometric
    for key in defaults.keys() - {"kind"}:
        asked = (Override(key="augment", value=name), Override(key=f"augment.{key}", value=0.125))
        assert getattr(resolve_trial(composer, asked).spec.augment, key) == 0.125


def test_an_unknown_augmentation_is_refused(tmp_path: Path) -> None:
    """By the choice on a command line, and by the kind in a file, with the nearest name."""
    with pytest.raises(UnknownNameError, match=r"unknown augment 'stong'.*did you mean strong"):
        resolve_trial(Composer(conf_folder()), (Override(key="augment", value="stong"),))
    with pytest.raises(UnknownNameError, match=r"unknown augment.kind 'randon'.*did you mean random"):
        from_plain(TrialSpec, {"augment": {"kind": "randon"}}, where="a test")


def test_no_augmentation_is_a_choice_of_its_own() -> None:
    """``none`` is the kind alone."""
    assert yaml.safe_load((CHOICES / "none.yaml").read_text()) == {"kind": "none"}
