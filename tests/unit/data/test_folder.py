"""Images of one's own in class sub-folders."""

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder
from stnbench.config.resolve import parse_overrides, resolve_trial
from stnbench.core import files
from stnbench.core.errors import DataCorruptError, DataError, DataMissingError, SpecError
from stnbench.core.image_folder import recall, remember, survey, surveyed
from stnbench.data.build import dataset_info, open_dataset
from stnbench.spec.data import FolderSpec

pytestmark = pytest.mark.slow

CLASSES = ("blue", "green", "red")


def image(colour: int, size: tuple[int, int] = (13, 9), kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A picture whose channel of its class is bright."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[..., 2 - colour] = 200
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images a class, of several formats and sizes, and files that are no images."""
    place = tmp_path / "shapes"
    for label, name in enumerate(CLASSES):
        (place / name).mkdir(parents=True)
        for number in range(10):
            kind, ending = (("PNG", "png"), ("BMP", "BMP"))[number % 2]
            (place / name / f"{number}.{ending}").write_bytes(image(label, (9 + number, 20 - number), kind))
    (place / "notes.txt").write_text("nothing to see")
    for name in (".hidden", "@eaDir", f"{CLASSES[0]}/@eaDir", "__MACOSX", "lost+found", "System Volume Information"):
        (place / name).mkdir()
        (place / name / "1.png").write_bytes(b"x")
    return place


def spec_of(place: Path, **changes: object) -> FolderSpec:
    """The specification of a folder as it is now, as composed from ``dataset.path``."""
    surveyed.cache_clear()
    said = [f"{key}={value}" for key, value in {"dataset": "folder", "dataset.path": place, **changes}.items()]
    spec = resolve_trial(Composer(conf_folder()), parse_overrides(said)).spec.dataset
    assert isinstance(spec, FolderSpec)
    return spec


def test_a_folder_is_read_as_it_is(folder: Path, tmp_path: Path) -> None:
    """Classes are sub-folders by name, every image is a track of its own, and colours are those of the files."""
    spec = spec_of(folder, **{"dataset.image_size": 48})
    half = open_dataset(spec, root=tmp_path / "data", workers=1).train()

    assert dataset_info(spec).class_names == CLASSES
    assert (spec.name, spec.train_images) == ("shapes", 30)
    assert half.images.shape == (30, 3, 48, 48)
    assert np.bincount(half.labels).tolist() == [10, 10, 10]
    assert len(set(half.tracks.tolist())) == 30
    for label in range(3):
        assert half.images[half.labels == label].mean(axis=(0, 2, 3)).argmax() == 2 - label
    assert half.original_size[:3].tolist() == [[9, 20], [10, 19], [11, 18]]
    assert half.roi[0].tolist() == [-1, -1, 1, 1]
    assert half.pose is None


def test_grey_images_have_one_channel(folder: Path, tmp_path: Path) -> None:
    """The network then sees one as well."""
    spec = spec_of(folder, **{"dataset.channels": 1, "dataset.image_size": 20})

    assert open_dataset(spec, root=tmp_path / "data", workers=1).train().images.shape == (30, 1, 20, 20)


def pack_zip(folder: Path, place: Path) -> None:
    """A zip with the folder's name above the classes."""
    with zipfile.ZipFile(place, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, Path(folder.name) / path.relative_to(folder))


def pack_tar(folder: Path, place: Path) -> None:
    """A compressed tar with the classes at its top."""
    with tarfile.open(place, "w:gz") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)


@pytest.mark.parametrize(("name", "pack"), [("shapes.zip", pack_zip), ("shapes.tar.gz", pack_tar)])
def test_an_archive_is_the_folder(name: str, pack: Callable[[Path, Path], None], folder: Path, tmp_path: Path) -> None:
    """The same images, from inside the archive: the same trial, the same pixels."""
    pack(folder, tmp_path / name)
    whole = open_dataset(spec_of(folder), root=tmp_path / "data", workers=1).train()
    packed = spec_of(tmp_path / name)

    assert packed == spec_of(folder)
    remember(survey(tmp_path / name))
    assert np.array_equal(open_dataset(packed, root=tmp_path / "other", workers=1).train().images, whole.images)
    assert not list(tmp_path.glob("other/**/*.png"))


def test_the_table_says_tracks_boxes_and_halves(folder: Path, tmp_path: Path) -> None:
    """Rows of the table are what counts; the rest of the folder is left out."""
    rows = ["path,track,frame,x1,y1,x2,y2,split"]
    for name in CLASSES:
        rows += [f"{name}/{2 * number}.png,t{number // 2},{number % 2},0,0,5,8,train" for number in range(4)]
        rows.append(f"{name}/8.png,,,,,,,test")
    (folder / "images.csv").write_text("\n".join(rows))
    dataset = open_dataset(spec_of(folder), root=tmp_path / "data", workers=1)
    train, test = dataset.train(), dataset.test()

    assert (len(train), len(test)) == (12, 3)
    assert len(set(train.tracks.tolist())) == 6
    assert train.frames.tolist() == [0, 1] * 6
    assert (train.roi[:, :2] == -1).all()
    assert (train.roi[:, 2:] < 1).any()
    assert test.roi.tolist() == [[-1, -1, 1, 1]] * 3


def test_train_and_test_may_be_folders(folder: Path, tmp_path: Path) -> None:
    """As of many sets that can be downloaded."""
    place = tmp_path / "halves"
    shutil.copytree(folder, place / "train")
    shutil.copytree(folder / "red", place / "test" / "red")
    shutil.rmtree(place / "train" / ".hidden")
    dataset = open_dataset(spec_of(place), root=tmp_path / "data", workers=1)

    assert dataset.class_names == CLASSES
    assert set(dataset.test().labels.tolist()) == {2}


def test_without_test_images_there_is_no_test_half(folder: Path, tmp_path: Path) -> None:
    """It is missing, which is no error of a sweep."""
    with pytest.raises(DataMissingError, match=r"has no test images: put test images into test/"):
        open_dataset(spec_of(folder), root=tmp_path / "data", workers=1).test()


def test_a_cache_outlives_its_folder(folder: Path, tmp_path: Path) -> None:
    """Workers and later commands need no folder; other images of the same name are not taken for them."""
    before = spec_of(folder)
    images = open_dataset(before, root=tmp_path / "data", workers=1).train().images.copy()
    (folder / "red" / "new.png").write_bytes(image(2))
    after = spec_of(folder)
    assert after.digest != before.digest
    with pytest.raises(DataCorruptError, match="have changed since the trial was planned"):
        open_dataset(before, root=tmp_path / "empty", workers=1).train()
    shutil.rmtree(folder)
    surveyed.cache_clear()

    assert np.array_equal(open_dataset(before, root=tmp_path / "data", workers=1).train().images, images)


def test_a_folder_is_found_by_its_name_below_the_data(folder: Path, tmp_path: Path) -> None:
    """Of several, the one with the digest."""
    digest = survey(folder).digest
    (tmp_path / "data").mkdir()
    shutil.copytree(folder, tmp_path / "data" / "shapes")

    assert recall(digest[::-1], "shapes", [tmp_path / "data"]) is None
    assert recall(digest, "shapes", [tmp_path / "data"]) is not None


def test_unreadable_images_are_named_together(folder: Path, tmp_path: Path) -> None:
    """Cut short, empty or no image at all; nothing is cached."""
    whole = (folder / "red" / "0.png").read_bytes()
    for name, data in (("a.png", whole[:40]), ("b.png", b""), ("c.png", b"<html>")):
        (folder / "blue" / name).write_bytes(data)

    with pytest.raises(DataCorruptError, match=r"3 of 33 images cannot be read \(blue/a.png, blue/b.png, blue/c.png\)"):
        open_dataset(spec_of(folder), root=tmp_path / "data", workers=1).train()
    assert not list((tmp_path / "data" / "cache").glob("folder-*"))


def test_a_box_beyond_its_image_is_refused(folder: Path, tmp_path: Path) -> None:
    """It is one of another image or of another unit; the edge itself belongs to the image."""
    table = "path,x1,y1,x2,y2\nred/0.png,0,0,9,{}\nblue/0.png,,,,\n"
    (folder / "images.csv").write_text(table.format(20))
    assert open_dataset(spec_of(folder), root=tmp_path / "data", workers=1).train().roi.shape == (2, 4)

    (folder / "images.csv").write_text(table.format(20.5))
    with pytest.raises(DataCorruptError, match=r"red/0.png leaves its 9 x 20 pixels"):
        open_dataset(spec_of(folder), root=tmp_path / "data", workers=1).train()


def test_sixteen_bits_become_eight(folder: Path, tmp_path: Path) -> None:
    """The darkest is 0, the brightest 255 and half is half; 32-bit pixels have no such range and are refused."""
    levels = np.tile(np.array([0, 32_896, 65_535] + 5 * [0], np.uint16), (8, 1))
    Image.fromarray(levels).save(folder / "red" / "0.png")
    spec = spec_of(folder, **{"dataset.channels": 1, "dataset.image_size": 8})
    half = open_dataset(spec, root=tmp_path / "data", workers=1).train()
    assert half.images[20, 0, 0, :3].tolist() == [0, 128, 255]

    Image.fromarray(levels.astype(np.float32)).save(folder / "red" / "wide.tif")
    with pytest.raises(DataCorruptError, match=r"red/wide.tif: 32-bit pixels"):
        open_dataset(spec_of(folder), root=tmp_path / "data", workers=1).train()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,class\n", "has the columns file, class: path is needed"),
        ("path,colour\n", "has the columns path, colour"),
        ("path\nred/99.png\n", "names 1 images that are not there, such as red/99.png"),
        ("path,split\nred/0.png,dev\nblue/0.png,train\n", "red/0.png is of the split dev: write train or test"),
        ("path,x1,y1,x2,y2\nred/0.png,5,0,2,3\nblue/0.png,,,,\n", "the box of red/0.png is 5, 0, 2, 3"),
        ("path,frame\nred/0.png,first\nblue/0.png,\n", "frame of red/0.png is first: write a whole number"),
        ("path,frame\nred/0.png,1e400\nblue/0.png,\n", "frame of red/0.png is 1e400: write a whole number"),
        ("path,frame\nred/0.png,1.5\nblue/0.png,\n", "frame of red/0.png is 1.5: write a whole number"),
        ("path,frame\nred/0.png,-1\nblue/0.png,\n", "frame of red/0.png is -1: write a whole number"),
        (f"path,frame\nred/0.png,{2**63}\nblue/0.png,\n", f"frame of red/0.png is {2**63}: write a whole number"),
        ("path,x1,y1,x2,y2\nred/0.png,0,0,1e400,3\nblue/0.png,,,,\n", "the box of red/0.png is 0, 0, inf, 3"),
        ("path,x1,y1,x2,y2\nred/0.png,0,0,nan,3\nblue/0.png,,,,\n", "the box of red/0.png is 0, 0, nan, 3"),
        ("path,class\nred/0.png,a\nblue/0.png,b\nred/0.png,b\n", "names red/0.png twice"),
        ("path,track\nred/0.png,1,2\nblue/0.png,3\n", "has more cells than columns in the row of red/0.png"),
        ("path,track\n\nred/0.png,1\n,3\n", "has a row without a path"),
        ("path,split\nred/0.png,test\nblue/0.png,train\n", "has no training image of the class red"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(table: str, message: str, folder: Path) -> None:
    """The message names the place and the remedy."""
    (folder / "images.csv").write_text(table)

    with pytest.raises(DataCorruptError, match=message):
        survey(folder)


def test_a_place_without_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    """Nothing there, images beside one another, one class, or something that is no archive."""
    with pytest.raises(DataMissingError, match="there are no images at"):
        survey(tmp_path / "nothing")
    shutil.copytree(folder / "red", tmp_path / "one" / "red")
    with pytest.raises(DataMissingError, match="has images of one class"):
        survey(tmp_path / "one")
    with pytest.raises(DataCorruptError, match="is in no sub-folder of a class"):
        survey(folder / "red")
    with pytest.raises(DataCorruptError, match="is no folder, tar or zip"):
        survey(folder / "notes.txt")
    with pytest.raises(SpecError, match=r"dataset.path is 3"):
        spec_of(Path("3"))


def test_a_class_whose_name_is_no_text_here_is_refused(folder: Path) -> None:
    """Its name is stored with every trial; that of an image is not, and may be any."""
    shutil.copytree(folder / CLASSES[0], folder / os.fsdecode(b"cl\xe4ss"))
    with pytest.raises(SpecError, match=r"a class is .*use a UTF-8 locale"):
        survey(folder)
    shutil.rmtree(folder / os.fsdecode(b"cl\xe4ss"))
    (folder / CLASSES[0] / os.fsdecode(b"\xe4.png")).write_bytes(image(0))
    assert len(survey(folder).entries) == 31


def test_members_that_leave_the_archive_are_not_read(folder: Path, tmp_path: Path) -> None:
    """Their names are no paths inside it; nothing is ever unpacked."""
    pack_zip(folder, tmp_path / "evil.zip")
    before = survey(tmp_path / "evil.zip")
    with zipfile.ZipFile(tmp_path / "evil.zip", "a") as archive:
        archive.writestr("../red/x.png", image(2))
        archive.writestr("/red/y.png", image(2))

    assert survey(tmp_path / "evil.zip").entries == before.entries


def repainted(place: Path) -> None:
    """Paint one image over without a change of its size or name."""
    before = place.read_bytes()
    changed = before[:-20] + bytes(255 - byte for byte in before[-20:])
    place.write_bytes(changed)


def test_an_edit_of_the_same_size_is_other_images(folder: Path, tmp_path: Path) -> None:
    """The digest is over contents: names and sizes alone would take the old cache and the old scores over."""
    before = spec_of(folder)
    read = open_dataset(before, root=tmp_path / "data", workers=1).train().images.copy()
    repainted(folder / "green" / "1.BMP")
    after = spec_of(folder)

    assert before.digest != after.digest
    assert not np.array_equal(open_dataset(after, root=tmp_path / "data", workers=1).train().images, read)


@pytest.mark.parametrize("keeps", ["nothing", "mtime", "swap"])
def test_remembered_contents_are_those_of_the_files_as_they_are(
    keeps: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where digests are kept between commands, an edit is noticed all the same: with its old time, or two swapped."""
    monkeypatch.setattr(files, "REMEMBERED_MIN_BYTES", 0)
    monkeypatch.setattr(files, "SETTLED_NS", 0)
    monkeypatch.setenv("STNBENCH_DATA", str(tmp_path / "data"))
    one, other = folder / "green" / "1.BMP", folder / "red" / "1.BMP"
    before = survey(folder).digest
    assert survey(folder).digest == before
    assert len(list((tmp_path / "data" / "cache" / "contents").iterdir())) == 1
    stamp = one.stat()
    if keeps == "swap":
        one.rename(folder / "x")
        other.rename(one)
        (folder / "x").rename(other)
    else:
        repainted(one)
    if keeps == "mtime":
        os.utime(one, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    assert survey(folder).digest != before


def test_remembered_contents_save_reading(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large folder is read once; a memory that is damaged or cannot be written costs only time."""
    monkeypatch.setattr(files, "REMEMBERED_MIN_BYTES", 0)
    monkeypatch.setattr(files, "SETTLED_NS", 0)
    monkeypatch.setenv("STNBENCH_DATA", str(tmp_path / "data"))
    before = survey(folder).digest
    (memory,) = (tmp_path / "data" / "cache" / "contents").iterdir()
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"" if path.suffix in {".png", ".BMP"} else real(path))
    assert survey(folder).digest == before
    monkeypatch.undo()
    monkeypatch.setenv("STNBENCH_DATA", str(tmp_path / "data"))
    for damaged in (b"", b"{", b"[1]", b'{"blue/0.png": 3}'):
        memory.write_bytes(damaged)
        assert survey(folder).digest == before
    monkeypatch.setenv("STNBENCH_DATA", str(folder / "notes.txt"))
    monkeypatch.setattr(files, "REMEMBERED_MIN_BYTES", 0)
    assert survey(folder).digest == before


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz", "tar.bz2"])
def test_a_damaged_archive_is_refused_by_name(kind: str, folder: Path, tmp_path: Path) -> None:
    """Cut or with a bit turned over anywhere, it is read or refused, whatever unpacks it."""
    path = tmp_path / f"images.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, f"w:{kind.removeprefix('tar.')}") as tar:  # type: ignore[call-overload]
            tar.add(folder, ".")
    whole, found = path.read_bytes(), survey(path)
    refused = 0
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :]):
            path.write_bytes(damaged)
            try:
                after = survey(path)
            except DataError:
                refused += 1
            else:
                assert after.digest == found.digest or len(damaged) == len(whole)
    assert refused > 30
