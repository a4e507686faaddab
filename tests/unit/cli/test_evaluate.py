"""``stnbench evaluate``: what it refuses before it reads anything, and the figures that it prints."""

import json

import numpy as np
import pytest

from stnbench.cli.evaluate import CLEAN, _Kept, _names_and_overrides, _tta, corruption_json, corruption_lines, main
from stnbench.cli.evaluate import only_root as root_of
from stnbench.core.errors import SpecError, UnknownNameError

OWN = {CLEAN: (0.1,), "blur": (0.2, 0.4), "noise": (0.1, 0.3)}
REFERENCE = {CLEAN: (0.2,), "blur": (0.4, 0.8), "noise": (0.6, 1.0)}


def test_errors_on_corrupted_images_are_over_those_of_the_reference() -> None:
    """By hand: (0.6 / 1.2 + 0.4 / 1.6) / 2, and (0.4 / 0.8 + 0.2 / 1.2) / 2 above the errors on clean images."""
    alone = corruption_json([OWN])
    assert alone["mean_corruption_error_unnormalised"] == pytest.approx(0.25)
    assert alone["clean_error"] == 0.1
    assert CLEAN not in alone["corruption_errors"]
    assert "mean_corruption_error" not in alone

    both = json.loads(json.dumps(corruption_json([OWN, REFERENCE])))
    assert both["mean_corruption_error"] == pytest.approx(0.375)
    assert both["relative_mean_corruption_error"] == pytest.approx(1 / 3)
    assert (both["reference_clean_error"], both["mean_corruption_error_unnormalised"]) == (0.2, pytest.approx(0.25))


def test_the_table_of_corruptions_has_the_figures_of_json() -> None:
    """In percent, a line for each corruption of each network, and the quotients only with a reference."""
    lines = corruption_lines({"mine": OWN, "reference: other": REFERENCE})
    assert [line.split() for line in lines if line.startswith("  noise")] == [
        ["noise", "10.00", "30.00"],
        ["noise", "60.00", "100.00"],
    ]
    assert lines[-2].endswith("unnormalised: 25.00 %")
    assert lines[-1].endswith("mean corruption error 37.5 %, relative mean corruption error 33.3 %")
    assert "reference" not in "\n".join(corruption_lines({"mine": OWN}))


def test_a_score_without_repeats_counts_only_the_images_that_are_left() -> None:
    """Of four images one repeats a training image: two of three are right; where all repeat there is no accuracy."""
    right = np.array([True, True, False, True])
    kept = _Kept(kind="near", mask=np.array([True, False, True, True]))
    assert kept.score(right) == {
        "kind": "near", "left_out": 1, "accuracy": 2 / 3, "images": 3, "correct": 2, "errors": 1,
    }  # fmt: skip
    assert kept.line("test", right) == (
        "test without the 1 images that are equal or nearly equal to one trained on: 66.667 % of 3 images (1 errors)"
    )
    nothing = _Kept(kind="equal", mask=np.zeros(4, bool))
    assert nothing.score(right)["accuracy"] is None
    assert nothing.line("test", right).endswith("are equal to one trained on: none is left")


def test_names_may_hold_an_equals_sign_and_only_the_data_folder_is_an_override() -> None:
    """``sweep:sizes=3#2`` names a trial; any key but dataset.root is refused, for a stored trial has its own."""
    names, overrides = _names_and_overrides(["a", "sizes:locnet1.sizes=3#2", "dataset.root=/data", "b"])
    assert (names, overrides) == (["a", "sizes:locnet1.sizes=3#2", "b"], ["dataset.root=/data"])
    assert root_of([]) is None
    assert str(root_of(["dataset.root=/data"])) == "/data"
    with pytest.raises(SpecError, match=r"a stored trial has its own seed"):
        root_of(["seed=3"])


def test_options_that_do_not_go_together_are_refused_before_anything_is_read() -> None:
    """A reference is for corruptions alone."""
    with pytest.raises(SpecError, match="without --corruptions"):
        main(["no_such_trial", "--reference", "other"])


def test_a_choice_of_test_time_augmentation_is_one_of_conf() -> None:
    """``nine`` evaluates each image nine times; an unknown one is refused."""
    assert _tta("nine").count == 9
    with pytest.raises(UnknownNameError):
        _tta("no_such_choice")
