"""One half of a data set as a folder of NumPy files, made once and memory-mapped by every process that needs it.

A cache is complete or absent: it is filled in a temporary folder next to its final one, synced, and renamed under a
file lock. Opening checks sizes, shapes, types and the digests of the arrays; that of the pixels of a large cache only
if their file has changed since it was last read, by its size, times or inode. ``verify`` reads every pixel.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import CacheMissingError, DataCorruptError, DataError, DataMissingError, FolderError
from stnbench.core.files import (
    ARRAY_ERRORS,
    DATA_VARIABLE,
    file_mark,
    file_sha256,
    lock_error,
    remembered_digests,
    sync_folder,
    writable_folder,
)
from stnbench.core.identity import Json, canonical_json
from stnbench.core.process import advance
from stnbench.data import ImageSet, images_digest

# The manifest of a cache, the digests, and the layout of its arrays.


FORMAT_VERSION = 1
"""Increased when the files of a cache change their meaning, so that older caches are made again."""

MANIFEST = "manifest.json"
IMAGES = "images.npy"
SEEN = "seen.json"
"""The file in a cache that remembers the digest of the pixels, and the mark of their file when they were read."""

REMEDY = "delete its folder and run 'python -m stnbench.data prepare' again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The shapes of the arrays of a cache.

    Attributes:
        count: the number of images.
        image_size: side of an image in pixels.
        channels: the number of channels of an image.
        has_pose: whether the homographies are known.
        has_control_points: whether the images are distorted by thin plate splines.
    """

    count: int
    image_size: int
    channels: int = 3
    has_pose: bool
    has_control_points: bool = False

    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the NumPy type string and the shape of every array of the cache, by name."""
        n, side = self.count, self.image_size
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            "images": ("|u1", (n, self.channels, side, side)),
            "labels": ("<i8", (n,)),
            "tracks": ("<i8", (n,)),
            "frames": ("<i8", (n,)),
            "roi": ("<f4", (n, 4)),
            "original_size": ("<i8", (n, 2)),
        }
        if self.has_pose:
            shapes["pose"] = ("<f4", (n, 3, 3))
        if self.has_control_points:
            shapes["control_points"] = ("<f4", (n, 16, 2))
        return shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The description of a cache that is stored in it.

    Attributes:
        identity: the sources and the settings that the cache was made from, as JSON values.
        layout: the shapes of its arrays.
        digest: the ``ImageSet``'s digest.
        sha256: SHA-256 of each file by its name, 64 hexadecimal digits.
    """

    identity: dict[str, Json]
    layout: Layout
    digest: str
    sha256: dict[str, str]

    def describes(self, identity: dict[str, Json]) -> bool:
        """Return whether the cache was made from exactly this identity."""
        return canonical_json(self.identity) == canonical_json(identity)


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of the cache in ``folder``; return None if another version of stnbench wrote it.

    Raises:
        DataMissingError: if there is no cache.
        DataCorruptError: if the manifest is missing, cannot be read, or does not match its checksum.
    """
    path = folder / MANIFEST
    try:
        plain = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        if folder.is_dir():
            raise DataCorruptError(f"{folder} has no {MANIFEST}", remedy=REMEDY) from error
        remedy = "run 'python -m stnbench.data prepare'"
        raise DataMissingError(f"there is no cache at {folder}", remedy=remedy) from error
    except (ValueError, OSError) as error:
        raise DataCorruptError(f"{path} cannot be read ({error})", remedy=REMEDY) from error
    if not isinstance(plain, dict) or plain.pop("checksum", None) != _checksum(plain):
        raise DataCorruptError(f"{path} does not match its own checksum", remedy=REMEDY)
    if plain.pop("format", None) != FORMAT_VERSION:
        return None
    layout = {field.name: plain.pop(field.name) for field in dataclasses.fields(Layout) if field.name in plain}
    return Manifest(layout=Layout(**layout), **plain)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a cache, with a checksum of the manifest itself."""
    plain: dict[str, Json] = {"format": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    plain |= dataclasses.asdict(manifest.layout)  # beside the rest, where older caches have it
    del plain["layout"]
    text = json.dumps(plain | {"checksum": _checksum(plain)}, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _checksum(plain: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


LOOK_S = 2
"""Seconds between the messages of a process that waits for a cache."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CacheArrays:
    """The writable arrays of a cache that is being made; shapes and meaning as in ``ImageSet``, initially zero.

    ``images`` maps the file ``images_file``: other processes may open that file with
    ``np.load(images_file, mmap_mode="r+")`` and write their rows into it.
    """

    images_file: Path
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]
    frames: NDArray[np.int64]
    roi: NDArray[np.float32]
    original_size: NDArray[np.int64]
    pose: NDArray[np.float32] | None
    control_points: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recipe:
    """Instructions for making a cache: the layout, and the function that writes every row of every array."""

    layout: Layout
    fill: Callable[[CacheArrays], None]


def open_or_build(
    folder: Path,
    *,
    identity: dict[str, Json],
    recipe: Callable[[], Recipe],
    builds: bool = True,
    of_source: Collection[str] = (),
) -> ImageSet:
    """Open the cache in ``folder``, and make it first if it is missing or was made from another identity.

    While one process makes the cache, others wait and then open the result; leftovers of a killed process are removed.
    After an error no partial cache is left.

    Args:
        folder: the folder of the cache.
        identity: the sources and the settings that the cache is made from.
        recipe: returns the instructions; it may read the source, and is called at most once, and followed, while no
            other process fills this folder.
        builds: whether the cache may be made; if not, it is only opened.
        of_source: the keys of the identity that say which files the source has.

    Raises:
        DataCorruptError: if the cache is there and wrong.
        CacheMissingError: if the cache would have to be made and ``builds`` is false.
        FolderError: if the cache cannot be written, for example because the disk is full.
        Exception: any other that ``recipe`` and its ``fill`` raise.
    """
    if _is_current(folder, identity):
        return open_cache(folder)
    if not builds:
        settings = {key: value for key, value in identity.items() if key not in of_source}

        def is_of_other_files(found: Mapping[str, Json]) -> bool:  # those of older versions do not say of which
            return bool(of_source) and found.keys() >= set(of_source) and found.items() >= settings.items()

        raise CacheMissingError(
            f"there is no cache at {folder}",
            remedy="run 'python -m stnbench.data prepare'",
            superseded=digests_of(folder, is_of_other_files),
        )
    with _lock(folder):
        if not _is_current(folder, identity):
            _build(folder, identity, recipe)
    return open_cache(folder)


def digests_of(folder: Path, is_meant: Callable[[Mapping[str, Json]], bool]) -> frozenset[str]:
    """Return the digests of the images in caches beside a folder that may be absent.

    Args:
        folder: the folder; the names of the others differ from its own in the part after the last dash.
        is_meant: returns by its identity whether a cache counts; those that cannot be read are left out.
    """
    found = []
    for other in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
        with contextlib.suppress(DataError):
            manifest = read_manifest(other)
            if manifest is not None and is_meant(manifest.identity):
                found.append(manifest.digest)
    return frozenset(found)


def open_prepared(cache: Path, pattern: str, made_with: Mapping[str, Json], *, absent: str) -> ImageSet | None:
    """Open the one cache that was made with these settings, whatever its source was; return None if there is none.

    Args:
        cache: the folder of caches.
        pattern: the names of the caches of this half.
        made_with: the part of the identity that does not depend on the source.
        absent: a sentence that says which source is missing, for the message.

    Raises:
        DataError: if there are several.
        DataCorruptError: if one of them is wrong.
    """
    prepared = [folder for folder in sorted(cache.glob(pattern)) if _is_made_with(folder, made_with)]
    if len(prepared) > 1:
        names = ", ".join(str(folder) for folder in prepared)
        problem = f"{absent}, and there are {len(prepared)} caches"
        raise DataError(problem, remedy=f"delete those that are not meant: {names}")
    return open_cache(prepared[0]) if prepared else None


def _is_made_with(folder: Path, made_with: Mapping[str, Json]) -> bool:
    manifest = read_manifest(folder)
    return manifest is not None and manifest.identity.items() >= made_with.items()


def remove_superseded(folder: Path) -> None:
    """Remove a cache of an older version, which did not record the images of its source; another one is in its place.

    Processes that have opened it go on reading it.
    """
    if folder.is_dir():
        with _lock(folder):
            _retire(folder)
            _clean(folder)


def open_cache(folder: Path) -> ImageSet:
    """Open a cache and map its images read-only, in a fraction of a second; a large one takes longer the first time.

    Raises:
        DataMissingError: if there is no cache.
        DataCorruptError: if a file is wrong; the message names the file.
    """
    return _open(folder, _read_current(folder))


def _open(folder: Path, manifest: Manifest) -> ImageSet:
    small = {name: _read_small(folder, name, manifest) for name in manifest.layout.shapes() if name != "images"}
    pose = small.pop("pose", None)
    images, watch = _map_images(folder, manifest)
    return ImageSet(images=images, pose=pose, digest=manifest.digest, check=watch.check, **small)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Watch:
    """Watch on the file that images are mapped from: writing to it changes images that a process has opened.

    Attributes:
        path: the file.
        mark: its mark when it was opened.
        sha256: the digest of the whole file.
    """

    path: Path
    mark: list[int]
    sha256: str

    def check(self) -> None:
        """Raise DataCorruptError if the file has been written to; one that was removed or replaced stays mapped."""
        try:
            mark = file_mark(self.path)
        except DataCorruptError:
            return
        if mark != self.mark and mark[-1] == self.mark[-1] and file_sha256(self.path, follow_link=True) != self.sha256:
            raise _changed(self.path)


def _changed(path: Path) -> DataCorruptError:
    return DataCorruptError(f"{path} has changed since it was made (its SHA-256 differs)", remedy=REMEDY)


def verify(folder: Path) -> Manifest:
    """Check every byte of a cache against its manifest, and return the manifest.

    Raises:
        DataMissingError: if there is no cache.
        DataCorruptError: as for ``open_cache``, and if a pixel has changed.
    """
    manifest = _read_current(folder)
    images = _open(folder, manifest)
    path = folder / IMAGES
    if file_sha256(path, follow_link=True) != manifest.sha256[IMAGES]:
        raise _changed(path)
    if images_digest(images.images, images.labels) != manifest.digest:
        raise DataCorruptError(f"{folder / MANIFEST} has a digest of other images", remedy=REMEDY)
    return manifest


def _read_current(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataCorruptError(f"{folder} was written by another version of stnbench", remedy=REMEDY)
    return manifest


def _is_current(folder: Path, identity: dict[str, Json]) -> bool:
    """Return whether there is a cache of this identity and format.

    Raises:
        DataCorruptError: if the manifest of the cache is missing or damaged.
    """
    try:
        manifest = read_manifest(folder)
    except DataMissingError:
        return False
    return manifest is not None and manifest.describes(identity)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the operating system releases it when its holder dies.

    Raises:
        FolderError: if the folder cannot be written, or its file system has no locks.
    """
    writable_folder(folder.parent, "the data cache", remedy=f"set {DATA_VARIABLE} to a folder that can be written")
    lock = filelock.FileLock(folder.parent / f".{folder.name}.lock")
    waited_s = 0
    while not lock.is_locked:
        try:
            lock.acquire(timeout=LOOK_S)
        except filelock.Timeout:
            waited_s += LOOK_S
            advance(f"waiting for another process that makes {folder.name}", waited_s)
        except (OSError, NotImplementedError) as error:
            raise lock_error(folder.parent, error, DATA_VARIABLE) from error
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, identity: dict[str, Json], recipe: Callable[[], Recipe]) -> None:
    _clean(folder)
    temporary = _sibling(folder)
    try:
        followed = recipe()
        temporary.mkdir()
        arrays = _allocate(temporary, followed.layout)
        followed.fill(arrays)
        _finish(temporary, arrays, followed.layout, identity)
        _retire(folder)
        temporary.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        problem = f"the cache {folder} cannot be made ({error})"
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        remedy = "free some space, or set STNBENCH_DATA to a folder with room" if full else "look at the file it names"
        raise FolderError(problem, remedy=remedy) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _clean(folder)


def _sibling(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.{uuid.uuid4().hex[:12]}.tmp"


def _clean(folder: Path) -> None:
    """Remove the leftovers of killed builders of this folder; the lock is held, so no process is building."""
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _retire(folder: Path) -> None:
    """Rename an existing cache to a temporary name in one step; ``_clean`` removes it."""
    if folder.exists():
        folder.rename(_sibling(folder))


def _allocate(folder: Path, layout: Layout) -> CacheArrays:
    shapes = layout.shapes()
    dtype, shape = shapes.pop("images")
    path = folder / IMAGES
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    _reserve(path)
    small = {name: np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()}
    return CacheArrays(images_file=path, images=images, pose=small.pop("pose", None), **small)


def _reserve(path: Path) -> None:
    """Allocate the file's disk space, so that a full disk raises OSError now rather than a signal on a later write."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _finish(folder: Path, arrays: CacheArrays, layout: Layout, identity: dict[str, Json]) -> None:
    """Write the small arrays and the manifest, and sync every file and the folder."""
    arrays.images.flush()  # type: ignore[attr-defined]  # it is a memory map
    for name in layout.shapes():
        if name != "images":
            np.save(folder / f"{name}.npy", getattr(arrays, name), allow_pickle=False)
    manifest = Manifest(
        identity=identity,
        layout=layout,
        digest=images_digest(arrays.images, arrays.labels),
        sha256={path.name: file_sha256(path, follow_link=True) for path in sorted(folder.glob("*.npy"))},
    )
    write_manifest(folder, manifest)
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def _read_small(folder: Path, name: str, manifest: Manifest) -> NDArray[Any]:
    """Read one of the small arrays, check its digest, type and shape, and return it read-only."""
    path = folder / f"{name}.npy"
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest.sha256.get(path.name):
            raise _changed(path)
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except ARRAY_ERRORS as error:
        raise DataCorruptError(f"{path} cannot be read ({error})", remedy=REMEDY) from error
    _check_layout(path, array, manifest.layout.shapes()[name])
    array.flags.writeable = False
    return array


def _map_images(folder: Path, manifest: Manifest) -> tuple[NDArray[np.uint8], _Watch]:
    path = folder / IMAGES
    try:
        images = np.lib.format.open_memmap(path, mode="r")
        size = path.stat().st_size
    except ARRAY_ERRORS as error:
        raise DataCorruptError(f"{path} cannot be read ({error})", remedy=REMEDY) from error
    _check_layout(path, images, manifest.layout.shapes()["images"])
    if size != images.offset + images.nbytes:
        problem = f"{path} has {size} bytes instead of {images.offset + images.nbytes}"
        raise DataCorruptError(problem, remedy=REMEDY)
    watch = _Watch(path=path, mark=file_mark(path), sha256=manifest.sha256[IMAGES])
    seen = remembered_digests(
        folder / SEEN, {IMAGES: watch.mark}, lambda _: iter((file_sha256(path, follow_link=True),)), total_bytes=size
    )
    if seen[IMAGES] != watch.sha256:
        raise _changed(path)
    return images, watch


def _check_layout(path: Path, array: NDArray[Any], layout: tuple[str, tuple[int, ...]]) -> None:
    dtype, shape = layout
    if array.dtype != np.dtype(dtype) or array.shape != shape or not array.flags.c_contiguous:
        found = f"{array.dtype} {array.shape}"
        raise DataCorruptError(f"{path} holds {found} instead of {np.dtype(dtype)} {shape}", remedy=REMEDY)
