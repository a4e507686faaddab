"""Images resident on the device, and the order in which an epoch visits them."""

import warnings
from dataclasses import dataclass
from typing import Final, assert_never

import torch
from torch import Tensor, nn

from stnbench.core.errors import SpecError
from stnbench.core.identity import derive_seed
from stnbench.data.base import ImageSet
from stnbench.spec.trial import DropLast

# Images as preprocessing leaves them, kept so that no epoch computes them again.


LIMIT_BYTES: Final = 512 << 20
"""Memory for one data set: 19,400 RGB images of 48x48 pixels, 43,690 of 32x32; the others are computed each time."""


_AT_ONCE: Final = 1000
"""Images that a GPU prepares at once."""

_GPU_SHARE: Final = 1 / 16
"""Of a GPU's memory, for one data set: 5 GB of 80, for the 1.1 GB of GTSRB's training half."""


def prepared_bytes(images: Tensor) -> int:
    """The memory of all images of a set after preprocessing."""
    return images.numel() * torch.float32.itemsize


def fits_beside_training(images: Tensor) -> bool:
    """Whether all prepared images of a set are kept where the set lies; on a CPU as many as fit always are."""
    if images.device.type != "cuda":
        return True
    total: int = torch.cuda.get_device_properties(images.device).total_memory
    return prepared_bytes(images) <= total * _GPU_SHARE


class PreparedImages:
    """A set's images after preprocessing: each is computed when it is first asked for, and then kept.

    Preprocessing is independent of what else is in the batch, so the numbers are those of computing every batch anew,
    bit for bit. They are float32, four times the memory of the images themselves; only what is asked for is kept, and
    memory is taken as it fills. On a GPU all of them are computed in the beginning: to look which are missing would
    make every step wait, and a step is one graph, of which contrastive normalisation is a tenth of the kernels.

    Args:
        images: uint8 (n, channels, height, width).
        preprocess: what is done to them; to float32 of the same shape.
        limit_bytes: of what is kept.
    """

    def __init__(self, images: Tensor, preprocess: nn.Module, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._images = images
        self._preprocess = preprocess
        self._is_complete = False
        if images.device.type != "cpu":
            self._kept = self._compute_all()
            self._used, self._is_complete = len(images), True
            return
        image_bytes = images[0].numel() * torch.float32.itemsize
        room = min(len(images), limit_bytes // image_bytes)
        shape = (room, *images.shape[1:])
        self._kept = torch.empty(shape, dtype=torch.float32, memory_format=torch.channels_last)
        self._slot = torch.full((len(images),), -1)
        self._used = 0

    @property
    def count(self) -> int:
        """How many images are kept."""
        return self._used

    def rows(self, rows: Tensor) -> Tensor:
        """The prepared images (batch, channels, height, width) at some rows, channels last in memory."""
        if self._is_complete:
            return self._kept[rows]
        slots = self._slot[rows]
        missing = slots < 0
        if not bool(missing.any()):
            return self._kept[slots]
        with torch.no_grad():
            computed = self._preprocess(self._images[rows[missing]])
        prepared = torch.empty(
            (len(rows), *self._kept.shape[1:]), dtype=torch.float32, memory_format=torch.channels_last
        )
        prepared[missing] = computed
        prepared[~missing] = self._kept[slots[~missing]]
        self._keep(rows[missing], computed)
        return prepared

    def _compute_all(self) -> Tensor:
        """Every image, prepared where it lies."""
        with torch.no_grad():
            return torch.cat([self._preprocess(part) for part in torch.split(self._images, _AT_ONCE)])

    def _keep(self, rows: Tensor, computed: Tensor) -> None:
        """Take what there is room for; a row that is there twice is kept twice, and found once."""
        count = min(len(rows), len(self._kept) - self._used)
        self._kept[self._used : self._used + count] = computed[:count]
        self._slot[rows[:count]] = torch.arange(self._used, self._used + count)
        self._used += count


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
