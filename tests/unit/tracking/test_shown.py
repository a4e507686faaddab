"""What is shown of an attempt and a configuration is complete, within MLflow's limits, and never early."""

import dataclasses
import re

import pytest

from stnbench.spec.codec import from_json
from stnbench.spec.result import AttemptState, Failure, FailureKind, Verdict
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec
from stnbench.tracking import AttemptView, ConfigurationView, shown

MLFLOW_KEY = re.compile(r"[-\w./: ]{1,250}")


def test_parameters_are_what_differs_within_a_sweep(attempt: AttemptView, config: ConfigurationView) -> None:
    """The labels on the axes and the seed, numbers without their keys; a config has the same, so that both compare."""
    axes = {"axis.locnet1.sizes": "1,2,3", "axis.optimizer.learning_rate": "0.01", "axis.how_far": "small"}
    assert shown.run_parameters(attempt) == axes | {"seed": "7"}
    assert shown.axis_parameters(config.axes) == axes
    assert shown.run_parameters(dataclasses.replace(attempt, axes=(), is_baseline=True)) == {"seed": "7"}


def test_a_single_trial_shows_what_is_not_at_its_default(attempt: AttemptView) -> None:
    """Every such value has its path; transformers are called by their place, so that columns line up across trials."""
    placed = PlacedTransformerSpec(place=2, locnet=ConvLocnetSpec(sizes=(1, 2, 3)))
    spec = TrialSpec(transformers=(placed,), training=TrainingSpec(epochs=3), seed=1)
    parameters = shown.run_parameters(dataclasses.replace(attempt, axes=(), is_baseline=False, spec=spec))
    assert parameters["seed"] == "1"
    assert parameters["training.epochs"] == "3"
    assert parameters["transformers.2.locnet.sizes"] == "[1,2,3]"
    assert not {"network.sizes", "optimizer.learning_rate"} & parameters.keys()
    assert not [key for key in parameters if key.startswith("transformers.1")]


def test_the_specification_is_whole(attempt: AttemptView) -> None:
    """The artifact says defaults as well, and can be read back."""
    text = shown.specification_text(attempt.spec)
    assert '"learning_rate": 0.01' in text
    assert from_json(TrialSpec, text, where="the artifact") == attempt.spec


def test_every_key_may_be_used_in_mlflow(attempt: AttemptView) -> None:
    """MLflow's keys have at most 250 characters of a small alphabet."""
    keys = [*shown.run_parameters(attempt), *shown.specification_parameters(attempt.spec), *shown.run_tags(attempt)]
    keys += [measure.key for measure in shown.run_measures(attempt)]
    assert [key for key in keys if not MLFLOW_KEY.fullmatch(key)] == []


def test_values_stay_within_the_limits(attempt: AttemptView) -> None:
    """However long a failure's story, its tag is one that MLflow takes, and its end is what is kept."""
    story = Failure(kind=FailureKind.BUG, message="m" * 50_000, traceback="t" * 50_000 + "ValueError: the end")
    tags = shown.run_tags(dataclasses.replace(attempt, failure=story))
    assert max(map(len, tags.values())) <= 8000
    assert "ValueError: the end" in tags[shown.NOTE]


def test_a_process_that_died_without_a_word_shows_its_log(attempt: AttemptView) -> None:
    """Where there is no traceback, the last output tells."""
    tags = shown.run_tags(attempt)
    assert tags["failure"] == "timeout"
    assert tags["failure_message"] == "too slow"
    assert tags[shown.NOTE].startswith("**timeout**: too slow\n\n```\nepoch 1\nepoch 2\n```\n\n")


def test_an_attempt_at_work_has_no_failure_and_no_environment(attempt: AttemptView) -> None:
    """Tags that nothing is known of are left out."""
    tags = shown.run_tags(dataclasses.replace(attempt, failure=None, environment=None))
    assert {key: value for key, value in tags.items() if not key.startswith("mlflow.")} == {
        "sweep": "sizes",
        "cell": attempt.config_id,
        "seed": "7",
        "trial": attempt.trial_id,
        "attempt": "1",
        "status": "failed",
        "token": "one",
        "baseline": "true",
        "specification": "specification.json",
    }


def test_points_in_time_follow_from_the_view(attempt: AttemptView) -> None:
    """The time of an epoch is the start plus the durations until then, so that showing it again is the same point."""
    points = {(one.step, one.timestamp_ms) for one in shown.run_measures(attempt) if one.key == "loss/train"}
    assert points == {(1, 2500), (2, 4000)}
    assert len(set(shown.run_measures(attempt))) == len(shown.run_measures(attempt))


def test_metrics_are_curves_over_epochs(attempt: AttemptView) -> None:
    """Each under the name of the validation split, at its epoch."""
    points = [(one.step, one.value) for one in shown.run_measures(attempt) if one.key == "metric/validation_ece"]

    assert points[:2] == [(1, 0.125), (2, 0.25)]


def test_the_end_is_at_the_last_epoch(attempt: AttemptView) -> None:
    """Final numbers stand at the step of the last epoch and the time of the end."""
    final = {one.key: one for one in shown.run_measures(attempt)}["accuracy/test"]
    assert (final.value, final.step, final.timestamp_ms) == (0.5, 2, 9000)


def test_health_is_shown_by_place(attempt: AttemptView) -> None:
    """The spread of theta is the root mean square of its six deviations."""
    health = {one.key: one.value for one in shown.run_measures(attempt) if one.key.startswith("transformer_2/")}
    assert health == pytest.approx(
        {
            "transformer_2/theta_spread": (25 / 6) ** 0.5,
            "transformer_2/outside_share": 0.1,
            "transformer_2/identity_distance": 0.2,
            "transformer_2/determinant_mean": 0.3,
        }
    )


def test_known_theta_errors_and_further_branches_are_shown(attempt: AttemptView) -> None:
    """A second branch has a name of its own, and an error that is not known is not shown at all."""
    health = dataclasses.replace(attempt.epochs[-1].health[0], branch=2, theta_error=0.25)
    epochs = (dataclasses.replace(attempt.epochs[-1], health=(health,)),)
    keys = {one.key: one.value for one in shown.run_measures(dataclasses.replace(attempt, epochs=epochs))}
    assert keys["transformer_2.2/theta_error"] == 0.25
    assert "transformer_2.2/theta_error_identity" not in keys


@pytest.mark.parametrize("state", AttemptState)
def test_test_scores_wait_for_the_end(attempt: AttemptView, state: AttemptState) -> None:
    """Only an attempt at work hides the test split."""
    keys = {one.key for one in shown.run_measures(dataclasses.replace(attempt, state=state))}
    assert ("accuracy/test" in keys) == (state is not AttemptState.RUNNING)
    assert "accuracy/validation_final" in keys


def test_names_count_attempts_and_seeds(attempt: AttemptView, config: ConfigurationView) -> None:
    """A first attempt is not numbered; one seed is no seeds."""
    assert shown.run_name(attempt) == "small · seed 7"
    assert shown.run_name(dataclasses.replace(attempt, number=3)) == "small · seed 7 · attempt 3"
    assert shown.configuration_name(config) == "50.00 % · small · mean of 1 seed"
    assert shown.configuration_name(dataclasses.replace(config, seeds=5)) == "50.00 % · small · mean of 5 seeds"


def test_a_configuration_shows_only_what_is_known(config: ConfigurationView) -> None:
    """Without an interval, a cost, a rank or a baseline there is no such number."""
    bare = dataclasses.replace(
        config, low=None, high=None, cost=None, rank=None, rank_text="", standing="", st_gain=None
    )
    assert shown.configuration_values(bare) == {
        "accuracy/validation_mean": 0.5,
        "seeds": 1.0,
    }
    assert not {"rank", "vs_best", "health"} & shown.configuration_tags(bare).keys()
    known = {"accuracy/validation_high": 0.6, "rank": 1.0, "st_gain": 0.01, "st_gain_low": -0.02, "st_gain_high": 0.04}
    assert known.items() <= shown.configuration_values(config).items()
    assert {"rank": "1-3", "vs_best": "underpowered"}.items() <= shown.configuration_tags(config).items()


def with_verdict(attempt: AttemptView, verdict: Verdict) -> AttemptView:
    """The attempt with this verdict after its last epoch, and an accuracy that is known."""
    *before, last = attempt.epochs
    health = dataclasses.replace(last.health[0], verdict=verdict, accuracy_identity=0.25)
    return dataclasses.replace(attempt, epochs=(*before, dataclasses.replace(last, health=(health,))))


def test_runs_can_be_filtered_by_health(attempt: AttemptView) -> None:
    """The tag is the verdict after the last epoch; that of a run that diverged says so, and an old run has no tag."""
    collapsed = with_verdict(attempt, Verdict.COLLAPSED)
    diverged = dataclasses.replace(collapsed, failure=Failure(kind=FailureKind.DIVERGED, message="nan"))
    assert shown.run_tags(collapsed)["health"] == "collapsed"
    assert shown.run_tags(diverged)["health"] == "diverged"
    assert "health" not in shown.run_tags(attempt)


def test_severity_and_what_else_is_known_are_metrics(attempt: AttemptView) -> None:
    """By epoch: nothing in the first, which was not judged."""
    found = {(one.key, one.step): one.value for one in shown.run_measures(with_verdict(attempt, Verdict.COLLAPSED))}
    assert (found["transformer_2/severity", 2], found["transformer_2/accuracy_identity", 2]) == (4.0, 0.25)
    assert ("transformer_2/severity", 1) not in found
    assert ("transformer_2/accuracy_mean", 2) not in found


def test_a_configuration_says_how_its_seeds_are(config: ConfigurationView) -> None:
    """In words, and not at all where it is not known."""
    assert shown.configuration_tags(dataclasses.replace(config, health="2 collapsed, 1 healthy"))["health"] == (
        "2 collapsed, 1 healthy"
    )
    assert "health" not in shown.configuration_tags(config)
