"""Options of the machine are named in a variable, recorded, and no part of a trial; its precision is one."""

import dataclasses

import pytest

from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.codec import from_plain, to_identity, to_plain
from stnbench.spec.optimizer import AdamWSpec, MuonSpec, RmspropSpec
from stnbench.spec.registry import PartSource
from stnbench.spec.trial import ComputeOptions, TrainingSpec, TrialSpec


def test_options_are_read_from_the_variable_and_written_as_in_it() -> None:
    """In any order, with spaces and twice; what is written reads back as the same options."""
    found = ComputeOptions.from_environment({"STNBENCH_COMPUTE": "compile, channels_last,compile,"})
    assert found == ComputeOptions(channels_last=True, compile=True)
    assert str(found) == "channels_last,compile"
    assert ComputeOptions.from_environment({"STNBENCH_COMPUTE": str(found)}) == found


@pytest.mark.parametrize("environment", [{}, {"STNBENCH_COMPUTE": ""}])
def test_without_the_variable_nothing_is_on(environment: dict[str, str]) -> None:
    """And the record of it is empty, as in results of older versions."""
    assert ComputeOptions.from_environment(environment) == ComputeOptions()
    assert str(ComputeOptions()) == ""


FAST = TrainingSpec(precision="bfloat16")


@pytest.mark.parametrize(
    ("spec", "is_on_gpu", "named", "expected"),
    [
        (TrialSpec(training=FAST), True, None, "channels_last,cuda_graphs"),
        (TrialSpec(training=FAST, optimizer=AdamWSpec()), True, None, "channels_last,cuda_graphs"),
        (TrialSpec(training=FAST, optimizer=RmspropSpec()), True, None, "channels_last,cuda_graphs"),
        (TrialSpec(training=FAST, optimizer=MuonSpec()), True, None, "channels_last"),
        (TrialSpec(training=FAST), False, None, ""),
        (TrialSpec(training=TrainingSpec(precision="tf32")), True, None, ""),
        (TrialSpec(), True, None, ""),
        (TrialSpec(training=FAST), True, "", ""),
        (TrialSpec(training=FAST), True, "compile", "compile"),
        (TrialSpec(), True, "cuda_graphs", "cuda_graphs"),
    ],
)
def test_the_fast_choice_on_a_gpu_is_captured_unless_the_variable_says_otherwise(
    spec: TrialSpec, is_on_gpu: bool, named: str | None, expected: str
) -> None:
    """Trials in bfloat16 are, where their optimiser can be; none of it is part of what a trial is."""
    environment = {} if named is None else {"STNBENCH_COMPUTE": named}
    trial_id = spec.trial_id
    assert str(ComputeOptions.for_trial(spec, is_on_gpu=is_on_gpu, environment=environment)) == expected
    assert spec.trial_id == trial_id


def test_a_part_of_a_third_party_is_not_captured_by_itself() -> None:
    """It may read numbers on the host; who names the option takes that on."""
    spec = TrialSpec(training=FAST)
    source = PartSource(kind="network", name="theirs", distribution="theirs 1.0", digest="d")
    object.__setattr__(spec, "parts", (source,))
    assert str(ComputeOptions.for_trial(spec, is_on_gpu=True, environment={})) == "channels_last"
    asked = {"STNBENCH_COMPUTE": "cuda_graphs"}
    assert str(ComputeOptions.for_trial(spec, is_on_gpu=True, environment=asked)) == "cuda_graphs"


def test_an_unknown_option_is_refused() -> None:
    """Rather than a run that is not as it was asked for; the message names the variable and the nearest option."""
    with pytest.raises(
        UnknownNameError, match="unknown option 'cudagraph' in STNBENCH_COMPUTE: did you mean cuda_graphs"
    ):
        ComputeOptions.from_environment({"STNBENCH_COMPUTE": "cudagraph"})


def test_the_precision_is_part_of_a_trial_and_float32_goes_without_saying() -> None:
    """Every trial so far keeps its identity; one in bfloat16 or TF32 is another trial, and reads back as it was."""
    others = [TrialSpec(training=TrainingSpec(precision=precision)) for precision in ("bfloat16", "tf32")]
    assert "precision" not in str(to_identity(TrialSpec()))
    assert len({TrialSpec().trial_id, *(other.trial_id for other in others)}) == 3
    for other in others:
        assert from_plain(TrialSpec, to_plain(other), where="the test") == other
    said = dataclasses.replace(TrialSpec(), training=TrainingSpec(precision="float32"))
    assert said.trial_id == TrialSpec().trial_id


def test_another_precision_is_refused() -> None:
    """float16 needs a scaled loss, which there is not."""
    plain = to_plain(TrainingSpec()) | {"precision": "float16"}
    with pytest.raises(SpecError, match="precision"):
        from_plain(TrainingSpec, plain, where="the test")
