"""Augmentation as a trial describes it, and the choices in conf/."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from stnbench.core.errors import SpecError
from stnbench.spec.augment import AugmentSpec
from stnbench.spec.codec import from_plain, to_identity, to_plain

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


@pytest.mark.parametrize("name", ["idsia", "strong"])
def test_the_choices_say_every_key(name: str) -> None:
    """A choice decodes, survives its own JSON, and names every key, so that each can be overridden."""
    plain = yaml.safe_load((CHOICES / f"{name}.yaml").read_text())
    spec = from_plain(AugmentSpec, plain, where=name)
    assert list(plain) == [field.name for field in dataclasses.fields(AugmentSpec)]
    assert from_plain(AugmentSpec, to_plain(spec), where=name) == spec
    assert spec.is_geometric


def test_no_augmentation_is_a_choice_of_its_own() -> None:
    """``none`` is the kind alone."""
    assert yaml.safe_load((CHOICES / "none.yaml").read_text()) == {"kind": "none"}
