"""Images resident on the device, and the order in which an epoch visits them."""

import warnings
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from stnbench.core.errors import SpecError
from stnbench.core.seeds import derive_seed
from stnbench.data.base import ImageSet
from stnbench.data.prepared import PreparedImages
from stnbench.spec.trial import DropLast


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DeviceImages:
    """One half of a data set on a device: GTSRB's 39,209 training images at 48x48 are 271 MB.

    Attributes:
        images: uint8 (n, channels, height, width).
        labels: int64 (n,).
        boxes: float32 (n, 4), as ``ImageSet.roi``.
        poses: float32 (n, 3, 3), as ``ImageSet.pose``; None where they are not known.
        digest: as of the ``ImageSet``.
        prepared: the images as preprocessing leaves them, where they are kept.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor
    poses: Tensor | None
    digest: str
    prepared: PreparedImages | None = None

    @classmethod
    def from_image_set(cls, half: ImageSet, device: torch.device) -> "DeviceImages":
        """Bring a half of a data set to the device.

        A GPU gets a copy, uint8 and once, so that no step moves an image; pinned memory would serve that one transfer
        and cost another copy. On the CPU the tensors are the set's own memory, usually a map of the cache that all
        workers of a machine share; they must not be written to.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            images, labels, boxes = (torch.from_numpy(array) for array in (half.images, half.labels, half.roi))
            poses = None if half.pose is None else torch.from_numpy(half.pose).to(device)
        return cls(
            images=images.to(device),
            labels=labels.to(device),
            boxes=boxes.to(device),
            poses=poses,
            digest=half.digest,
        )

    def __len__(self) -> int:
        """How many images."""
        return len(self.labels)

    def all_rows(self) -> Tensor:
        """The index (n,) of every image, on the device."""
        return torch.arange(len(self), device=self.labels.device)


def epoch_order(indices: Tensor, *, seed: int, epoch: int) -> Tensor:
    """The indices (n,) in the random order of one epoch, on their own device.

    It depends on the trial's seed and the epoch alone: all cells of one seed see the same order on any device, and a
    run that goes on from a checkpoint needs no state of a generator.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return indices[torch.randperm(len(indices), generator=generator).to(indices.device)]


def steps_per_epoch(images: int, batch_size: int, drop_last: DropLast = "incomplete") -> int:
    """How many batches an epoch has without its last one, which is dropped if incomplete, or always.

    Raises: SpecError where none is left.
    """
    match drop_last:
        case "incomplete":
            steps = images // batch_size
        case "always":
            steps = max(images - 1, 0) // batch_size
        case _:
            assert_never(drop_last)
    if steps == 0:
        problem = f"batch_size is {batch_size}, and there are {images} training images"
        raise SpecError(problem, remedy="choose a smaller batch")
    return steps
