"""A small made-up MNIST in the standard files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NAMES = {"train": "train", "test": "t10k"}


def write_mnist(root: Path, *, train: int = 40, test: int = 20) -> None:
    """The four files below ``root / mnist / MNIST / raw``: digit ``i % 10`` with random pixels in the middle 20x20."""
    rng = np.random.default_rng(0)
    for half, count in (("train", train), ("test", test)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 4:24, 4:24] = rng.integers(0, 256, (count, 20, 20), np.uint8)
        write_half(root, half, images, (np.arange(count) % 10).astype(np.uint8))


def write_half(root: Path, half: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """The two files of a half."""
    folder = root / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for array, name in ((images, f"{NAMES[half]}-images-idx3-ubyte"), (labels, f"{NAMES[half]}-labels-idx1-ubyte")):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (folder / name).write_bytes(header + array.tobytes())
