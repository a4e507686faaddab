"""Labels that name the sizes that ran."""

from dataclasses import replace

import pytest
from made_up_results import transformed

from stnbench.spec.network import LecunSpec
from stnbench.spec.sweep import sized_label
from stnbench.spec.transformer import ConvLocnetSpec
from stnbench.spec.trial import TrialSpec


def trial(*sizes: int) -> TrialSpec:
    """A trial whose localisation network has these sizes."""
    spec = transformed(1)
    (placed,) = spec.transformers
    a, b, c = sizes
    locnet = ConvLocnetSpec(sizes=(a, b, c))
    return replace(spec, network=LecunSpec(sizes=(8, 9, 10)), transformers=(replace(placed, locnet=locnet),))


@pytest.mark.parametrize(
    ("sizes", "label", "expected"),
    [
        ((19, 19, 13), "150,150,100", "19,19,13 (150,150,100 / 8)"),
        ((150, 150, 100), "150,150,100", "150,150,100"),
        ((300, 300, 200), "150,150,100", "300,300,200 (150,150,100 x 2)"),
        ((45, 45, 30), "150,150,100", "45,45,30 (150,150,100 x 0.3)"),
        ((1, 1, 1), "20,20,20 · affine", "1,1,1 (20,20,20 / 16) · affine"),
        ((19, 19, 13), "77,77,77", "77,77,77"),
        ((19, 19, 13), "affine", "affine"),
        ((3, 3, 3), "20,20,20", "3,3,3 (20,20,20 / 8)"),
    ],
)
def test_labels_name_the_sizes_that_ran(sizes: tuple[int, ...], label: str, expected: str) -> None:
    """Where a width multiplied channel counts; what is no size, or of another network, stays as it is."""
    axes = (("locnet1.sizes", label.split(" · ", maxsplit=1)[0]),)
    assert sized_label(label, axes, trial(*sizes)) == expected


def test_an_axis_of_another_name_may_set_any_network() -> None:
    """Of an axis that names no place, the networks are tried in order."""
    spec = trial(5, 5, 5)
    assert sized_label("64,72,80", (("size", "64,72,80"),), spec) == "8,9,10 (64,72,80 / 8)"
    assert sized_label("64,72,80", (("locnet1.sizes", "64,72,80"),), spec) == "64,72,80"
