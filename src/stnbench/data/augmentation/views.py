"""The views of an image (``spec.views``), each by one resampling."""

import itertools
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from stnbench.data.augmentation import homographies
from stnbench.data.augmentation.augment import Augmentations
from stnbench.data.augmentation.homographies import radians
from stnbench.nn.transforms.homography import invert_homography
from stnbench.spec.views import ViewsSpec


def view_moves(spec: ViewsSpec) -> Float[Tensor, "views 3 3"]:
    """How the content of the image moves in each view: zoom, then rotation, then shift; float64 on the CPU.

    Convention: homographies of normalised (x, y), -1 and 1 at the outer edges of the image, from input to output.
    """
    steps = (-spec.shift, 0.0, spec.shift) if spec.shift > 0 else (0.0,)
    grid = itertools.product(spec.zooms, spec.rotations_deg, steps, steps)
    zoom, angle_deg, y, x = torch.tensor(list(grid), dtype=torch.float64).unbind(1)
    turned = homographies.rotation(radians(angle_deg)) @ homographies.scaling(zoom, zoom)
    return homographies.translation(2 * x, 2 * y) @ turned


def each_view(
    spec: ViewsSpec,
    images: UInt8[Tensor, "batch channels side side"] | Float32[Tensor, "batch channels side side"],
    boxes: Float[Tensor, "batch 4"],
) -> Iterator[tuple[Float32[Tensor, "batch channels side side"], Float[Tensor, "batch 4"]]]:
    """The images, float32 in [0, 255], and the boxes, moved as in each view; the border is continued outwards.

    A view that moves nothing is the images as they are, to the last bit.
    """
    for move in view_moves(spec):
        if torch.equal(move, torch.eye(3, dtype=move.dtype)):
            yield images.float(), boxes
            continue
        in_to_out = move.expand(len(images), 3, 3)
        moved = Augmentations(
            in_to_out=in_to_out.float(),
            out_to_in=invert_homography(in_to_out).float(),
            colour=None,
            mean_share=None,
        )
        yield moved.to(images.device).apply(images, boxes)
