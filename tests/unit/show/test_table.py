"""The table of stability says its n and its method."""

import json

from stnbench.diagnostics.stability import TrackMean
from stnbench.show import stability_data, stability_text
from stnbench.trials.stability import Measure, Stability, TransformerStability

MEAN = TrackMean(tracks=3, mean=0.5, low=0.25, high=0.75)
ALONE = TrackMean(tracks=1, mean=0.5, low=None, high=None)
MEASURE = Measure(
    name="corner spread",
    unit="half sides of the sign",
    transformer=MEAN,
    identity=ALONE,
    zoom=None,
    to_identity=MEAN,
    to_zoom=None,
)
STABILITY = Stability(
    tracks=3,
    images=1090,
    sign="box",
    transformers=(TransformerStability(place=2, branch=1, zoom=0.72, measures=(MEASURE,)),),
)


def test_a_table_says_n_and_method() -> None:
    """Tracks, images, the kind of interval and what the coordinates are from; what is not known is a dash."""
    first, empty, heading, row = stability_text(STABILITY).splitlines()
    assert first == (
        "3 validation tracks, 1,090 images; the sign's coordinates are from its annotated box; means over tracks with "
        "95 % intervals (bootstrap over tracks)."
    )
    assert empty == ""
    assert heading.split("  ")[0] == "ST before stage 2"
    assert "zoom 0.72" in heading
    assert " ".join(row.split()) == (
        "corner spread (half sides of the sign) 0.500 [0.250, 0.750] 0.500 - 0.500 [0.250, 0.750] -"
    )


def test_the_data_are_the_same_numbers() -> None:
    """They go through JSON and back."""
    data = json.loads(json.dumps(stability_data(STABILITY)))
    [measure] = data["transformers"][0]["measures"]
    assert measure["transformer"] == {"tracks": 3, "mean": 0.5, "low": 0.25, "high": 0.75}
    assert measure["zoom"] is None
