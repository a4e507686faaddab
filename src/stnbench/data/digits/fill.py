"""One half of distorted digits: which digits make a track, and their images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stnbench.core.activity import advancing
from stnbench.core.seeds import derive_seed
from stnbench.data.cache import CacheArrays
from stnbench.data.digits.clutter import strew
from stnbench.data.digits.glyphs import Glyphs, Half
from stnbench.data.distort.draw import draw_warp
from stnbench.data.distort.render import Picture, make_picture, render
from stnbench.data.distort.trace import Trace, trace_whole
from stnbench.data.distort.warp import Projective
from stnbench.spec.data import DigitsSpec, DigitTask, DistortionSpec, MnistSpec


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DigitPlan:
    """What is drawn for one half.

    Attributes:
        spec: task, copies, size and distortion.
        half: which half, for its own random numbers.
        glyphs: its digits.
        members: int64 (tracks, digits an image), rows of ``glyphs``: each track's digit, or the two that are added.
    """

    spec: DigitsSpec | MnistSpec
    half: Half
    glyphs: Glyphs
    members: NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many images."""
        return len(self.members) * self.spec.copies


def plan_half(spec: DigitsSpec | MnistSpec, half: Half, glyphs: Glyphs) -> DigitPlan:
    """The tracks of a half: each digit, or pairs of digits, no digit in two of them (an odd one is left out).

    A whole track held out therefore never shares a digit with what is trained on.
    """
    return DigitPlan(spec=spec, half=half, glyphs=glyphs, members=_deal(spec.task, half, len(glyphs)))


def fill(arrays: CacheArrays, plan: DigitPlan) -> None:
    """Draw every copy of every track, one track after the other."""
    glyphs, copies = plan.glyphs, plan.spec.copies
    arrays.labels[:] = glyphs.labels[plan.members].sum(axis=1).repeat(copies)
    arrays.tracks[:] = glyphs.numbers[plan.members[:, 0]].repeat(copies)
    arrays.frames[:] = np.tile(np.arange(copies), len(plan.members))
    arrays.original_size[:] = glyphs.original_size
    for index, members in enumerate(advancing(plan.members, "drawing digits", len(plan.members))):
        pictures = [make_picture(glyphs.images[member][None], None) for member in members]
        for copy in range(copies):
            _fill_row(arrays, index * copies + copy, plan, members, pictures, copy)


def _fill_row(
    arrays: CacheArrays,
    row: int,
    plan: DigitPlan,
    members: NDArray[np.int64],
    pictures: list[Picture],
    copy: int,
) -> None:
    traces = []
    for channel, (member, picture) in enumerate(zip(members, pictures, strict=True)):
        key = (plan.half, int(arrays.tracks[row]), copy, channel)
        image, traced = _draw_digit(plan, int(member), picture, key)
        arrays.images[row, channel] = image
        traces.append(traced)
    boxes = np.array([traced.roi for traced in traces])
    arrays.roi[row] = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    if arrays.pose is not None:
        arrays.pose[row] = traces[0].pose
    if arrays.control_points is not None and traces[0].control_points is not None:
        arrays.control_points[row] = traces[0].control_points


def _draw_digit(
    plan: DigitPlan, member: int, picture: Picture, key: tuple[str | int, ...]
) -> tuple[NDArray[np.uint8], Trace]:
    """One digit, uint8 (size, size), and where it went."""
    size, distortion = plan.spec.image_size, plan.spec.distortion
    if distortion is None:
        warp = Projective(np.eye(3))
        return render(picture, warp, size)[0], trace_whole(warp)
    warped = draw_warp(distortion, _generator(distortion, "distort", *key))
    image = render(picture, warped, size)[0]
    if distortion.clutter:
        image = strew(image, distortion, plan.glyphs.images, member, _generator(distortion, "clutter", *key))
    return image, trace_whole(warped)


def _generator(distortion: DistortionSpec, *purpose: str | int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(distortion.seed, *purpose))


def _deal(task: DigitTask, half: Half, count: int) -> NDArray[np.int64]:
    if task == "classify":
        return np.arange(count)[:, None]
    order = np.random.default_rng(derive_seed(0, "digits", "pairs", half)).permutation(count)
    return order[: count // 2 * 2].reshape(-1, 2)
