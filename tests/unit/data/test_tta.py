"""Views move images as asked, and the one that moves nothing changes nothing."""

import pytest
import torch

from stnbench.core.errors import SpecError
from stnbench.data.augmentation import each_view
from stnbench.data.homographies import prepare_views, view_moves
from stnbench.spec.optimizer import TtaSpec

CPU = torch.device("cpu")
BOXES = torch.tensor([[-0.5, -0.5, 0.5, 0.5]])


def image() -> torch.Tensor:
    """One image with one bright pixel off the centre, row 5 and column 8 of 16."""
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    pixels[:, :, 5, 8] = 200
    return pixels


def test_there_are_as_many_views_as_combinations() -> None:
    """Nine shifts, two zooms and three rotations give 54; without a shift, six."""
    spec = TtaSpec(shift=0.1, zooms=(1.0, 1.1), rotations_deg=(-5.0, 0.0, 5.0))
    assert spec.count == len(view_moves(spec)) == 54
    still = TtaSpec(zooms=(1.0, 1.1), rotations_deg=(-5.0, 0.0, 5.0))
    assert still.count == len(view_moves(still)) == 6


def test_the_view_that_moves_nothing_is_the_image() -> None:
    """It is the same to the last bit, box included."""
    ((same, boxes),) = each_view(prepare_views(TtaSpec(), CPU), image(), BOXES)
    assert torch.equal(same, image().float())
    assert torch.equal(boxes, BOXES)


def test_shifts_move_the_content_by_whole_pixels() -> None:
    """A shift of a sixteenth of 16 pixels puts the bright pixel on each of its neighbours once, and leaves it once."""
    places = set()
    for moved, _ in each_view(prepare_views(TtaSpec(shift=1 / 16), CPU), image(), BOXES):
        row, column = divmod(int(moved[0, 0].argmax()), 16)
        assert float(moved[0, 0, row, column]) == pytest.approx(200, abs=1e-2)
        places.add((row - 5, column - 8))
    assert places == {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)}


def test_boxes_move_with_the_content() -> None:
    """A zoom of 1.5 makes the box half as large again."""
    ((_, boxes),) = each_view(prepare_views(TtaSpec(zooms=(1.5,)), CPU), image(), BOXES)
    torch.testing.assert_close(boxes, 1.5 * BOXES)


@pytest.mark.parametrize("wrong", [{"shift": -0.1}, {"zooms": ()}, {"zooms": (0.1,)}, {"rotations_deg": (200.0,)}])
def test_impossible_views_are_refused(wrong: dict[str, object]) -> None:
    """The message names the key."""
    with pytest.raises(SpecError, match=next(iter(wrong))):
        TtaSpec(**wrong)  # type: ignore[arg-type] # wrong on purpose
