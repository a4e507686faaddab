"""The gallery of a trial's training, for a tracker: a picture a snapshot."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from stnbench.show.animate import png_bytes
from stnbench.show.pictures import training_frames
from stnbench.tracking.base import Picture
from stnbench.trials.watch import watch_training

KEY: Final = "transformers"
"""Of the gallery."""

_SIDE_PX: Final = 80


def training_gallery(folder: Path, *, title: str) -> Iterator[Picture]:
    """The pictures of ``show training``, from the snapshots in an attempt's folder; of no epoch is one left out.

    Raises: SpecError where it has no spatial transformer; FolderError where there are no snapshots.
    """
    moments = watch_training(folder)
    for moment, frame in zip(moments, training_frames(moments, side=_SIDE_PX, title=title, most=None), strict=True):
        yield Picture(key=KEY, step=moment.step, png=png_bytes(frame.picture))
