"""What the official files are: names, counts and checksums.

Counts: the benchmark's own page and Readme, and Stallkamp et al., "Man vs. computer", Neural Networks 32, 2012. The
checksums of the test archives are those torchvision ships; that of the training archive is the one that public
downloaders agree on. torchvision's own training archive is another set, of 26,640 images.
"""

from dataclasses import dataclass

BASE_URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"

TRAIN_IMAGES = 39_209
TRAIN_TRACKS = 1_307
TEST_IMAGES = 12_630
TORCHVISION_TRAIN_IMAGES = 26_640

TRAIN_CONTENT_DIGEST = "d8a3eaf0d50169e55a1ee0d5ad56e0fb1591d10828441719d126cbd5a03e1ee0"
"""``content_digest`` of the training half: annotations and bytes of every image; the copy it was computed from has the
official counts, but was itself a folder and not the archive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """One official archive.

    Attributes:
        name: file name, also the last part of its address.
        md5: of the whole file, 32 hexadecimal digits.
        prefix: folder of the images inside it, with a slash at the end; empty for the archive of annotations.
    """

    name: str
    md5: str
    prefix: str


TRAIN_ARCHIVE = Archive(
    name="GTSRB_Final_Training_Images.zip",
    md5="f33fd80ac59bff73c82d25ab499e03a3",
    prefix="GTSRB/Final_Training/Images/",
)
TEST_ARCHIVE = Archive(
    name="GTSRB_Final_Test_Images.zip",
    md5="c7e4e6327067d32654124b0fe9e82185",
    prefix="GTSRB/Final_Test/Images/",
)
TEST_TRUTH_ARCHIVE = Archive(name="GTSRB_Final_Test_GT.zip", md5="fe31e9c9270bbcd7b84b7f21a9d9d9e5", prefix="")

ARCHIVES = (TRAIN_ARCHIVE, TEST_ARCHIVE, TEST_TRUTH_ARCHIVE)
