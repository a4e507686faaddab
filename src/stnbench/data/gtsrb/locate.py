"""Where the two halves lie below a folder: the extracted tree first, then the official archives."""

import re
from dataclasses import dataclass
from pathlib import Path

from stnbench.core.errors import DataMissingError
from stnbench.data.gtsrb.files import Files, FolderFiles, ZipFiles
from stnbench.data.gtsrb.official import TEST_ARCHIVE, TEST_TRUTH_ARCHIVE, TRAIN_ARCHIVE

PREPARE = "python -m stnbench.data prepare gtsrb"
TRUTH = "GT-final_test.csv"
TRUTH_WITHOUT_CLASSES = "GT-final_test.test.csv"
CLASS_FOLDER = re.compile(r"\d{5}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledImages:
    """The test half's images and the one table with their classes."""

    images: Files
    truth: Files
    truth_name: str


def find_train(root: Path) -> Files | None:
    """The training images below ``root``: a folder or an archive with one folder a class; None if there are none.

    ``root`` may be the folder that holds ``GTSRB/``, ``GTSRB`` itself, ``Final_Training``, the folder that holds the
    class folders, or the folder with the archives.
    """
    for folder in (*(place / "Final_Training" / "Images" for place in _places(root)), root / "Images", root):
        if _has_classes(folder):
            return FolderFiles(folder)
    return _find_archive(root, TRAIN_ARCHIVE.name, TRAIN_ARCHIVE.prefix)


def missing_train(root: Path) -> DataMissingError:
    """The error for a folder without training images; it says so if torchvision's other set is there instead."""
    other = next((place / "Training" for place in _places(root) if _has_classes(place / "Training")), None)
    problem = f"the GTSRB training images (GTSRB/Final_Training/Images) are not below {root}"
    if other is not None:
        problem += f" (there is {other}, torchvision's smaller set of the online competition; name it to use it)"
    return DataMissingError(problem, remedy=f"run '{PREPARE} --root DIR' with the folder they are in, or --download")


def find_test(root: Path) -> LabelledImages | None:
    """The test images below ``root`` with their classes; None if there are no images.

    The table may lie beside the images, in ``GTSRB/``, in ``root`` or its parent, or in its own archive.
    Raises: DataMissingError if there are images, and no table with their classes.
    """
    images = _find_test_images(root)
    if images is None:
        return None
    beside = images.folder if isinstance(images, FolderFiles) else root
    folders = (beside, beside.parent, beside.parent.parent, *_places(root), root.parent)
    for folder in folders:
        if (folder / TRUTH).is_file():
            return LabelledImages(images=images, truth=FolderFiles(folder), truth_name=TRUTH)
    archive = _find_archive(root, TEST_TRUTH_ARCHIVE.name, "")
    if archive is not None and TRUTH in archive.names():
        return LabelledImages(images=images, truth=archive, truth_name=TRUTH)
    problem = f"the classes of the GTSRB test images ({TRUTH}) are not below {root}"
    if TRUTH_WITHOUT_CLASSES in images.names():
        problem += f" ({images.full_name(TRUTH_WITHOUT_CLASSES)} is there, but has no classes)"
    remedy = f"put {TEST_TRUTH_ARCHIVE.name} there, or run '{PREPARE} --download'"
    raise DataMissingError(problem, remedy=remedy)


def missing_test(root: Path) -> DataMissingError:
    """The error for a folder without test images."""
    problem = f"the GTSRB test images (GTSRB/Final_Test/Images) are not below {root}"
    return DataMissingError(problem, remedy=f"run '{PREPARE} --root DIR' with the folder they are in, or --download")


def _places(root: Path) -> tuple[Path, ...]:
    """Folders that may hold ``Final_Training`` and ``Final_Test``; torchvision puts them below ``gtsrb/GTSRB``."""
    inside = (root.parent,) if root.name in {"Final_Training", "Final_Test"} else ()
    return (root / "GTSRB", root / "gtsrb" / "GTSRB", root, *inside)


def _has_classes(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return any(CLASS_FOLDER.fullmatch(inner.name) and any(inner.glob("GT-*.csv")) for inner in sorted(folder.iterdir()))


def _find_test_images(root: Path) -> FolderFiles | ZipFiles | None:
    for place in _places(root):
        folder = place / "Final_Test" / "Images"
        if folder.is_dir() and any(folder.glob("*.ppm")):
            return FolderFiles(folder)
    return _find_archive(root, TEST_ARCHIVE.name, TEST_ARCHIVE.prefix)


def _find_archive(root: Path, name: str, prefix: str) -> ZipFiles | None:
    for folder in (root, root / "GTSRB", root / "gtsrb"):
        if (folder / name).is_file():
            return ZipFiles(folder / name, prefix)
    return None
