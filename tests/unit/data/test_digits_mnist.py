"""MNIST is read from its standard files, and its absence has a remedy."""

from pathlib import Path

import numpy as np
import pytest
from made_up_mnist import write_half, write_mnist

from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.data import digits
from stnbench.data.build import open_dataset
from stnbench.data.digits import download_mnist, load_mnist_glyphs
from stnbench.spec.data import MnistSpec


def test_the_files_are_read_as_they_are(tmp_path: Path) -> None:
    """Pixels and labels in the files' order; undistorted at 28 pixels no pixel changes."""
    write_mnist(tmp_path, train=30, test=10)
    glyphs = load_mnist_glyphs("train", tmp_path)
    assert glyphs.labels.tolist() == [*range(10)] * 3
    train = open_dataset(MnistSpec(image_size=28), root=tmp_path, workers=1).train()
    np.testing.assert_array_equal(train.images[:, 0], glyphs.images)
    assert train.tracks.tolist() == list(range(30))
    assert train.original_size.tolist() == [[28, 28]] * 30


def test_missing_files_say_where_they_should_be(tmp_path: Path) -> None:
    """The folder and the command are named, and no cache is left."""
    with pytest.raises(DataMissingError, match="prepare mnist --download") as caught:
        open_dataset(MnistSpec(), root=tmp_path, workers=1).train()
    assert str(tmp_path / "mnist" / "MNIST" / "raw") in caught.value.problem
    assert [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []


def test_a_cache_serves_without_the_files(tmp_path: Path) -> None:
    """Once made, a set is opened though its files are gone."""
    write_mnist(tmp_path / "source")
    spec = MnistSpec(image_size=8)
    made = open_dataset(spec, root=tmp_path, workers=1, source=tmp_path / "source").train()
    assert open_dataset(spec, root=tmp_path, workers=1).train().digest == made.digest


def test_other_files_are_another_set(tmp_path: Path) -> None:
    """Files that are replaced by others of the same size are noticed beside a cache, and so are the former ones."""
    write_mnist(tmp_path)
    spec, raw = MnistSpec(image_size=8), tmp_path / "mnist" / "MNIST" / "raw"
    path = raw / "train-images-idx3-ubyte"
    whole, before = path.read_bytes(), open_dataset(spec, root=tmp_path, workers=1).train().digest
    path.write_bytes(whole[:-200] + bytes(byte ^ 0xFF for byte in whole[-200:]))
    assert open_dataset(spec, root=tmp_path, workers=1).train().digest != before
    path.write_bytes(whole)
    assert open_dataset(spec, root=tmp_path, workers=1).train().digest == before


@pytest.mark.parametrize("keep", [2, 16, 500])
def test_a_cut_file_is_refused(tmp_path: Path, keep: int) -> None:
    """It names the folder and the remedy."""
    write_mnist(tmp_path)
    path = tmp_path / "mnist" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataCorruptError, match="delete the folder"):
        load_mnist_glyphs("train", tmp_path)


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """More labels than images, images of another size, and labels that are no digits."""
    write_mnist(tmp_path)
    images = np.zeros((10, 28, 28), np.uint8)
    wrong = [
        (images, np.zeros(11, np.uint8)),
        (images[:, :20, :20], np.zeros(10, np.uint8)),
        (images, np.full(10, 12, np.uint8)),
    ]
    for pixels, labels in wrong:
        write_half(tmp_path, "train", pixels, labels)
        with pytest.raises(DataCorruptError, match="train has"):
            load_mnist_glyphs("train", tmp_path)


def test_a_download_that_fails_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is one line, and not a traceback."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(digits, "_torchvision_mnist", refuse)
    with pytest.raises(DataMissingError, match="by hand"):
        download_mnist(tmp_path)
