"""How hard the data set is: every range that poses, light and the camera are drawn from, in one place.

Each pair is the lower and upper end of a range; unless a line says otherwise, it is drawn from evenly. A change here
is a change of the images: raise ``DRAWING_VERSION`` in ``source`` with it.
"""

from collections.abc import Mapping
from typing import Final

from stnbench.spec.data import Framing

Range = tuple[float, float]

# The approach. GTSRB: 25 to 266 pixels, of which the sign takes about three quarters; the last frame is 2.9 times the
# first in the median and 5.3 times at the 95th percentile.
LAST_SIZE_PX: Final[Range] = (48.0, 250.0)
"""Longer side of the sign's box in the last frame; its logarithm is drawn evenly."""
GROWTH: Final[Range] = (1.7, 5.5)
"""Size in the last frame over size in the first; its logarithm is drawn evenly."""
MIN_SIZE_PX: Final = 15.0
"""No sign is smaller, as in GTSRB."""
MIN_BORDER_PX: Final = 5
"""Camera pixels left round the sign's box at least, as in GTSRB."""

# The pose: what a spatial transformer has to undo.
ROLL_DEG: Final[Range] = (-10.0, 10.0)
"""Turn in the image; far below 45 degrees, as turned arrows must stay apart."""
YAW_DEG: Final[Range] = (-20.0, 20.0)
"""Turn about the vertical axis."""
PITCH_DEG: Final[Range] = (-10.0, 10.0)
"""Turn about the horizontal axis."""
DISTANCE: Final[Range] = (3.0, 9.0)
"""Distance of the camera in half sides of the sign: small is strong perspective."""
FILL: Final[Mapping[Framing, Range]] = {"tight": (0.64, 0.84), "loose": (0.4, 0.6)}
"""Share of the image's sides that the sign's box takes; GTSRB's 5 and 95 percentiles are 0.625 and 0.833."""
ASPECT: Final[Range] = (0.92, 1.08)
"""Share of the width over that of the height."""
OFFSET: Final[Mapping[Framing, Range]] = {"tight": (-0.34, 0.34), "loose": (-1.0, 1.0)}
"""Where a track's box stands in the room that is left, in x and in y; GTSRB's boxes are centred."""
WANDER: Final = 0.6
"""Share of each range that a single track wanders through (pose, light, camera); the rest is between tracks."""
WANDER_CYCLES: Final[Range] = (0.4, 2.5)
"""How often what wanders comes back within a track."""

# What is behind the sign. Tracks of all classes share the places of their half, so that no place tells the class.
PLACES: Final = 64
"""Backdrops of one half."""
PLACES_PER_TRACK: Final = 6
"""Backdrops that pass behind one sign, each fading into the next."""

# The sign.
FADING: Final[Range] = (0.0, 0.25)
"""How far paint has gone towards its own grey."""
DIRT: Final[Range] = (0.0, 0.2)
"""How much the darkest spots of dirt take."""
COVER_SHARE: Final = 0.12
"""Share of tracks in which leaves or stickers cover a part of the sign."""
COVER_RADIUS: Final[Range] = (0.12, 0.3)
"""Radius of what covers, in half sides of the sign."""
NEIGHBOUR_SHARE: Final = 0.25
"""Share of tracks with another sign on the same pole."""

# The light.
NIGHT_SHARE: Final = 0.15
"""Share of tracks by night or deep dusk."""
DAY_STOPS: Final[Range] = (-1.0, 0.5)
"""Exposure by day, in stops; above about 0.1 white paint burns out."""
NIGHT_STOPS: Final[Range] = (-2.5, -1.2)
"""Exposure by night."""
CAST: Final = 0.05
"""Standard deviation of the logarithm of the red and the blue gain."""
GRADIENT_STOPS: Final[Range] = (0.0, 0.6)
"""Difference of exposure across the image."""
SHADOW_SHARE: Final = 0.25
"""Share of tracks in which the edge of a shadow lies across the sign."""
SHADOW_STOPS: Final[Range] = (0.5, 1.5)
"""How much darker the shadow is."""
HAZE: Final[Range] = (0.0, 0.2)
"""Share of the contrast that haze and glare take."""

# The camera.
DEFOCUS_PX: Final[Range] = (0.3, 1.0)
"""Standard deviation of the blur in camera pixels."""
MOTION_PX: Final[Range] = (0.0, 2.2)
"""Length of the smear in camera pixels of a sign of ``MOTION_SIZE_PX``; smaller signs smear less, in proportion."""
MOTION_SIZE_PX: Final = 64.0
"""See ``MOTION_PX``."""
NOISE: Final[Range] = (0.006, 0.035)
"""Standard deviation of the noise by day, of a full scale of 1."""
NIGHT_NOISE: Final = 1.5
"""By night there is this many times more noise."""
JPEG_QUALITY: Final[Range] = (30.0, 92.0)
"""Quality of the compression."""
