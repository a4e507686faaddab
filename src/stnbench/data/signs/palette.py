"""The colours of signs, as sRGB."""

from typing import Final

from stnbench.data.signs.canvas import Colour

WHITE: Final[Colour] = (244, 244, 240)
BLACK: Final[Colour] = (22, 22, 24)
RED: Final[Colour] = (196, 30, 38)
BLUE: Final[Colour] = (24, 84, 168)
YELLOW: Final[Colour] = (240, 184, 24)
GREEN: Final[Colour] = (28, 142, 84)
GREY: Final[Colour] = (112, 114, 118)
