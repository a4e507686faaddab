"""What the numbers of a sweep were made with, and how to make them again."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from stnbench.report.board import Counted, Provenance
from stnbench.report.runs import sweep_command
from stnbench.spec.data import Split
from stnbench.spec.sweep import SweepSpec


def provenance(sweep: SweepSpec, trials: pd.DataFrame, split: Split) -> Provenance:
    """The provenance of the complete trials of a frame (``frames_columns.TRIAL_COLUMNS``)."""
    done = trials[trials["state"] == "complete"]
    dirty = done["dirty"].fillna(value=False).map({True: " with local changes", False: ""})
    images = done[f"{split}_images"].dropna()
    return Provenance(
        command=sweep_command(sweep),
        seeds=tuple(sorted(int(seed) for seed in trials["seed"].unique())),
        commits=counted(done["commit"] + dirty),
        devices=counted(done["device"]),
        platforms=counted(done["platform"] + ", Python " + done["python"]),
        versions=counted(done["versions"]),
        datasets=counted(done["dataset_digest"]),
        images=counted(images),
    )


def counted(values: "pd.Series[Any]") -> tuple[Counted, ...]:
    """Distinct values with how often they occur, the most frequent first, equally frequent ones in order."""
    found = [Counted(value=str(value), trials=int(count)) for value, count in values.value_counts().items()]
    return tuple(sorted(found, key=lambda item: (-item.trials, item.value)))


def differences(known: Provenance, tasks: int = 1) -> Iterator[str]:
    """A note for everything that should be the same for all trials and is not.

    Args:
        known: what the numbers were made with.
        tasks: groups of cells that are compared by themselves, each with data of its own.
    """
    worries = (
        ("commits", known.commits, "the code may have changed between them"),
        ("devices", known.devices, "times do not compare, and scores may differ in the last images"),
        ("sets of libraries", known.versions, "scores may differ between them"),
        ("data digests", known.datasets, "the trials did not see the same data, and their scores do not compare"),
        ("numbers of images", known.images, "the trials were not scored on the same images"),
    )
    for what, values, worry in worries:
        if len(values) > (tasks if values is known.datasets else 1):
            yield f"{len(values)} different {what} among the trials: {worry}."
