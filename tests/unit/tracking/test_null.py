"""The tracker that shows nothing is always at hand."""

from stnbench.spec.sweep import SweepSpec
from stnbench.tracking import AttemptView, ConfigurationView, NullTracker


def test_nothing_is_shown_and_nothing_is_left_open(attempt: AttemptView, config: ConfigurationView) -> None:
    """It takes every view and has no orphans."""
    tracker = NullTracker()
    tracker.open_sweep(SweepSpec(name="sizes", question="?"))
    tracker.show_attempt(attempt)
    tracker.show_configuration(config)
    assert tracker.close_orphans("sizes", []) == 0
    tracker.close()
