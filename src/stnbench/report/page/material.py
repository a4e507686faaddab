"""What a page shows beside the leaderboard, as it is handed in: frames, answers, pictures, snapshots, last words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from stnbench.report.page.answers import Answers
from stnbench.report.page.gallery import Picture
from stnbench.report.page.watch import Watched


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Material:
    """Empty where nothing is known: the page then shows the leaderboard alone.

    Attributes:
        trials: of ``frames_columns.TRIAL_COLUMNS``.
        epochs: of ``frames_columns.EPOCH_COLUMNS``.
        health: of ``frames_columns.HEALTH_COLUMNS``.
        answers: of each set of images that trials were scored on, the one of the best cell first.
        no_answers: why there are none, in a sentence.
        pictures: that lie beside the report.
        watched: the training of the best trial that has a transformer.
        last_lines: what failed trials said last, by trial id.
    """

    trials: pd.DataFrame | None = None
    epochs: pd.DataFrame | None = None
    health: pd.DataFrame | None = None
    answers: Sequence[Answers] = ()
    no_answers: str = ""
    pictures: Sequence[Picture] = ()
    watched: Watched | None = None
    last_lines: Mapping[str, Sequence[str]] = field(default_factory=dict)
