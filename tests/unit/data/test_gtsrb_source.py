"""GTSRB is found in every usual place, read whole, and refused where it contradicts itself."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stnbench.core.errors import DataCorruptError, DataError, DataMissingError
from stnbench.core.identity import digest as identity_digest
from stnbench.data import gtsrb as source
from stnbench.data.cache import read_manifest, write_manifest
from stnbench.data.gtsrb import Gtsrb, Half, content_digest, find_half, parse_ppm
from stnbench.data.gtsrb.archive import TRUTH
from stnbench.data.gtsrb.official import resize
from stnbench.spec.data import GtsrbSpec


def opened(root: Path, cache: Path | None = None, size: int = 16) -> Gtsrb:
    """The set at ``root``, cached beside it."""
    return Gtsrb(GtsrbSpec(image_size=size), source=root, cache=cache or root.parent / "cache")


def find(root: Path, half: str = "train") -> Half:
    """The half, which is there."""
    found = find_half(root, half)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder for the official files."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def test_training_rows_are_what_files_and_tables_say(root: Path, fake_gtsrb: Any) -> None:
    """Pixels, classes, tracks, frames, sizes and boxes, in the order of class, track and frame."""
    images = fake_gtsrb.write_train(root, tracks={5: 2, 33: 1}, frames=2)
    train = opened(root).train()
    assert train.labels.tolist() == [5, 5, 5, 5, 33, 33]
    assert train.tracks.tolist() == [500_000, 500_000, 500_001, 500_001, 3_300_000, 3_300_000]
    assert train.frames.tolist() == [0, 1] * 3
    image = parse_ppm((images / "00005" / "00001_00000.ppm").read_bytes(), "")
    assert train.images[2].tolist() == resize(image, 16).tolist()
    height, width, _ = image.shape
    assert train.original_size[2].tolist() == [width, height]
    box = [2 * 5 / width - 1, 2 * 6 / height - 1, 2 * (width - 5) / width - 1, 2 * (height - 6) / height - 1]
    assert train.roi[2].tolist() == pytest.approx(box, abs=1e-6)  # every image is shrunk, so edges go to edges
    assert train.pose is None


def test_test_rows_have_no_tracks(root: Path, fake_gtsrb: Any) -> None:
    """The official test half is in random order."""
    fake_gtsrb.write_test(root, count=4)
    test = opened(root).test()
    assert test.labels.tolist() == [0, 1, 2, 3]
    assert set(test.tracks.tolist()) == set(test.frames.tolist()) == {-1}


@pytest.mark.parametrize("place", ["", "GTSRB", "GTSRB/Final_Training", "GTSRB/Final_Training/Images"])
def test_training_half_is_found_from_every_folder(root: Path, fake_gtsrb: Any, place: str) -> None:
    """The root may be any folder on the way."""
    fake_gtsrb.write_train(root)
    assert len(find(root / place)) == 21


@pytest.mark.parametrize(
    ("place", "truth"),
    [
        ("", ""),
        ("", "GTSRB"),
        ("", "GTSRB/Final_Test"),
        ("", "GTSRB/Final_Test/Images"),
        ("", ".."),
        ("GTSRB", ""),
        ("GTSRB", "GTSRB"),
        ("GTSRB", "GTSRB/Final_Test/Images"),
        ("GTSRB/Final_Training", "GTSRB"),
        ("GTSRB/Final_Test", "GTSRB/Final_Test/Images"),
    ],
)
def test_test_half_is_found_with_its_classes(root: Path, fake_gtsrb: Any, place: str, truth: str) -> None:
    """The table with classes may lie in every usual place, also beside the root."""
    fake_gtsrb.write_train(root)
    fake_gtsrb.write_test(root, truth=root / truth)
    assert len(find(root / place, "test")) == 5


def test_archives_and_tree_are_one_set(root: Path, tmp_path: Path, fake_gtsrb: Any) -> None:
    """The same files give the same cache wherever they lie, and the tree goes first."""
    fake_gtsrb.write_train(tmp_path / "tree")
    fake_gtsrb.write_test(tmp_path / "tree")
    fake_gtsrb.write_archives(tmp_path / "tree", root)
    for half in ("train", "test"):
        assert find(root, half).fingerprint() == find(tmp_path / "tree", half).fingerprint()
        assert content_digest(find(root, half)) == content_digest(find(tmp_path / "tree", half))
    zipped, tree = opened(root, tmp_path / "a"), opened(tmp_path / "tree", tmp_path / "b")
    assert zipped.train().digest == tree.train().digest
    assert zipped.test().digest == tree.test().digest
    fake_gtsrb.write_train(root, tracks={1: 1})
    assert len(find(root)) == 3


def test_archive_of_classes_serves_extracted_images(root: Path, tmp_path: Path, fake_gtsrb: Any) -> None:
    """Images may be extracted and the table not."""
    fake_gtsrb.write_train(root)
    fake_gtsrb.write_test(root)
    fake_gtsrb.write_archives(root, root)
    (root / "GTSRB" / TRUTH).unlink()
    (root / "GTSRB_Final_Test_Images.zip").unlink()
    assert len(find(root, "test")) == 5


def test_missing_halves_say_what_to_do(root: Path) -> None:
    """The folder, the half and the command stand in the message."""
    data = opened(root)
    with pytest.raises(DataMissingError, match=r"training images .*--root DIR.*--download"):
        data.train()
    with pytest.raises(DataMissingError, match=r"test images .*--root DIR.*--download"):
        data.test()


def test_a_missing_test_half_is_nobody_s_business_while_training(root: Path, fake_gtsrb: Any) -> None:
    """It is an error only when it is asked for."""
    fake_gtsrb.write_train(root)
    data = opened(root)
    assert len(data.train()) == 21
    with pytest.raises(DataMissingError, match="test images"):
        data.test()


def test_a_table_without_classes_is_told_apart(root: Path, fake_gtsrb: Any) -> None:
    """The table inside the test archive has no classes, and the message says so."""
    fake_gtsrb.write_test(root)
    (root / "GTSRB" / TRUTH).unlink()
    with pytest.raises(
        DataMissingError, match=r"GT-final_test\.test\.csv is there, but has no classes.*GTSRB_Final_Test_GT"
    ):
        opened(root).test()


def test_the_other_training_set_is_not_taken_for_the_official_one(root: Path, fake_gtsrb: Any) -> None:
    """The set of torchvision is named, and used only if its folder is given."""
    images = fake_gtsrb.write_train(root)
    other = root / "gtsrb" / "GTSRB" / "Training"
    other.parent.mkdir(parents=True)
    images.rename(other)
    with pytest.raises(DataMissingError, match="torchvision's smaller set"):
        opened(root).train()
    assert len(find(other)) == 21


def test_faults_in_the_training_half_are_named(root: Path, fake_gtsrb: Any) -> None:
    """Every contradiction names the file at fault, and leaves no cache."""
    images = fake_gtsrb.write_train(root)
    image, table = images / "00007" / "00001_00002.ppm", images / "00007" / "GT-00007.csv"
    whole, rows = image.read_bytes(), table.read_bytes()
    last = rows.splitlines(keepends=True)[-1]
    width, height = (int(number) for number in last.split(b";")[1:3])
    faults = [
        (image, whole[:-1], r"00001_00002\.ppm has \d+ bytes of pixels"),
        (image, b"GIF89a", r"00001_00002\.ppm is not a PPM"),
        (image, b"P6 1 1 255\n123", rf"has 1x1 pixels, and its table says {width}x{height}"),
        (table, rows.removesuffix(last), r"00001_00002\.ppm has no row"),
        (
            table,
            rows + last.replace(b"00002", b"00003"),
            r"00001_00003\.ppm has a row .* not there",
        ),
        (table, rows.replace(last, last.replace(b";7\r", b";8\r")), "has class 8 in the folder 00007/"),
        (table, rows.replace(last, last.replace(b";7\r", b";43\r")), "has class 43"),
        (table, rows.replace(last, last.replace(b";5;6;", b";5;999;")), "has the box"),
    ]
    for path, data, problem in faults:
        before = path.read_bytes()
        path.write_bytes(data)
        with pytest.raises(DataCorruptError, match=problem) as caught:
            opened(root).train()
        path.write_bytes(before)
        assert caught.value.remedy
        assert not list((root.parent / "cache").glob("gtsrb*"))


def test_a_missing_table_is_named(root: Path, fake_gtsrb: Any) -> None:
    """Images without their table are not silently left out."""
    images = fake_gtsrb.write_train(root)
    (images / "00007" / "GT-00007.csv").unlink()
    with pytest.raises(DataCorruptError, match=r"GT-00007\.csv is missing beside its images"):
        opened(root).train()


def test_a_training_image_must_tell_its_track(root: Path, fake_gtsrb: Any) -> None:
    """Without tracks a split by tracks would be a lie."""
    images = fake_gtsrb.write_train(root) / "00007"
    (images / "00001_00002.ppm").rename(images / "last.ppm")
    table = images / "GT-00007.csv"
    table.write_bytes(table.read_bytes().replace(b"00001_00002.ppm", b"last.ppm"))
    with pytest.raises(DataCorruptError, match=r"last\.ppm does not tell its track"):
        opened(root).train()


def test_the_cache_outlives_its_source(root: Path, fake_gtsrb: Any) -> None:
    """A tree that was deleted after preparing is not missed, and neither is one prepared from elsewhere."""
    fake_gtsrb.write_train(root)
    digest = opened(root).train().digest
    shutil.rmtree(root / "GTSRB")
    assert opened(root).train().digest == digest
    assert opened(root / "elsewhere", root.parent / "cache").train().digest == digest
    with pytest.raises(DataMissingError):
        opened(root, size=17).train()


def test_of_two_caches_none_is_guessed(root: Path, fake_gtsrb: Any) -> None:
    """With the source gone and two caches of one size, the message names both; with the source, its own is opened."""
    for tracks in ({1: 1}, {1: 2}):
        shutil.rmtree(root / "GTSRB", ignore_errors=True)
        fake_gtsrb.write_train(root, tracks=tracks)
        assert len(opened(root).train()) == 3 * tracks[1]
    assert len(opened(root).train()) == 6
    shutil.rmtree(root / "GTSRB")
    with pytest.raises(DataError, match=r"there are 2 caches.*gtsrb-train-16-\w+, .*gtsrb-train-16-\w+"):
        opened(root).train()


def test_caches_of_an_older_reader_are_not_opened(root: Path, fake_gtsrb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the source is gone, a cache of another meaning is as good as none."""
    fake_gtsrb.write_train(root)
    opened(root).train()
    shutil.rmtree(root / "GTSRB")
    monkeypatch.setattr("stnbench.data.gtsrb.VERSIONS", {"set": "gtsrb", "reader": 2, "resize": 1})
    with pytest.raises(DataMissingError):
        opened(root).train()


def test_a_broken_cache_is_named(root: Path, fake_gtsrb: Any) -> None:
    """Also where the source is gone."""
    fake_gtsrb.write_train(root)
    opened(root).train()
    cache = next((root.parent / "cache").glob("gtsrb-train-*"))
    (cache / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataCorruptError, match="delete its folder"):
        opened(root).train()
    shutil.rmtree(root / "GTSRB")
    with pytest.raises(DataCorruptError, match="delete its folder"):
        opened(root).train()


def test_a_half_is_opened_once(root: Path, fake_gtsrb: Any) -> None:
    """Asking again costs nothing."""
    fake_gtsrb.write_train(root)
    data = opened(root)
    assert data.train() is data.train()


def test_line_ends_do_not_change_the_content(root: Path, fake_gtsrb: Any) -> None:
    """The content digest looks at values, so an unpacker's line ends do not matter, and a changed pixel does."""
    images = fake_gtsrb.write_train(root)
    before = content_digest(find(root))
    table, image = images / "00007" / "GT-00007.csv", images / "00000" / "00000_00000.ppm"
    table.write_bytes(table.read_bytes().replace(b"\r\n", b"\n"))
    assert content_digest(find(root)) == before
    data = bytearray(image.read_bytes())
    data[-1] ^= 1
    image.write_bytes(data)
    assert content_digest(find(root)) != before


def flipped(data: bytes) -> bytes:
    """The same bytes with one pixel changed."""
    return data[:-1] + bytes([data[-1] ^ 0x40])


def edit_pixel(images: Path) -> None:
    """Another pixel in a file of the same size."""
    path = images / "00007" / "00001_00002.ppm"
    path.write_bytes(flipped(path.read_bytes()))


def edit_pixel_and_keep_its_time(images: Path) -> None:
    """The same, as a tool does it that copies times along."""
    path = images / "00007" / "00001_00002.ppm"
    stamp = path.stat()
    path.write_bytes(flipped(path.read_bytes()))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def replace_by_a_rename(images: Path) -> None:
    """A new file in the place of the old one, with its time."""
    path = images / "00000" / "00000_00001.ppm"
    stamp, new = path.stat(), path.with_suffix(".new")
    new.write_bytes(flipped(path.read_bytes()))
    os.utime(new, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    new.replace(path)


EDITS = (edit_pixel, edit_pixel_and_keep_its_time, replace_by_a_rename)


@pytest.mark.parametrize("is_large", [True, False], ids=["remembered", "read each time"])
@pytest.mark.parametrize("place", ["tree", "archive"])
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_changed_images_under_unchanged_tables_are_other_images(
    edit: Callable[[Path], None],
    place: str,
    is_large: bool,
    tmp_path: Path,
    fake_gtsrb: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A prepared cache does not hide them, in a tree or an archive; the former images have their cache again."""
    if is_large:
        monkeypatch.setattr("stnbench.core.files.REMEMBERED_MIN_BYTES", 0)
        monkeypatch.setattr("stnbench.core.files.SETTLED_NS", 0)
    tree, cache = tmp_path / "tree", tmp_path / "cache"
    images = fake_gtsrb.write_train(tree, tracks={0: 1, 7: 2})
    fake_gtsrb.write_test(tree, count=1)
    whole = {path: path.read_bytes() for path in images.rglob("*.ppm")}

    def train() -> Any:
        root = tree
        if place == "archive":
            root = tmp_path / "zips"
            root.mkdir(exist_ok=True)
            fake_gtsrb.write_archives(tree, root)
        return opened(root, cache).train()

    before = train()
    assert train().digest == before.digest
    edit(images)
    after = train()
    assert after.digest != before.digest
    assert len(after) == len(before)
    for path, data in whole.items():
        if path.read_bytes() != data:
            path.write_bytes(data)
    assert train().digest == before.digest
    assert len(list(cache.glob("gtsrb-train-*"))) == 2


def test_images_that_have_not_changed_are_not_read_again(
    root: Path, fake_gtsrb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large data set, only the images are read whose size, times or inode differ."""
    monkeypatch.setattr("stnbench.core.files.REMEMBERED_MIN_BYTES", 0)
    monkeypatch.setattr("stnbench.core.files.SETTLED_NS", 0)
    images = fake_gtsrb.write_train(root)
    opened(root).train()
    read: list[str] = []
    real = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    opened(root).train()
    assert not [name for name in read if name.endswith(".ppm")]
    os.utime(images / "00007" / "00001_00002.ppm")
    opened(root).train()
    assert [name for name in read if name.endswith(".ppm")] == ["00001_00002.ppm"]


def test_images_written_while_they_are_read_make_no_cache(
    root: Path, fake_gtsrb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digests of a half's images are those of the images that were resized, or there is an error."""
    images = fake_gtsrb.write_train(root)
    real = source.fill_arrays

    def fill(half: Half, arrays: Any) -> None:
        real(half, arrays)
        edit_pixel(images)

    monkeypatch.setattr(source, "fill_arrays", fill)
    with pytest.raises(DataCorruptError, match="changed while they were read"):
        opened(root).train()
    assert not list((root.parent / "cache").glob("gtsrb*"))


def test_a_cache_that_does_not_know_its_images_is_made_again(root: Path, fake_gtsrb: Any) -> None:
    """Caches of before recorded the tables only; with the source there they are replaced, without it they serve."""
    fake_gtsrb.write_train(root)
    now = opened(root).train()
    cache = next((root.parent / "cache").glob("gtsrb-train-*"))
    manifest = read_manifest(cache)
    assert manifest is not None
    identity = {key: value for key, value in manifest.identity.items() if key != "images_sha256"}
    write_manifest(cache, replace(manifest, identity=identity))
    old = cache.rename(cache.with_name(f"gtsrb-train-16-{identity_digest(identity)}"))
    assert opened(root / "elsewhere", root.parent / "cache").train().digest == now.digest
    assert opened(root).train().digest == now.digest
    assert not old.exists()
    assert cache.exists()
