"""Records of the code that trained trials, stored when a sweep starts and exported for a trial.

``runs/sources/`` holds one record for each process that ran a sweep, named by its session, which is the prefix of the
tokens of its attempts; and each diff from the commit once, named by its digest. Files that git does not track are named
and never read, because they may contain secrets.
"""

import contextlib
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from stnbench.core.errors import FolderError
from stnbench.core.files import RunsLayout, writable_folder, write_atomic
from stnbench.core.identity import DIGEST_LENGTH, Changes, code_version, git_bytes, read_changes, run_git
from stnbench.spec.codec import Strict, from_stored, to_json

MAX_BYTES: Final = 4 << 20
"""Maximum size of the differences from a commit; of larger ones only the names of the files are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRecord(Strict):
    """Record of the code with which a process ran a sweep.

    Attributes:
        sweep: name of the sweep.
        started_at: start time, as ISO 8601.
        commit: as results record it: 40 hexadecimal digits, ``wheel X`` or ``unknown``.
        dirty: whether files that affect results differed from the commit.
        diff: the digest of the differences; empty if there were none, or they were not kept.
        left_out: tracked files that differed and are not in the diff: binary, or too large together.
        untracked: files that git did not track.
    """

    sweep: str
    started_at: str
    commit: str
    dirty: bool
    diff: str = ""
    left_out: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A record with the text of the differences; empty if there were none, or they were not kept."""

    record: SourceRecord
    diff: str


def keep_sources(
    layout: RunsLayout, *, session: str, sweep: str, at: datetime, package: Path, warn: Callable[[str], None]
) -> SourceRecord | None:
    """Store the record of the running code; if the folder cannot be written, warn and return None."""
    code = code_version(package)
    changes = read_changes(package, max_bytes=MAX_BYTES) if code.dirty else Changes(diff="")
    changes = changes or Changes(diff="")
    data = changes.diff.encode()
    digest = diff_digest(data) if data else ""
    record = SourceRecord(
        sweep=sweep,
        started_at=at.isoformat(),
        commit=code.commit,
        dirty=code.dirty,
        diff=digest,
        left_out=changes.left_out,
        untracked=changes.untracked,
    )
    try:
        layout.sources.mkdir(parents=True, exist_ok=True)
        if digest and not _diff_path(layout, digest).exists():
            write_atomic(_diff_path(layout, digest), data)
        write_atomic(_record_path(layout, session), to_json(record).encode())
    except OSError as error:
        warn(f"the sources are not kept: {layout.sources} cannot be written ({error.strerror or error})")
        return None
    return record


def find_source(layout: RunsLayout, token: str) -> Source:
    """Return the code with which the attempt of a token was started.

    Raises:
        FolderError: if it was not kept, or is damaged.
        SpecError: if the record is not valid.
    """
    path = _record_path(layout, token.rpartition("-")[0])
    try:
        record = from_stored(SourceRecord, path.read_bytes(), where=str(path))
    except OSError as error:
        problem = f"the code of attempt {token} was not kept ({path}: {error.strerror or error})"
        raise FolderError(problem, remedy="older versions kept none; the commit stands beside its result") from error
    if not record.diff:
        return Source(record=record, diff="")
    kept = _diff_path(layout, record.diff)
    try:
        data = kept.read_bytes()
    except OSError as error:
        problem = f"what differed from the commit cannot be read ({kept}: {error.strerror or error})"
        raise FolderError(problem, remedy=f"the commit was {record.commit}") from error
    if diff_digest(data) != record.diff:
        raise FolderError(f"{kept} has changed since it was kept", remedy=f"the commit was {record.commit}")
    return Source(record=record, diff=data.decode(errors="replace"))


def write_sources(source: Source, out: Path, *, package: Path) -> tuple[str, ...]:
    """Write a trial's code into an empty folder: record, diff, and the tree of the commit with the diff applied.

    Returns:
        Messages about files that could not be written; empty if the tree is the code that ran.

    Raises:
        FolderError: if the folder is not empty or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FolderError(f"{out} is not empty", remedy="name a new folder with --out")
    writable_folder(out, "the sources", remedy="name another folder with --out")
    record = source.record
    write_atomic(out / "source.json", to_json(record).encode())
    if source.diff:
        write_atomic(out / "changes.diff", source.diff.encode())
    problems = [f"{name} differed from the commit and was not kept" for name in record.left_out]
    problems += [f"{name} was not tracked by git, and may have taken part" for name in record.untracked]
    top = run_git(package, "rev-parse", "--show-toplevel") if _is_commit(record.commit) else None
    packed = git_bytes(Path(top), "archive", "--format=tar", record.commit) if top else None
    if packed is None:
        return (f"the commit {record.commit} is not in a checkout here, so its files are not written", *problems)
    tree = out / "tree"
    tree.mkdir()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(tree, filter="data")
    if source.diff and not _apply(tree, out / "changes.diff"):
        problems.insert(0, "changes.diff cannot be applied to the commit, and is not in the tree")
    return tuple(problems)


def source_lines(source: Source) -> Sequence[str]:
    """Return a record as plain lines."""
    record = source.record
    state = "with changes" if record.dirty else "without changes"
    lines = [f"commit {record.commit}, {state}", f"sweep {record.sweep}, started {record.started_at}"]
    lines += [f"not in the diff: {name}" for name in record.left_out]
    lines += [f"not tracked: {name}" for name in record.untracked]
    return lines


def _apply(tree: Path, diff: Path) -> bool:
    """Apply a diff to a tree, isolated from any surrounding repository; return whether it applies."""
    command = ["git", "-c", "core.fsmonitor=false", "apply", "--whitespace=nowarn", str(diff.resolve())]
    environment = {
        "GIT_DIR": "/dev/null",
        "GIT_CEILING_DIRECTORIES": str(tree.resolve().parent),
        "PATH": os.environ.get("PATH", os.defpath),
    }
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, check=False, timeout=60)  # noqa: S603 - fixed words
        return done.returncode == 0
    return False


def _is_commit(text: str) -> bool:
    return len(text) in (40, 64) and all(letter in "0123456789abcdef" for letter in text)


def record_name(session: str) -> str:
    """Return the file name of the record of a session."""
    return f"{''.join(letter for letter in session if letter.isalnum() or letter in '-_')}.json"


def diff_digest(data: bytes) -> str:
    """Return the digest that names differences."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_LENGTH]


def _record_path(layout: RunsLayout, session: str) -> Path:
    return layout.sources / record_name(session)


def _diff_path(layout: RunsLayout, digest: str) -> Path:
    return layout.sources / f"{digest}.diff"
