"""What a cache says about itself: the manifest, the digests, and the layout of its arrays."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stnbench.core.errors import DataCorruptError, DataMissingError
from stnbench.core.identity import DIGEST_LENGTH, Json, canonical_json

FORMAT_VERSION = 1
"""Raised when the files of a cache change their meaning: older caches are then made again."""

MANIFEST = "manifest.json"
REMEDY = "delete its folder and run 'python -m stnbench.data prepare' again"
_HASH_CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The shapes of a cache.

    Attributes:
        count: images.
        image_size: side of an image in pixels.
        channels: of an image.
        has_pose: whether the homographies are known.
        has_control_points: whether the images are distorted by thin plate splines.
    """

    count: int
    image_size: int
    channels: int = 3
    has_pose: bool
    has_control_points: bool = False

    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of every array of the cache by its name."""
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
    """What a cache says about itself.

    Attributes:
        identity: what the cache was made from and how, as JSON values.
        layout: the shapes of its arrays.
        digest: the ``ImageSet``'s digest.
        sha256: SHA-256 of each file by its name, 64 hexadecimal digits.
    """

    identity: dict[str, Json]
    layout: Layout
    digest: str
    sha256: dict[str, str]

    def describes(self, identity: dict[str, Json]) -> bool:
        """Whether the cache was made from just this."""
        return canonical_json(self.identity) == canonical_json(identity)


def read_manifest(folder: Path) -> Manifest | None:
    """What the cache in ``folder`` says about itself; None if it was written by another version of stnbench.

    Raises: DataMissingError if there is no cache; DataCorruptError if the manifest is missing or not whole.
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
    """Write the manifest of a cache, with a checksum of its own."""
    plain: dict[str, Json] = {"format": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    plain |= dataclasses.asdict(manifest.layout)  # beside the rest, where older caches have it
    del plain["layout"]
    text = json.dumps(plain | {"checksum": _checksum(plain)}, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _checksum(plain: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


def images_digest(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """SHA-256 over the pixels and then the labels (little-endian int64), its first 16 hexadecimal digits."""
    sha = hashlib.sha256()
    for start in range(0, len(images), 1024):
        sha.update(np.ascontiguousarray(images[start : start + 1024]).data)
    sha.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return sha.hexdigest()[:DIGEST_LENGTH]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()
