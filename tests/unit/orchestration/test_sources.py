"""The code that trained a trial is kept once, without secrets, and comes back as it was."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stnbench.core.errors import FolderError, StnbenchError
from stnbench.core.files import RunsLayout
from stnbench.core.identity import code_version, read_changes
from stnbench.orchestration import sources
from stnbench.orchestration.sources import SourceRecord, find_source, keep_sources, source_lines, write_sources

NOW = datetime(2026, 5, 1, tzinfo=UTC)
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """Nothing is kept from one test to the next."""
    code_version.cache_clear()
    yield
    code_version.cache_clear()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a checkout with one commit: modules, a configuration, a picture, and notes beside them."""
    root = tmp_path / "checkout"
    files = {"src/package/__init__.py": b"", "src/package/a.py": b"a = 1\n", "conf/trial.yaml": b"epochs: 1\n"}
    files |= {"src/package/b c.py": b"b = 1\n", "src/package/picture.png": b"\x89PNG\0\1", "notes.txt": b"secret? no\n"}
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(root), *command], check=True, timeout=30)
    return root / "src" / "package"


def keep(layout: RunsLayout, package: Path, session: str = "abc") -> SourceRecord:
    """Keep the sources, as the start of a sweep does."""
    code_version.cache_clear()
    record = keep_sources(layout, session=session, sweep="s", at=NOW, package=package, warn=pytest.fail)
    assert record is not None
    return record


def tree_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for git's own."""
    paths = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_clean_commit_comes_back_as_it_was(package: Path, tmp_path: Path) -> None:
    """The record names it, no diff is kept, and the tree is that of the commit, also after the next edit."""
    layout = RunsLayout(tmp_path / "runs")
    record = keep(layout, package)
    root = package.parents[1]
    before = tree_of(root)
    (package / "a.py").write_text("a = 2\n")
    problems = write_sources(find_source(layout, "abc-7"), tmp_path / "out", package=package)

    assert (len(record.commit), record.dirty, record.diff) == (40, False, "")
    assert problems == ()
    assert tree_of(tmp_path / "out" / "tree") == before
    assert [path.name for path in layout.sources.iterdir()] == ["abc.json"]


def test_changes_are_kept_once_and_applied(package: Path, tmp_path: Path) -> None:
    """Edited, removed, new and staged files, one whose name has a space, whatever the user's git is set to."""
    layout, root = RunsLayout(tmp_path / "runs"), package.parents[1]
    for key, value in (("diff.noprefix", "true"), ("color.ui", "always"), ("diff.external", "false")):
        subprocess.run(["git", "-C", str(root), "config", key, value], check=True, timeout=30)
    (package / "a.py").write_text("a = 2  # größer\n")
    (package / "b c.py").unlink()
    (root / "conf" / "trial.yaml").write_text("epochs: 2")
    (package / "new.py").write_text("n = 1\n")
    subprocess.run(["git", "-C", str(root), "add", "src/package/new.py"], check=True, timeout=30)
    records = [keep(layout, package, session) for session in ("one", "two")]
    problems = write_sources(find_source(layout, "two-1"), tmp_path / "out", package=package)

    assert records[0].diff == records[1].diff != ""
    assert len(list(layout.sources.glob("*.diff"))) == 1
    assert problems == ()
    assert tree_of(tmp_path / "out" / "tree") == tree_of(root)


def test_only_what_git_tracks_is_read(package: Path, tmp_path: Path) -> None:
    """An untracked file is named and not read, an ignored one is not named, nothing beside the code is looked at."""
    layout, root = RunsLayout(tmp_path / "runs"), package.parents[1]
    (package / "token.txt").write_text("hunter2")
    (package / "ignored.py").write_text("hunter2")
    (root / ".git" / "info" / "exclude").write_text("ignored.py\n")
    (root / "notes.txt").write_text("hunter2")
    record = keep(layout, package)

    assert record.dirty
    assert record.untracked == ("src/package/token.txt",)
    assert all(b"hunter2" not in path.read_bytes() for path in layout.sources.iterdir())
    problems = write_sources(find_source(layout, "abc-1"), tmp_path / "out", package=package)
    assert problems == ("src/package/token.txt was not tracked by git, and may have taken part",)


def test_binary_and_large_changes_are_named(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is kept beside a picture that changed; of changes that are too large only the names are."""
    layout = RunsLayout(tmp_path / "runs")
    (package / "picture.png").write_bytes(b"\x89PNG\0\2")
    (package / "a.py").write_text("a = 3\n")
    record = keep(layout, package)
    assert record.left_out == ("src/package/picture.png",)
    assert "a = 3" in find_source(layout, "abc-1").diff
    assert "not in the diff: src/package/picture.png" in source_lines(find_source(layout, "abc-1"))

    monkeypatch.setattr(sources, "MAX_BYTES", 10)
    large = keep(layout, package, "large")
    assert large.diff == ""
    assert large.left_out == ("src/package/a.py", "src/package/picture.png")
    (package / "a.py").write_bytes("größer".encode("latin-1"))
    changes = read_changes(package, max_bytes=1 << 20)
    assert changes is not None
    assert changes.diff == ""


def test_damage_and_absence_are_told(package: Path, tmp_path: Path) -> None:
    """A token of an older version, a diff that was cut or removed, a record that is none, a folder with files."""
    layout = RunsLayout(tmp_path / "runs")
    (package / "a.py").write_text("a = 2\n")
    keep(layout, package)
    with pytest.raises(FolderError, match="was not kept"):
        find_source(layout, "../abc/x-1")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("")
    with pytest.raises(FolderError, match="is not empty"):
        write_sources(find_source(layout, "abc-1"), tmp_path / "out", package=package)
    (diff,) = layout.sources.glob("*.diff")
    diff.write_text("x")
    with pytest.raises(FolderError, match="has changed since it was kept"):
        find_source(layout, "abc-1")
    diff.unlink()
    with pytest.raises(FolderError, match="cannot be read"):
        find_source(layout, "abc-1")
    (layout.sources / "abc.json").write_text("{")
    with pytest.raises(StnbenchError):
        find_source(layout, "abc-1")


def test_a_commit_that_is_not_here_leaves_the_diff(package: Path, tmp_path: Path) -> None:
    """As for an installed package, or a store from another machine."""
    layout = RunsLayout(tmp_path / "runs")
    (package / "a.py").write_text("a = 2\n")
    keep(layout, package)
    problems = write_sources(find_source(layout, "abc-1"), tmp_path / "out", package=tmp_path)
    assert "is not in a checkout here" in problems[0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["changes.diff", "source.json"]

    code_version.cache_clear()
    installed = keep(layout, tmp_path, "wheel")
    assert installed.commit.startswith("wheel ")


def test_a_folder_that_cannot_be_written_stops_no_sweep(package: Path, tmp_path: Path) -> None:
    """It is told of."""
    told: list[str] = []
    (tmp_path / "runs").write_text("a file")
    layout = RunsLayout(tmp_path / "runs")
    assert keep_sources(layout, session="s", sweep="s", at=NOW, package=package, warn=told.append) is None
    assert "the sources are not kept" in told[0]
    assert layout.root.is_file()
