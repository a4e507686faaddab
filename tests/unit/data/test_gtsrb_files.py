"""Files in folders and archives: read by name, never outside their place."""

import zipfile
from pathlib import Path

import pytest

from stnbench.core.errors import DataCorruptError
from stnbench.data.gtsrb import archive as module
from stnbench.data.gtsrb.archive import FolderFiles, ZipFiles, leaves_folder


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    """An archive of the members."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_folder_and_archive_say_the_same(tmp_path: Path) -> None:
    """Names one folder deep, sorted, and their content."""
    (tmp_path / "in" / "b" / "deep").mkdir(parents=True)
    for name in ("z.csv", "b/a.ppm", "b/deep/no.ppm"):
        (tmp_path / "in" / name).write_bytes(name.encode())
    members = {f"in/{name}": name.encode() for name in ("z.csv", "b/a.ppm", "b/deep/no.ppm")}
    archive = write_zip(tmp_path / "x.zip", {"in/": b"", "out.txt": b"", **members})
    for place in (FolderFiles(tmp_path / "in"), ZipFiles(archive, "in/")):
        assert place.names() == ["b/a.ppm", "z.csv"]
        assert list(place.read(["z.csv", "b/a.ppm"])) == [b"z.csv", b"b/a.ppm"]


STRAY = ["b/._a.ppm", "b/.DS_Store", "._z.csv", ".ipynb_checkpoints/a.ppm", "__MACOSX/a.ppm", "b/.a.ppm.swp"]
STRAY += ["b/@eaDir/a.ppm", "lost+found/a.ppm", "b/~$z.csv", "#recycle/a.ppm"]


def test_what_systems_and_editors_leave_beside_images_is_left_out(tmp_path: Path) -> None:
    """MacOS puts ``._name`` beside every file on shares and into archives; extracting again brings it back."""
    names = ["b/a.ppm", "z.csv", *STRAY]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    archive = write_zip(tmp_path / "x.zip", {f"in/{name}": b"" for name in names})
    for place in (FolderFiles(tmp_path / "in"), ZipFiles(archive, "in/")):
        assert place.names() == ["b/a.ppm", "z.csv"]


@pytest.mark.parametrize("member", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "C:/evil", "C:evil"])
def test_members_that_leave_the_folder_are_refused(tmp_path: Path, member: str) -> None:
    """An archive with such a member is not read at all."""
    archive = write_zip(tmp_path / "x.zip", {member: b"", "in/a.ppm": b""})
    with pytest.raises(DataCorruptError, match="leaves its folder"):
        ZipFiles(archive, "in/").names()


def test_dots_in_names_are_harmless() -> None:
    """Only a part that is two dots leads up."""
    assert not leaves_folder("a..b/..c.ppm")
    assert leaves_folder("a/..")


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    """A cut download is such a file."""
    path = tmp_path / "x.zip"
    path.write_bytes(write_zip(tmp_path / "y.zip", {"in/a.ppm": b"1" * 999}).read_bytes()[:500])
    with pytest.raises(DataCorruptError, match=r"x\.zip is no whole zip archive"):
        ZipFiles(path, "in/").names()


def test_a_changed_member_is_named(tmp_path: Path) -> None:
    """The archive's own checksum finds a flipped bit."""
    path = write_zip(tmp_path / "x.zip", {"in/a.ppm": b"1" * 999})
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataCorruptError, match=r"in/a\.ppm cannot be read"):
        list(ZipFiles(path, "in/").read(["a.ppm"]))


def test_missing_files_are_named(tmp_path: Path) -> None:
    """In a folder and in an archive."""
    with pytest.raises(DataCorruptError, match=r"a\.ppm cannot be read"):
        list(FolderFiles(tmp_path).read(["a.ppm"]))
    with pytest.raises(DataCorruptError, match=r"in/a\.ppm is not in the archive"):
        list(ZipFiles(write_zip(tmp_path / "x.zip", {}), "in/").read(["a.ppm"]))
    with pytest.raises(DataCorruptError, match="cannot be read"):
        FolderFiles(tmp_path / "none").names()


def test_huge_members_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small archive cannot fill the memory."""
    monkeypatch.setattr(module, "MAX_MEMBER_BYTES", 100)
    archive = write_zip(tmp_path / "x.zip", {"in/a.ppm": b"1" * 101})
    with pytest.raises(DataCorruptError, match="101 bytes, more than 100"):
        list(ZipFiles(archive, "in/").read(["a.ppm"]))
