"""A transformer that collapses is called so at once, can be ended for it, and stands out; a healthy one is left alone.

The collapse of reference is that of a learning rate too high for the localisation network with momentum (as
qassemoquab/stnbhwd#22 and many after it): here on distorted digits, a second an epoch.
"""

import json

import pytest
from commands import Workplace

from stnbench.spec.result import EpochRecord, Verdict
from stnbench.store.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

DIGITS = {
    "scale": "quick_wide",
    "dataset": "digits",
    "distortion": "RTS",
    "preprocess": "global",
    "network": "fcn",
    "locnet@locnet1": "dense",
    "optimizer": "momentum",
    "schedule": "one_cycle",
}
"""An affine transformer before a fully connected network, ten classes."""

RATES = f"""\
question: Which rate does the localisation network stand?
base: {json.dumps(DIGITS | {"optimizer.learning_rate": 0.03, "training.epochs": 4})}
axes:
  optimizer.locnet_learning_rate_factor: [1.0, 0.1]
pruner: health
baselines: false
seeds: [1]
"""


def trained(workplace: Workplace, **settings: str | float) -> list[EpochRecord]:
    """Train one trial, as a user does, and read its epochs."""
    chosen = DIGITS | {key.replace("__", "."): value for key, value in settings.items()}
    done = workplace.run("train", "--json", *(f"{key}={value}" for key, value in chosen.items()))
    assert done.returncode == 0, done.stderr
    with Store.open(workplace.runs / "stnbench.db", writable=False) as store:
        return [item.record for item in store.epochs_of_trial(json.loads(done.stdout)["trial"])]


def test_a_collapse_is_called_so_in_its_epoch_and_from_then_on(workplace: Workplace) -> None:
    """The rate rises over three of six epochs: the network begins to learn in the first, and is lost in the second."""
    first, *others = trained(workplace, optimizer__learning_rate=0.05, schedule__warmup_share=0.5, training__epochs=6)
    assert first.verdict is not Verdict.COLLAPSED
    assert first.validation_accuracy > 0.12
    assert [record.verdict for record in others] == [Verdict.COLLAPSED] * 5
    assert all(record.validation_accuracy < 0.12 and record.health[0].outside_share > 0.8 for record in others)


def test_a_healthy_transformer_is_never_called_collapsed(workplace: Workplace) -> None:
    """With a tenth of a lower rate it learns; without its theta the network is lost."""
    records = trained(
        workplace,
        optimizer__learning_rate=0.01,
        optimizer__locnet_learning_rate_factor=0.1,
        training__epochs=4,
    )
    assert Verdict.COLLAPSED not in {record.verdict for record in records}
    last = records[-1]
    assert last.verdict is Verdict.HEALTHY
    assert last.validation_accuracy > 0.5
    for replaced in (last.health[0].accuracy_identity, last.health[0].accuracy_mean):
        assert replaced is not None
        assert replaced < last.validation_accuracy - 0.2


def test_a_pruner_ends_a_collapse_and_the_leaderboard_shows_it(workplace: Workplace) -> None:
    """The collapsed trial ends after the epoch in which it collapsed, the healthy one runs to its end."""
    (workplace.folder / "sweeps" / "rates.yaml").write_text(RATES)
    done = workplace.run("sweep", "rates")
    assert done.returncode == 0, done.stderr
    assert "collapsed" in done.stdout
    report = json.loads(workplace.run("report", "rates", "--format", "json").stdout)
    healthy, collapsed = report["rows"]
    assert (healthy["states"]["complete"], healthy["health"]["healthy"]) == (1, 1)
    assert (collapsed["states"]["pruned"], collapsed["health"]["collapsed"]) == (1, 1)
    assert any(note.startswith("collapsed: ") for note in report["notes"])
    page = (workplace.folder / "reports" / "rates" / "index.html").read_text()
    assert page.count('<span class="mark bad">collapsed</span>') == 2  # its row, and its trial's

    with Store.open(workplace.runs / "stnbench.db", writable=False) as store:
        epochs = {trial: [item.record for item in items] for trial, items in store.epochs_of_sweep("rates").items()}
        ended = next(trial.trial_id for trial in store.sweep_trials("rates") if trial.label.endswith("=1.0"))
    verdicts = [record.verdict for record in epochs[ended]]
    assert verdicts[-1] is Verdict.COLLAPSED
    assert Verdict.COLLAPSED not in verdicts[:-1]
    assert len(verdicts) < 4
