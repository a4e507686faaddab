"""Panels: what is drawn where."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stnbench.show import BACKGROUND, Region, framed, grid, panel, picture_of, shortened, wrapped

WHITE = (255, 255, 255)
SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)


def region(scale: float) -> Region:
    """A square region with four corners."""
    return Region(border=SQUARE * np.float32(scale), corners=range(4), colour=WHITE)


def test_images_of_any_channels_have_colours() -> None:
    """One channel is grey, two are red and green, three are themselves."""
    image = np.stack([np.full((2, 2), value, np.uint8) for value in (10, 20, 30)])
    assert picture_of(image[:1]).getpixel((0, 0)) == (10, 10, 10)
    assert picture_of(image[:2]).getpixel((0, 0)) == (10, 20, 0)
    assert picture_of(image).getpixel((0, 0)) == (10, 20, 30)


def test_a_panel_is_the_image_within_its_margin() -> None:
    """The image is enlarged to its side, and the margin is background."""
    drawn = panel(np.full((3, 4, 4), 200, np.uint8), side=40, margin=5)
    assert drawn.size == (50, 50)
    assert drawn.getpixel((2, 25)) == BACKGROUND
    assert drawn.getpixel((25, 25)) == (200, 200, 200)


def test_a_region_has_dots_at_its_corners() -> None:
    """White at the four corners of the region, also on a white image's edge; the inside is untouched."""
    drawn = panel(np.full((3, 4, 4), 90, np.uint8), side=80, margin=20, regions=[region(0.5)])
    for x in (40, 80):
        for y in (40, 80):
            assert drawn.getpixel((x, y)) == WHITE
    assert drawn.getpixel((60, 60)) == (90, 90, 90)
    assert drawn.getpixel((60, 40)) != (90, 90, 90)


def test_a_region_that_is_nowhere_is_not_drawn() -> None:
    """Numbers that are not finite leave the image alone, and far ones do not break it."""
    image = np.full((3, 4, 4), 90, np.uint8)
    plain = panel(image, side=40, margin=5)
    assert panel(image, side=40, margin=5, regions=[region(float("nan"))]) == plain
    assert panel(image, side=40, margin=5, regions=[region(1e30)]) == plain


def test_a_grid_keeps_its_gaps() -> None:
    """Two rows of three panels, with room between them and for text round them."""
    panels = [[panel(np.zeros((1, 2, 2), np.uint8), side=10, margin=0)] * 3] * 2
    sheet = grid(panels, gap=4)
    assert sheet.size == (38, 24)
    assert sheet.getpixel((11, 5)) == BACKGROUND
    assert framed(sheet, left=1, top=2, right=3, bottom=4).size == (42, 30)


@given(words=st.lists(st.text("abcdefghij", min_size=1, max_size=30), min_size=1, max_size=12))
def test_text_is_cut_to_its_place(words: list[str]) -> None:
    """No line is wider than it may be, and what fits is left whole."""
    text = " ".join(words)
    lines = wrapped(text, 120)
    assert all(shortened(line, 120) == line for line in lines)
    assert shortened(text, 10_000) == text
    assert wrapped(text, 10_000) == [text]
