"""``python -m stnbench.data``: make the caches of a data set, and describe and check their contents."""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stnbench.cli.parser import CommandParser, path, whole
from stnbench.core.command import DONE, SOME_FAILED
from stnbench.core.errors import DataMissingError, SpecError
from stnbench.core.image_folder import remember, survey
from stnbench.core.paths import data_root
from stnbench.core.process import available_cores
from stnbench.data import digits
from stnbench.data.base import Dataset, ImageSet
from stnbench.data.build import open_dataset
from stnbench.data.cache import images_digest
from stnbench.data.gtsrb.archive import (
    TEST_IMAGES,
    TORCHVISION_TRAIN_IMAGES,
    TRAIN_CONTENT_DIGEST,
    TRAIN_IMAGES,
    TRAIN_TRACKS,
)
from stnbench.data.gtsrb.download import download_archives
from stnbench.data.gtsrb.source import Half, content_digest, find_half
from stnbench.data.quality import Keys, box_facts, content_key, count_shared, find_repeats, pixel_keys
from stnbench.data.splits import split_tracks
from stnbench.spec.data import DATASETS, DatasetSpec, FolderSpec, TrackSplitSpec

DEFAULT_SPLIT = TrackSplitSpec()

FOLDER = "folder"


WITHOUT_SOURCE = {"signs": "is drawn and not read", "digits": "comes with scikit-learn"}


def main(arguments: Sequence[str]) -> int:
    """Run ``prepare`` or ``check`` and return the exit code, 1 if ``check`` finds data that are wrong.

    Raises:
        StnbenchError: if the data cannot be found, read or made.
    """
    options = make_parser().parse_args(arguments)
    if options.dataset in WITHOUT_SOURCE and (options.root is not None or options.download):
        problem = f"{options.dataset} {WITHOUT_SOURCE[options.dataset]}"
        raise SpecError(problem, remedy="leave out --root and --download")
    root = data_root() if options.root is None else options.root
    if options.download:
        _download(options.dataset, root)
    dataset = open_dataset(_spec(options), root=data_root(), workers=available_cores(), source=root)
    return prepare(dataset) if options.command == "prepare" else check(dataset, options.dataset, root)


def prepare(dataset: Dataset) -> int:
    """Make or open the caches, and print one line for each half; a missing test half is reported and is no failure."""
    started = time.perf_counter()
    print(f"train: {_counts(dataset.train())}, ready after {time.perf_counter() - started:.1f} s")
    started = time.perf_counter()
    test = _test_or_none(dataset)
    if test is not None:
        print(f"test: {_counts(test)}, ready after {time.perf_counter() - started:.1f} s")
    return DONE


def check(dataset: Dataset, name: str, source: Path) -> int:
    """Read and describe all data; return 1 if something is wrong with them, else 0."""
    train, test = dataset.train(), _test_or_none(dataset)
    wrong = _check_half("train", train)
    if test is not None:
        wrong += _check_half("test", test)
    train_keys, test_keys = pixel_keys(train.images), None if test is None else pixel_keys(test.images)
    _say_repeats("resized pixels", train, train_keys, test_keys)
    if name == "gtsrb":
        _say_official("train", (len(train), len(np.unique(train.tracks))), (TRAIN_IMAGES, TRAIN_TRACKS))
        if test is not None:
            _say_official("test", (len(test),), (TEST_IMAGES,))
        _check_files(train, source, with_test=test is not None)
    if name == "mnist":
        _say_official("train", (len(train),), (digits.TRAIN_IMAGES,))
        if test is not None:
            _say_official("test", (len(test),), (digits.TEST_IMAGES,))
    return SOME_FAILED if wrong else DONE


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench data",
        description="Makes the caches of a data set as it is, undistorted, or checks them.",
        epilog="Caches lie in STNBENCH_DATA, or data/, below cache/. Exit codes: 0 done, 1 something is wrong with the "
        "data, 2 cannot start.",
    )
    parser.add_argument("command", choices=("prepare", "check"), help="make the caches, or read and describe them")
    parser.add_argument("dataset", choices=DATASETS.names(), help="which data set")
    parser.add_argument(
        "--root", type=path, help="folder with GTSRB's files, or with mnist/ (default: the data folder)"
    )
    parser.add_argument(
        "--download", action="store_true", help="first fetch GTSRB (360 MB) or MNIST (11 MB) to that folder"
    )
    parser.add_argument("--image-size", type=whole(), help="side of an image in pixels (default: 48; of digits 42)")
    return parser


def _download(dataset: str, root: Path) -> None:
    """Download the files of a data set to a folder.

    Raises:
        SpecError: if there is nothing known to download.
        DataError: if the download fails.
    """
    if dataset == "gtsrb":
        download_archives(root, say=print)
    elif dataset == "mnist":
        digits.download_mnist(root)
    else:
        raise SpecError(f"{dataset} has no download", remedy="leave out --download, and name its files by --root")


def _spec(options: argparse.Namespace) -> DatasetSpec:
    sizes = {} if options.image_size is None else {"image_size": options.image_size}
    if options.dataset == FOLDER:
        return _folder_spec(options.root, options.image_size or 48)
    copies = {"copies": 1} if options.dataset == "digits" else {}  # undistorted copies would be equal
    made = DATASETS.part(options.dataset).spec
    needed = [
        field.name
        for field in dataclasses.fields(made)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if needed:
        problem = f"the dataset {options.dataset} needs {', '.join(needed)}"
        raise SpecError(problem, remedy=f"it is prepared when it is used: stnbench train dataset={options.dataset}")
    spec: DatasetSpec = made(**sizes, **copies)
    return spec


def _folder_spec(root: Path | None, image_size: int) -> FolderSpec:
    """Return the specification of the data set in the folder that ``--root`` names.

    Raises:
        SpecError: if ``--root`` is missing.
        DataError: if the contents of the folder cannot be used.
    """
    if root is None:
        raise SpecError("the data set folder needs --root", remedy="name the folder, tar or zip of images")
    found = survey(root)
    remember(found)
    return FolderSpec(
        name=found.place.name.partition(".")[0],
        digest=found.digest,
        class_names=found.class_names,
        train_images=len(found.half(is_test=False)),
        image_size=image_size,
    )


def _test_or_none(dataset: Dataset) -> ImageSet | None:
    try:
        return dataset.test()
    except DataMissingError as error:
        print(f"test: missing, {error}")
        return None


def _counts(images: ImageSet) -> str:
    classes, tracks = len(np.unique(images.labels)), np.unique(images.tracks)
    known = f"{len(tracks):,} tracks" if tracks[0] >= 0 else "tracks unknown"
    size = "x".join(str(side) for side in images.images.shape[2:])
    return f"{len(images):,} images of {size} pixels, {classes} classes, {known}, digest {images.digest}"


def _check_half(half: str, images: ImageSet) -> int:
    """Print the facts of a half, and return the number of failed checks."""
    print(f"{half}: {_counts(images)}")
    per_class = np.bincount(images.labels)
    sizes = ", ".join(f"{low}-{high}" for low, high in np.quantile(images.original_size, [0, 1], axis=0).T.astype(int))
    print(f"{half}: {per_class.min():,} to {per_class.max():,} images a class; width, height before resizing {sizes}")
    boxes = box_facts(images)
    low, middle, high = boxes.width_share
    print(
        f"{half}: {boxes.wrong} wrong boxes; width of the box over that of the image {low:.3f} {middle:.3f} {high:.3f} "
        f"(5, 50, 95 %), sd of its centre {boxes.centre_sd[0]:.3f} {boxes.centre_sd[1]:.3f}"
    )
    same = images_digest(images.images, images.labels) == images.digest
    print(f"{half}: pixels and labels {'match' if same else 'DO NOT MATCH'} the digest")
    return int(boxes.wrong > 0) + int(not same)


def _say_repeats(what: str, train: ImageSet, train_keys: Keys, test_keys: Keys | None) -> None:
    held_out = split_tracks(DEFAULT_SPLIT, train.labels, train.tracks).validation
    found = find_repeats(train_keys, train.labels, train.tracks, held_out)
    print(
        f"train, equal {what}: {found.groups:,} groups of {found.images:,} images; {found.across_tracks:,} groups "
        f"across tracks, {found.across_classes:,} across classes, {found.across_split:,} across the default track split"
    )
    if test_keys is not None:
        shared = count_shared(train_keys, test_keys)
        print(f"train and test, equal {what}: {shared:,} test images are training images too")


def _say_official(half: str, found: tuple[int, ...], official: tuple[int, ...]) -> None:
    names = ("images", "tracks")
    said = ", ".join(f"{number:,} {name}" for number, name in zip(official, names, strict=False))
    if found == official:
        print(f"{half}: the official counts ({said})")
        return
    other = " (as many as torchvision's archive has)" if found[0] == TORCHVISION_TRAIN_IMAGES else ""
    print(f"{half}: NOT the official set, which has {said}{other}: results do not compare with published ones")


def _check_files(train: ImageSet, source: Path, *, with_test: bool) -> None:
    """Check the official files: whether files are repeated, and whether they are the known ones."""
    half = find_half(source, "train")
    if half is None:
        print(f"train: the files are not below {source}; only the cache was checked")
        return
    test = find_half(source, "test") if with_test else None
    _say_repeats("files", train, _file_keys(half), None if test is None else _file_keys(test))
    known = content_digest(half) == TRAIN_CONTENT_DIGEST
    print(f"train: files and tables are {'the known ones' if known else 'NOT those of the known copy'}")


def _file_keys(half: Half) -> list[bytes]:
    return [content_key(data) for data in half.files.read(half.names)]
