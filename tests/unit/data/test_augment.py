"""Augmentation: content moves as asked, its box with it, and the numbers depend on seed and epoch alone."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from stnbench.core.errors import InfeasibleError, ShapeError, SpecError
from stnbench.data import augmentation
from stnbench.data.augmentation import Augmentations, build_augmentation, draw_augmentations, lightness
from stnbench.spec.optimizer import AugmentSpec

GEOMETRY = AugmentSpec(perspective=0.06, scale=0.2, aspect=0.1, shear_deg=8.0, rotation_deg=30.0, translation=0.1)
COLOUR = AugmentSpec(brightness=0.5, contrast=0.5, saturation=0.5, hue_deg=20.0)
ALL = dataclasses.replace(
    GEOMETRY, gamma=1.0, brightness=0.5, contrast=0.5, saturation=0.5, hue_deg=20.0, blur=0.5, erase=0.3
)
FULL_BOX = (-1.0, -1.0, 1.0, 1.0)


def draw(spec: AugmentSpec, count: int, *, seed: int = 1, epoch: int = 0) -> Augmentations:
    """The augmentations of one epoch."""
    return draw_augmentations(spec, seed=seed, epoch=epoch, count=count)


def noise(count: int, channels: int = 3, side: int = 16) -> Tensor:
    """Random uint8 images."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8)


def boxes(count: int, box: tuple[float, ...] = FULL_BOX) -> Tensor:
    """The same box for every image."""
    return torch.tensor([box]).repeat(count, 1)


def parts(augmentations: Augmentations) -> list[Tensor]:
    """The tensors that are there."""
    fields = (getattr(augmentations, field.name) for field in dataclasses.fields(augmentations))
    return [part for part in fields if part is not None]


def moves(in_to_out: list[list[float]]) -> Augmentations:
    """One image moved by a matrix."""
    matrix = torch.tensor([in_to_out])
    return Augmentations(in_to_out=matrix, out_to_in=torch.linalg.inv(matrix), colour=None, mean_share=None)


def test_nothing_asked_for_is_the_identity() -> None:
    """All keys at 0: the levels and boxes come back unchanged, and no numbers are kept."""
    images, full = noise(3), boxes(3)
    nothing = draw(AugmentSpec(), 3)
    varied, moved = nothing.apply(images, full)
    assert parts(nothing) == []
    assert varied.dtype == torch.float32
    assert torch.equal(varied, images.float())
    assert moved is full


def test_levels_alone_do_not_resample() -> None:
    """Without geometry every pixel stays at its place, so that one of its own level stays alone."""
    images = torch.full((1, 3, 9, 9), 50, dtype=torch.uint8)
    images[0, :, 2, 6] = 90
    varied, _ = draw(COLOUR, 1).apply(images, boxes(1))
    different = (varied - varied[:, :, :1, :1]).abs().sum(1)[0] > 1
    assert different.nonzero().tolist() == [[2, 6]]


def test_a_positive_angle_turns_the_content_clockwise() -> None:
    """A quarter turn moves a dot from the right of the centre to below it."""
    images = torch.zeros(1, 1, 15, 15, dtype=torch.uint8)
    images[0, 0, 7, 12] = 255
    varied, _ = moves([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]).apply(images, boxes(1))
    assert (varied[0, 0] > 128).nonzero().tolist() == [[12, 7]]


def test_angles_and_shifts_are_uniform_up_to_the_keys() -> None:
    """Over many images the angles of a rotation fill [-10, 10] degrees evenly, the shifts [-0.2, 0.2]."""
    matrices = draw(AugmentSpec(rotation_deg=10.0, translation=0.1), 4000).in_to_out
    assert matrices is not None
    angles = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    for values, largest in ((angles, 10.0), (matrices[:, 0, 2], 0.2), (matrices[:, 1, 2], 0.2)):
        assert values.abs().max() <= largest * (1 + 1e-5)
        quarters = torch.histc(values, bins=4, min=-largest, max=largest) / len(values)
        torch.testing.assert_close(quarters, torch.full((4,), 0.25), rtol=0, atol=0.03)


def test_scale_and_aspect_are_those_of_the_content() -> None:
    """The area factor is (1 + scale drawn)^2 whatever the aspect, and width over height 1 + aspect drawn."""
    matrices = draw(AugmentSpec(scale=0.2, aspect=0.3), 2000).in_to_out
    assert matrices is not None
    width, height = matrices[:, 0, 0], matrices[:, 1, 1]
    size, ratio = (width * height).sqrt(), width / height
    for values, spread in ((size, 0.2), (ratio, 0.3)):
        assert values.min().item() == pytest.approx(1 - spread, abs=0.01)
        assert values.max().item() == pytest.approx(1 + spread, abs=0.01)


def test_a_box_moves_with_its_content() -> None:
    """A bright square, moved, lies in its moved box and touches its sides to within two pixels."""
    side, count = 64, 24
    images = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    images[:, :, 20:44, 24:40] = 255
    box = (24 / 32 - 1, 20 / 32 - 1, 40 / 32 - 1, 44 / 32 - 1)
    varied, moved = draw(GEOMETRY, count).apply(images, boxes(count, box))
    for image, (x1, y1, x2, y2) in zip(varied[:, 0], ((moved + 1) * side / 2).tolist(), strict=True):
        rows, columns = ((image > 128).any(axis).nonzero().flatten() for axis in (1, 0))
        found = (columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1)
        assert found == pytest.approx((x1, y1, x2, y2), abs=2)


def test_boxes_end_at_the_image() -> None:
    """A box over the whole image stays within [-1, 1], its corners in order."""
    _, moved = draw(GEOMETRY, 100).apply(noise(100), boxes(100))
    assert moved.abs().max() <= 1
    assert (moved[:, :2] < moved[:, 2:]).all()


def test_the_border_is_continued() -> None:
    """An image of one level stays that level, wherever it is moved."""
    images = torch.full((50, 1, 16, 16), 200, dtype=torch.uint8)
    varied, _ = draw(GEOMETRY, 50).apply(images, boxes(50))
    torch.testing.assert_close(varied, images.float(), rtol=0, atol=1e-3)


def test_seed_and_epoch_decide() -> None:
    """The same seed and epoch draw the same numbers; another of either draws others for every image."""
    first = parts(draw(ALL, 5))
    for again, same in zip(parts(draw(ALL, 5)), first, strict=True):
        assert torch.equal(again, same)
    for other in (draw(ALL, 5, epoch=1), draw(ALL, 5, seed=2)):
        for part, unlike in zip(parts(other), first, strict=True):
            assert (part != unlike).reshape(5, -1).any(1).all()


def test_one_kind_does_not_shift_another() -> None:
    """Two trials of one seed turn their images alike, also where one of them varies the light as well."""
    alone, together = draw(GEOMETRY, 4), draw(ALL, 4)
    assert alone.in_to_out is not None
    assert together.in_to_out is not None
    assert torch.equal(alone.in_to_out, together.in_to_out)


def test_the_batch_size_does_not_matter() -> None:
    """Batches of 3, picked by slice or by index, give what all images at once give."""
    images, full, augmentations = noise(9), boxes(9), draw(ALL, 9)
    varied, moved = augmentations.apply(images, full)
    for start in range(0, 9, 3):
        part = slice(start, start + 3)
        for index in (part, torch.arange(start, start + 3)):
            some, their_boxes = augmentations.rows(index).apply(images[part], full[part])
            torch.testing.assert_close(some, varied[part], rtol=0, atol=1e-3)
            torch.testing.assert_close(their_boxes, moved[part])


def test_levels_stay_in_their_range() -> None:
    """Even the strongest variation of every kind gives levels in [0, 255], and uses both ends."""
    spec = dataclasses.replace(ALL, brightness=1.0, contrast=1.0, saturation=1.0, hue_deg=180.0, perspective=0.24)
    varied, _ = draw(spec, 50).apply(noise(50), boxes(50))
    assert varied.min() == 0
    assert varied.max() == 255


def mild() -> Tensor:
    """Colours far enough from black and white that small variations are not cut."""
    return (noise(6) // 4 + 90).to(torch.uint8)


def test_brightness_scales_the_mean() -> None:
    """All levels of an image are multiplied by one factor, which differs between images."""
    varied, _ = draw(AugmentSpec(brightness=0.3), 6).apply(mild(), boxes(6))
    factors = (varied / mild()).flatten(1)
    torch.testing.assert_close(factors, factors.mean(1, keepdim=True).expand_as(factors), rtol=1e-5, atol=0)
    assert factors.mean(1).std() > 0.05
    assert ((factors - 1).abs() <= 0.3 + 1e-5).all()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_contrast_keeps_the_mean(channels: int) -> None:
    """The mean lightness stays, distances from it are multiplied by one factor."""
    images = mild()[:, :channels]
    varied, _ = draw(AugmentSpec(contrast=0.4), 6).apply(images, boxes(6))
    old, new = lightness(images.float()), lightness(varied)
    torch.testing.assert_close(new.mean(dim=(2, 3)), old.mean(dim=(2, 3)), rtol=1e-5, atol=0)
    ratio = new.std(dim=(2, 3)) / old.std(dim=(2, 3))
    assert ((ratio - 1).abs() <= 0.4 + 1e-4).all()
    assert (ratio - 1).abs().max() > 0.1


def test_no_saturation_is_grey() -> None:
    """With a factor of 0, all three levels are the luma."""
    colour = draw(AugmentSpec(saturation=1.0), 4000)
    assert colour.colour is not None
    greyest = int((colour.colour - torch.tensor([0.299, 0.587, 0.114])).abs().sum(dim=(1, 2)).argmin())
    images = mild()[:1]
    varied, _ = colour.rows(slice(greyest, greyest + 1)).apply(images, boxes(1))
    torch.testing.assert_close(varied, lightness(images.float()).expand(1, 3, -1, -1), rtol=0, atol=0.2)


def test_hue_and_saturation_keep_the_luma_and_greys() -> None:
    """The luma of every pixel stays to a hundredth of a level, and grey pixels stay as they are."""
    images = mild()
    images[:, :, 0, 0] = 100
    varied, _ = draw(AugmentSpec(hue_deg=30.0, saturation=0.3), 6).apply(images, boxes(6))
    torch.testing.assert_close(lightness(varied), lightness(images.float()), rtol=0, atol=1e-2)
    torch.testing.assert_close(varied[:, :, 0, 0], images[:, :, 0, 0].float(), rtol=0, atol=1e-2)
    assert (varied - images).abs().mean() > 1


def test_a_positive_hue_turns_red_to_yellow() -> None:
    """60 degrees make a red yellow, as in HSV: red and green high and near each other, blue low."""
    (turn,) = augmentation._chroma_maps(torch.ones(1), torch.tensor([math.pi / 3]))
    red, green, blue = turn @ torch.tensor([160.0, 80, 80])
    assert red.item() == pytest.approx(green.item(), abs=20)
    assert blue < min(red, green) - 60


def test_colours_need_rgb() -> None:
    """Saturation or hue of images with one channel is infeasible, and the message says what to set; the rest is not."""
    for spec in (AugmentSpec(saturation=0.1), AugmentSpec(hue_deg=5.0)):
        with pytest.raises(InfeasibleError, match=r"1 channels: .*augment\.saturation=0"):
            build_augmentation(spec).require_channels(1)
        build_augmentation(spec).require_channels(3)
    build_augmentation(dataclasses.replace(GEOMETRY, brightness=0.2, contrast=0.2)).require_channels(1)


def test_numbers_that_do_not_fit_are_errors() -> None:
    """Other numbers of images, or channels without colours, are named."""
    with pytest.raises(ShapeError, match="in_to_out of the augmentations"):
        draw(GEOMETRY, 3).apply(noise(2), boxes(2))
    with pytest.raises(ShapeError, match="saturation or hue"):
        draw(COLOUR, 2).apply(noise(2, channels=1), boxes(2))


def test_numbers_that_are_drawn_on_a_device_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU would draw others than a CPU."""
    drawing = SimpleNamespace(draw=lambda **_: {"angle": torch.empty(4, device="meta")})
    monkeypatch.setattr(augmentation, "build_augmentation", lambda _: drawing)
    with pytest.raises(SpecError, match=r"draws angle as shape \(4,\) on meta"):
        augmentation.draw_augmentation(GEOMETRY, seed=0, epoch=0, count=4)


def test_augmentations_travel_to_a_device() -> None:
    """Everything that is there is copied, nothing else appears."""
    there = draw(GEOMETRY, 2).to(torch.device("meta"))
    assert [part.device.type for part in parts(there)] == ["meta", "meta"]
