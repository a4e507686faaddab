"""``python -m stnbench.data``: make the caches of a data set, and describe and check their contents."""

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stnbench.cli.parser import CommandParser, path, whole
from stnbench.core.command import DONE, SOME_FAILED
from stnbench.core.errors import DataMissingError, SpecError
from stnbench.core.files import data_root
from stnbench.core.identity import Json
from stnbench.core.process import available_cores
from stnbench.data import Dataset, ImageSet, images_digest, split_tracks
from stnbench.data.build import open_dataset
from stnbench.data.gtsrb import Gtsrb, Half, content_digest, find_half
from stnbench.data.gtsrb.archive import (
    TORCHVISION_TRAIN_IMAGES,
    TRAIN_CONTENT_DIGEST,
)
from stnbench.data.quality import (
    Keys,
    NearPairs,
    box_facts,
    content_key,
    equal_pairs,
    find_repeats,
    near_pairs,
    perceptual_hashes,
    pixel_keys,
)
from stnbench.spec.codec import from_plain, is_required
from stnbench.spec.data import DATASETS, WITHOUT_FILES, DatasetSpec, FolderSpec, TrackSplitSpec

DEFAULT_SPLIT = TrackSplitSpec()

FOLDER = "folder"


def main(arguments: Sequence[str]) -> int:
    """Run ``prepare`` or ``check`` and return the exit code, 1 if ``check`` finds data that are wrong.

    Raises:
        StnbenchError: if the data cannot be found, read or made.
    """
    options = make_parser().parse_args(arguments)
    if DATASETS.has_trait(options.dataset, WITHOUT_FILES) and (options.root is not None or options.download):
        raise SpecError(f"{options.dataset} comes with stnbench", remedy="leave out --root and --download")
    if options.download and options.dataset == FOLDER:
        raise SpecError("folder has no download", remedy="leave out --download, and name its files by --root")
    root = data_root() if options.root is None else options.root
    dataset = open_dataset(_spec(options), root=data_root(), workers=available_cores(), source=root)
    if options.download:
        dataset.download(root, lambda line: print(line, file=sys.stderr if options.json else sys.stdout))
    if options.command == "prepare":
        return prepare(dataset, options.dataset, as_json=options.json)
    return check(dataset, options.dataset, root, as_json=options.json)


def prepare(dataset: Dataset, name: str, *, as_json: bool = False) -> int:
    """Make or open the caches, and print one line for each half; a missing test half is reported and is no failure."""
    say = _Report(is_silent=as_json)
    halves: dict[str, Callable[[], ImageSet | None]] = {
        "train": dataset.train,
        "test": functools.partial(_test_or_none, dataset, say),
    }
    for half, opened in halves.items():
        started = time.perf_counter()
        images = opened()
        if images is not None:
            ready_s = time.perf_counter() - started
            say.line(f"{half}: {_counts(images)}, ready after {ready_s:.1f} s")
            say.facts[half] = {"images": len(images), "digest": images.digest, "ready_s": round(ready_s, 3)}
    if as_json:
        print(json.dumps({"dataset": name, **say.facts}))
    return DONE


def check(dataset: Dataset, name: str, source: Path, *, as_json: bool = False) -> int:
    """Read and describe all data; return 1 if something is wrong with them, else 0."""
    say = _Report(is_silent=as_json)
    train, test = dataset.train(), _test_or_none(dataset, say)
    _check_half("train", train, say)
    if test is not None:
        _check_half("test", test, say)
    train_keys, test_keys = pixel_keys(train.images), None if test is None else pixel_keys(test.images)
    _say_repeats("resized pixels", train, train_keys, test_keys, say)
    _say_near(train, test, say)
    for name_of_half, half in (("train", train), ("test", test)):
        official = dataset.official_counts.get(name_of_half)
        if half is not None and official is not None:
            counts = (len(half), len(np.unique(half.tracks)))[: len(official)]
            _say_official(name_of_half, counts, official, say)
    if isinstance(dataset, Gtsrb):
        _check_files(train, source, say, with_test=test is not None)
    if as_json:
        print(json.dumps({"dataset": name, "wrong": say.wrong, **say.facts}))
    return SOME_FAILED if say.wrong else DONE


class _Report:
    """Facts on a data set, printed as lines or kept as one JSON object.

    Attributes:
        facts: the facts by their names; those of a half are under its name.
        wrong: the number of failed checks.
    """

    def __init__(self, *, is_silent: bool = False) -> None:
        self.facts: dict[str, Json] = {}
        self.wrong = 0
        self._is_silent = is_silent

    def line(self, text: str) -> None:
        """Print a line."""
        if not self._is_silent:
            print(text)


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
    facts = "print one JSON object on standard output; that of check lists repeated and nearly repeated images"
    parser.add_argument("--json", action="store_true", help=facts)
    parser.add_argument("--image-size", type=whole(), help="side of an image in pixels (default: 48; of digits 42)")
    return parser


def _spec(options: argparse.Namespace) -> DatasetSpec:
    sizes = {} if options.image_size is None else {"image_size": options.image_size}
    if options.dataset == FOLDER:
        return _folder_spec(options.root, options.image_size or 48)
    made = DATASETS.part(options.dataset).spec
    names = {field.name for field in dataclasses.fields(made)}
    copies = {"copies": 1} if "copies" in names else {}  # undistorted copies would be equal
    needed = [field.name for field in dataclasses.fields(made) if is_required(field)]
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
    section: dict[str, Json] = {"kind": FOLDER, "path": str(root), "image_size": image_size}
    FolderSpec.locate(section)
    return from_plain(FolderSpec, section, where="--root")


def _test_or_none(dataset: Dataset, say: _Report) -> ImageSet | None:
    try:
        return dataset.test()
    except DataMissingError as error:
        say.facts["test"] = None
        say.line(f"test: missing, {error}")
        return None


def _counts(images: ImageSet) -> str:
    classes, tracks = len(np.unique(images.labels)), np.unique(images.tracks)
    known = f"{len(tracks):,} tracks" if tracks[0] >= 0 else "tracks unknown"
    size = "x".join(str(side) for side in images.images.shape[2:])
    return f"{len(images):,} images of {size} pixels, {classes} classes, {known}, digest {images.digest}"


def _check_half(half: str, images: ImageSet, say: _Report) -> None:
    """Report the facts of a half, and count its failed checks."""
    say.line(f"{half}: {_counts(images)}")
    per_class = np.bincount(images.labels)
    sizes = ", ".join(f"{low}-{high}" for low, high in np.quantile(images.original_size, [0, 1], axis=0).T.astype(int))
    say.line(
        f"{half}: {per_class.min():,} to {per_class.max():,} images a class; width, height before resizing {sizes}"
    )
    boxes = box_facts(images)
    low, middle, high = boxes.width_share
    say.line(
        f"{half}: {boxes.wrong} wrong boxes; width of the box over that of the image {low:.3f} {middle:.3f} {high:.3f} "
        f"(5, 50, 95 %), sd of its centre {boxes.centre_sd[0]:.3f} {boxes.centre_sd[1]:.3f}"
    )
    same = images_digest(images.images, images.labels) == images.digest
    say.line(f"{half}: pixels and labels {'match' if same else 'DO NOT MATCH'} the digest")
    say.wrong += int(boxes.wrong > 0) + int(not same)
    tracks = np.unique(images.tracks)
    say.facts[half] = {
        "images": len(images),
        "images_per_class": per_class.tolist(),
        "tracks": len(tracks) if tracks[0] >= 0 else None,
        "digest": images.digest,
        "matches_digest": same,
        "wrong_boxes": boxes.wrong,
    }


def _say_repeats(what: str, train: ImageSet, train_keys: Keys, test_keys: Keys | None, say: _Report) -> None:
    held_out = split_tracks(DEFAULT_SPLIT, train.labels, train.tracks).validation
    found = find_repeats(train_keys, train.labels, train.tracks, held_out)
    say.line(
        f"train, equal {what}: {found.groups:,} groups of {found.images:,} images; {found.across_tracks:,} groups "
        f"across tracks, {found.across_classes:,} across classes, {found.across_split:,} across the default track split"
    )
    facts: dict[str, Json] = {"train": {name: getattr(found, name) for name in found.__slots__}, "train_test": None}
    if test_keys is not None:
        shared = np.array(equal_pairs(train_keys, test_keys), np.int64).reshape(-1, 2)
        say.line(f"train and test, equal {what}: {_shared(train, shared)} too")
        facts["train_test"] = _shared_facts(train, shared, None)
    say.facts["equal_" + what.replace(" ", "_")] = facts


def _say_near(train: ImageSet, test: ImageSet | None, say: _Report) -> None:
    """Report near duplicates: those of the training half across tracks, and those of training and test images."""
    hashes = perceptual_hashes(train.images)
    pairs = near_pairs(hashes)
    first, second = pairs.rows.T
    # The frames of a track are near duplicates by nature; without tracks, all pairs count.
    across = pairs.where(train.tracks[first] != train.tracks[second]) if train.tracks.min() >= 0 else pairs
    first, second = across.rows.T
    is_held_out = np.zeros(len(train), bool)
    is_held_out[split_tracks(DEFAULT_SPLIT, train.labels, train.tracks).validation] = True
    classes = int(np.sum(train.labels[first] != train.labels[second]))
    split = int(np.sum(is_held_out[first] != is_held_out[second]))
    tracks = len(np.unique(np.sort(train.tracks[across.rows], axis=1), axis=0))
    say.line(
        f"train, nearly equal images of different tracks: {len(across):,} pairs of {len(np.unique(across.rows)):,} "
        f"images, of {tracks:,} pairs of tracks; {classes:,} pairs across classes, {split:,} across the default track "
        "split"
    )
    facts: dict[str, Json] = {
        "train": {
            "pairs": len(across),
            "images": len(np.unique(across.rows)),
            "track_pairs": tracks,
            "across_classes": classes,
            "across_split": split,
            "list": [
                {
                    "rows": rows,
                    "tracks": train.tracks[rows].tolist(),
                    "frames": train.frames[rows].tolist(),
                    "labels": train.labels[rows].tolist(),
                    "bits": bits,
                }
                for rows, bits in zip(across.rows.tolist(), across.bits.tolist(), strict=True)
            ],
        },
        "train_test": None,
    }
    if test is not None:
        shared = near_pairs(hashes, perceptual_hashes(test.images))
        say.line(f"train and test, nearly equal: {_shared(train, shared.rows)} too, or nearly")
        facts["train_test"] = _shared_facts(train, shared.rows, shared)
    say.facts["nearly_equal"] = facts


def _shared(train: ImageSet, pairs: NDArray[np.int64]) -> str:
    """Return how many test images are paired with training images, and with how many tracks."""
    rows, others = pairs.T
    tracks = f" (of {len(np.unique(train.tracks[rows])):,} tracks)" if len(pairs) and train.tracks.min() >= 0 else ""
    return f"{len(np.unique(others)):,} test images are training images{tracks}"


def _shared_facts(train: ImageSet, pairs: NDArray[np.int64], near: NearPairs | None) -> Json:
    """Return the pairs of a training and a test image, with their distances if they are only nearly equal."""
    rows, others = pairs.T
    bits = [None] * len(pairs) if near is None else near.bits.tolist()
    return {
        "test_images": len(np.unique(others)),
        "train_tracks": np.unique(train.tracks[rows]).tolist(),
        "list": [
            {"train_row": row, "test_row": other, "track": int(train.tracks[row]), "frame": int(train.frames[row])}
            | ({} if own is None else {"bits": own})
            for row, other, own in zip(rows.tolist(), others.tolist(), bits, strict=True)
        ],
    }


def _say_official(half: str, found: tuple[int, ...], official: tuple[int, ...], say: _Report) -> None:
    names = ("images", "tracks")
    said = ", ".join(f"{number:,} {name}" for number, name in zip(official, names, strict=False))
    say.facts[f"{half}_is_official"] = found == official
    if found == official:
        say.line(f"{half}: the official counts ({said})")
        return
    other = " (as many as torchvision's archive has)" if found[0] == TORCHVISION_TRAIN_IMAGES else ""
    say.line(f"{half}: NOT the official set, which has {said}{other}: results do not compare with published ones")


def _check_files(train: ImageSet, source: Path, say: _Report, *, with_test: bool) -> None:
    """Check the official files: whether files are repeated, and whether they are the known ones."""
    half = find_half(source, "train")
    if half is None:
        say.line(f"train: the files are not below {source}; only the cache was checked")
        return
    test = find_half(source, "test") if with_test else None
    _say_repeats("files", train, _file_keys(half), None if test is None else _file_keys(test), say)
    known = content_digest(half) == TRAIN_CONTENT_DIGEST
    say.facts["train_files_are_known"] = known
    say.line(f"train: files and tables are {'the known ones' if known else 'NOT those of the known copy'}")


def _file_keys(half: Half) -> list[bytes]:
    return [content_key(data) for data in half.files.read(half.names)]
