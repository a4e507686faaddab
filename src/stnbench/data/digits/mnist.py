"""MNIST's digits from its four standard files, which torchvision reads and fetches."""

from pathlib import Path
from typing import Any

import numpy as np

from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.data.digits.glyphs import GLYPH_SIDE, Glyphs, Half

PREPARE = "python -m stnbench.data prepare mnist"

TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000
"""The official counts."""


def mnist_folder(root: Path) -> Path:
    """Where MNIST lies below a folder of data; the files themselves are in ``MNIST/raw/`` there."""
    return root / "mnist"


def load_mnist_glyphs(half: Half, root: Path) -> Glyphs:
    """One half of MNIST from the files below ``root``, in their order; numbers are rows, and each half has its own.

    Raises: DataMissingError if they are not there; DataCorruptError if they are not what they should be.
    """
    folder = mnist_folder(root)
    try:
        found = _torchvision_mnist(folder, half)
        images, labels = found.data.numpy(), found.targets.numpy().astype(np.int64)
    except RuntimeError as error:
        if "Dataset not found" not in str(error):
            raise _corrupt(folder, error) from error
        problem = f"the four files of MNIST are not in {folder / 'MNIST' / 'raw'}"
        remedy = f"put them there (train-images-idx3-ubyte and so on, unpacked), or run '{PREPARE} --download'"
        raise DataMissingError(problem, remedy=remedy) from error
    except (ValueError, TypeError, KeyError, IndexError, AssertionError, OSError) as error:
        raise _corrupt(folder, error) from error
    if images.shape != (len(labels), GLYPH_SIDE, GLYPH_SIDE) or not len(labels) or not 0 <= labels.min() <= 9:
        raise _corrupt(folder, f"{half} has images {images.shape} and {len(labels)} labels")
    if labels.max() > 9:
        raise _corrupt(folder, f"{half} has the label {labels.max()}")
    return Glyphs(images=images, labels=labels, numbers=np.arange(len(labels)), original_size=(GLYPH_SIDE, GLYPH_SIDE))


def download_mnist(root: Path) -> None:
    """Fetch the four files, 11 MB, to where ``load_mnist_glyphs`` looks for them below ``root``; checksums are checked.

    Raises: DataMissingError if they cannot be fetched.
    """
    folder = mnist_folder(root)
    try:
        _torchvision_mnist(folder, "train", download=True)
    except (RuntimeError, OSError) as error:
        remedy = f"try again, or put the files in {folder / 'MNIST' / 'raw'} by hand"
        raise DataMissingError(f"MNIST cannot be fetched ({error})", remedy=remedy) from error


def _torchvision_mnist(folder: Path, half: Half, *, download: bool = False) -> Any:  # noqa: ANN401 - no stubs
    from torchvision.datasets import MNIST  # brings torch, which light commands do without

    return MNIST(str(folder), train=half == "train", download=download)


def _corrupt(folder: Path, why: object) -> DataCorruptError:
    remedy = f"delete the folder and run '{PREPARE} --download'"
    return DataCorruptError(f"the files of MNIST in {folder} cannot be read ({why})", remedy=remedy)
