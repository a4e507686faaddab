"""Pictures from the command line: of a trained trial, and what is said where there is nothing to see."""

import json
import sqlite3
from contextlib import closing

import pytest
from commands import Workplace
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def trial_of(workplace: Workplace, *, is_baseline: bool) -> str:
    """A trial with a spatial transformer, or of the baseline, which has none."""
    with closing(sqlite3.connect(workplace.runs / "stnbench.db")) as connection:
        sql = "select trial_id from sweep_trials where is_twin = ? order by position limit 1"
        return str(connection.execute(sql, (is_baseline,)).fetchone()[0])


def test_a_trained_trial_is_shown(workplace: Workplace) -> None:
    """All three pictures, the table of stability, and a gallery in MLflow that is made once; nothing of a baseline."""
    assert workplace.run("sweep", "tiny", "seeds=[1]").returncode == 0
    trial = trial_of(workplace, is_baseline=False)
    for what, kind, asked in (
        ("transform", "PNG", "--images=3"),
        ("training", "GIF", "--side=40"),
        ("tracks", "GIF", "--tracks=2"),
    ):
        done = workplace.run("show", what, trial[:8], asked, "--out", f"pictures/{what}")
        assert done.returncode == 0, done.stderr
        with Image.open(workplace.folder / "pictures" / what) as picture:
            assert picture.format == kind
    measured = json.loads(workplace.run("show", "stability", trial, "--tracks=4", "--json").stdout)
    assert (measured["trial"], measured["tracks"]) == (trial, 4)
    assert len(measured["transformers"][0]["measures"]) == 9

    assert "tiny: 0 new pictures" not in workplace.run("mirror", "tiny", "--pictures").stdout
    assert "tiny: 0 new pictures" in workplace.run("mirror", "tiny", "--pictures").stdout

    refused = workplace.run("show", "transform", trial_of(workplace, is_baseline=True))
    assert refused.returncode == 2
    assert "has no spatial transformer: name one that has" in refused.stderr
