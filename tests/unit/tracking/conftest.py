"""Views of an attempt and a configuration, for tests of what is shown of them."""

import pytest

from stnbench.analysis.effects import Estimate
from stnbench.spec.result import (
    AttemptState,
    Cost,
    Environment,
    EpochRecord,
    Failure,
    FailureKind,
    SplitScore,
    TransformerHealth,
)
from stnbench.spec.transformer import PlacedTransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.tracking import AttemptView, ConfigurationView

COST = Cost(parameters=1, flops=2, activation_bytes=3)


@pytest.fixture
def attempt() -> AttemptView:
    """A failed attempt that has nearly everything."""
    spec = TrialSpec(transformers=(PlacedTransformerSpec(place=2),), seed=7)
    health = TransformerHealth(
        place=2,
        theta_mean=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        theta_std=(3.0, 0.0, 0.0, 4.0, 0.0, 0.0),
        outside_share=0.1,
        identity_distance=0.2,
        determinant_mean=0.3,
    )
    epochs = tuple(
        EpochRecord(
            epoch=number,
            step=number * 10,
            train_loss=1.0,
            validation_loss=0.5,
            validation_accuracy=0.75,
            learning_rate=0.01,
            train_duration_s=1.25,
            evaluate_duration_s=0.25,
            health=(health,),
            metrics={"ece": number / 8},
        )
        for number in (1, 2)
    )
    return AttemptView(
        sweep="sizes",
        trial_id=spec.trial_id,
        config_id=spec.config_id,
        label="small",
        axes=(("locnet1.sizes", "1,2,3"), ("optimizer.learning_rate", "learning_rate=0.01"), ("how@far", "small")),
        is_baseline=True,
        spec=spec,
        number=1,
        token="one",
        state=AttemptState.FAILED,
        started_at_ms=1000,
        finished_at_ms=9000,
        epochs=epochs,
        validation=SplitScore(split="validation", images=4, correct=3, loss=0.5, predictions=(1, 2, 3, 4)),
        test=SplitScore(split="test", images=2, correct=1, loss=0.25, predictions=(1, 2)),
        cost=COST,
        environment=Environment(
            commit="c",
            dirty=True,
            python="3.11",
            platform="Linux",
            host="box",
            device="cpu",
            threads=1,
            versions=(("torch", "2"),),
            dataset_digest="d",
        ),
        failure=Failure(kind=FailureKind.TIMEOUT, message="too slow", last_output="epoch 1\nepoch 2"),
    )


@pytest.fixture
def config() -> ConfigurationView:
    """A configuration with an interval."""
    return ConfigurationView(
        sweep="sizes",
        config_id="c1",
        label="small",
        axes=(("locnet1.sizes", "1,2,3"), ("optimizer.learning_rate", "learning_rate=0.01"), ("how@far", "small")),
        is_baseline=False,
        seeds=1,
        mean=0.5,
        low=0.4,
        high=0.6,
        method="t",
        cost=COST,
        rank=1,
        rank_text="1-3",
        standing="underpowered",
        st_gain=Estimate(n=2, mean=0.01, low=-0.02, high=0.04, method="paired t"),
    )
