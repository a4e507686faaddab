"""Images resident on the device, and the order in which an epoch visits them."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

import torch
from torch import Tensor, nn

from stnbench.core.errors import SpecError
from stnbench.core.identity import derive_seed
from stnbench.data import ImageSet, nothing_to_check
from stnbench.spec.trial import DropLast

# Preprocessed images, kept so that no epoch computes them again.


LIMIT_BYTES: Final = 512 << 20
"""Memory for one data set: 19,400 RGB images of 48x48 pixels, 43,690 of 32x32; others are computed each time."""


_AT_ONCE: Final = 1000
"""The number of images that a GPU prepares at once."""

_GPU_SHARE: Final = 1 / 16
"""The share of a GPU's memory for one data set: 5 GB of 80, for the 1.1 GB of GTSRB's training half."""


def prepared_bytes(images: Tensor) -> int:
    """Return the memory in bytes of all images of a set after preprocessing, as float32."""
    return images.numel() * torch.float32.itemsize


def fits_beside_training(images: Tensor) -> bool:
    """Return whether the prepared images of a set fit on its device beside training.

    On a CPU it is always true, since only as many images as fit are kept.
    """
    if images.device.type != "cuda":
        return True
    total: int = torch.cuda.get_device_properties(images.device).total_memory
    return prepared_bytes(images) <= total * _GPU_SHARE


class PreparedImages:
    """A set's images after preprocessing: each is computed on first use, and then kept.

    Preprocessing does not depend on the other images of the batch, so the numbers equal those of preprocessing every
    batch again, bit for bit. They are float32, four times the memory of the images themselves; only images that are
    used are kept, and memory is taken as it fills. On a GPU all of them are computed in the beginning: checking for
    missing ones would make every step wait, and a step is one graph, of which contrastive normalisation is a tenth of
    the kernels.

    Args:
        images: uint8 (n, channels, height, width).
        preprocess: the module that maps them to float32 of the same shape.
        limit_bytes: the limit of the kept images' memory on a CPU.
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
        """Return the number of images that are kept."""
        return self._used

    def rows(self, rows: Tensor) -> Tensor:
        """Return the prepared images (batch, channels, height, width) at some rows, channels last in memory."""
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
        """Return all images, prepared on their own device."""
        with torch.no_grad():
            return torch.cat([self._preprocess(part) for part in torch.split(self._images, _AT_ONCE)])

    def _keep(self, rows: Tensor, computed: Tensor) -> None:
        """Keep as many images as there is room for; a row that occurs twice is kept twice, and found once."""
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
        poses: float32 (n, 3, 3), as ``ImageSet.pose``; None if they are not known.
        digest: the digest of the ``ImageSet``.
        check: as ``ImageSet.check``, for images that are mapped from a file; there is nothing to check on a GPU.
        prepared: the preprocessed images; None if they are not kept.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor
    poses: Tensor | None
    digest: str
    check: Callable[[], None] = nothing_to_check
    prepared: PreparedImages | None = None

    @classmethod
    def from_image_set(cls, half: ImageSet, device: torch.device) -> "DeviceImages":
        """Move a half of a data set to the device.

        A GPU gets one uint8 copy, so that no step moves an image; pinned memory would only help this one transfer, and
        cost another copy. On the CPU the tensors share the set's memory, usually a memory map of the cache that all
        workers of a machine share; they must not be written to.

        Raises:
            DataCorruptError: if the file of the images has changed while they were copied.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            images, labels, boxes = (torch.from_numpy(array) for array in (half.images, half.labels, half.roi))
            poses = None if half.pose is None else torch.from_numpy(half.pose).to(device)
        copied = images.to(device)
        is_mapped = device.type == "cpu"
        if not is_mapped:
            half.check()
        return cls(
            images=copied,
            labels=labels.to(device),
            boxes=boxes.to(device),
            poses=poses,
            digest=half.digest,
            check=half.check if is_mapped else nothing_to_check,
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def all_rows(self) -> Tensor:
        """Return the index (n,) of every image, on the device."""
        return torch.arange(len(self), device=self.labels.device)


def epoch_order(indices: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Return the indices (n,) in the random order of one epoch, on the device of the input.

    The order depends on the trial's seed and the epoch alone: all configurations with one seed get the same order on
    any device, and a run that resumes from a checkpoint needs no state of a generator.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return indices[torch.randperm(len(indices), generator=generator).to(indices.device)]


def steps_per_epoch(images: int, batch_size: int, drop_last: DropLast = "incomplete") -> int:
    """Return the number of batches of an epoch without its last one, which is dropped if incomplete, or always.

    Raises:
        SpecError: if no batch is left.
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
