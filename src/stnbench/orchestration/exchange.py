"""Export of sweeps from a runs folder and merge into another, as an archive or directly: rows of the store, and files.

An archive (``.stnb``) is a zip file: ``manifest.json`` names every other member with its size and SHA-256,
``rows.jsonl`` holds rows of the store, ``trials/`` holds files and ``sources/`` records of code in the layout of a runs
folder. All of it is checked before anything is written, nothing in it is executed, and no name in it leads out of these
folders.
"""

import contextlib
import hashlib
import json
import re
import shutil
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

from typing_extensions import override

from stnbench.core.errors import FolderError, StnbenchError, StoreError
from stnbench.core.files import RunsLayout, sync_folder, write_atomic
from stnbench.core.identity import RESULTS_VERSION, Json
from stnbench.orchestration.sources import SourceRecord, diff_digest, record_name
from stnbench.spec.codec import from_json, from_stored
from stnbench.spec.result import Environment, TransformerHealth
from stnbench.spec.sweep import Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.merge import MergePlan, Reproduction, of_sweeps, plan_merge, without_running
from stnbench.store.portable import KEYS, Row, Rows, decode, drop_orphans, key_of, require_insertable
from stnbench.store.store import Store
from stnbench.store.tables import REVISIONS

FORMAT: Final = 2
"""The first format had no sources."""

MANIFEST: Final = "manifest.json"
ROWS: Final = "rows.jsonl"
FILES: Final = ("spec.json", "result.json", "probabilities_validation.npy", "probabilities_test.npy", "snapshots.npy")
CHECKPOINT: Final = "checkpoint.pt"
MANIFEST_MAX_BYTES: Final = 1 << 28
MEMBER_MAX_BYTES: Final = 1 << 33
JSON_COLUMNS: Final[tuple[tuple[str, str, type], ...]] = (
    ("sweep_trials", "point", Point),
    ("environments", "environment", Environment),
    ("epochs", "health", tuple[TransformerHealth, ...]),
)
_MEMBER: Final = re.compile(
    rf"trials/([0-9a-f]{{8,64}})/(\d{{3,6}})/({'|'.join(map(re.escape, (*FILES, CHECKPOINT)))})"
)
_SOURCE: Final = re.compile(r"sources/([0-9A-Za-z_-]{1,80}\.(?:json|diff))")
_CHUNK: Final = 1 << 20
_REMEDY: Final = "export it again"


class Source(ABC):
    """Source of rows and files from outside the runs folder."""

    @property
    @abstractmethod
    def rows(self) -> Rows:
        """Return the rows, which have been checked."""

    @abstractmethod
    def names(self, trial_id: str, number: int) -> Sequence[str]:
        """Return the names of the files of an attempt."""

    @abstractmethod
    def open(self, trial_id: str, number: int, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open one of the files of an attempt.

        Raises:
            OSError: if a file cannot be read or written.
        """

    @abstractmethod
    def read_code(self, name: str) -> bytes | None:
        """Return a file of the code of trials (``orchestration/sources.py``) by its name, or None if there is none."""


class FolderSource(Source):
    """A runs folder as a source; another process may write its store while it is read."""

    def __init__(self, layout: RunsLayout, sweeps: Sequence[str] | None, *, checkpoints: bool, now: datetime) -> None:
        self._layout = layout
        self._names = (*FILES, CHECKPOINT) if checkpoints else FILES
        with Store.open(layout.store, writable=False) as store:
            known = [record.spec.name for record in store.sweeps()]
            for sweep in sweeps or ():
                store.trial_ids(sweep)  # raises an error that lists the sweeps if this one does not exist
            rows = store.rows(KEYS)
        self._rows = without_running(of_sweeps(rows, known if sweeps is None else sweeps), now.isoformat())

    @property
    @override
    def rows(self) -> Rows:
        return self._rows

    @override
    def names(self, trial_id: str, number: int) -> Sequence[str]:
        folder = self._layout.attempt(trial_id, number)
        return [name for name in self._names if (folder / name).is_file()]

    @override
    def open(self, trial_id: str, number: int, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        return (self._layout.attempt(trial_id, number) / name).open("rb")

    @override
    def read_code(self, name: str) -> bytes | None:
        try:
            return (self._layout.sources / name).read_bytes()
        except OSError:
            return None


class ArchiveSource(Source):
    """An archive as a source, which has been checked completely.

    Raises:
        StoreError: if the file is not an archive, was changed, or was made by a newer stnbench.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
            manifest = self._read_manifest()
            self._check_members(manifest)
            self._rows = self._read_rows(manifest)
        except FileNotFoundError as error:
            raise StoreError(f"there is no archive {path}", remedy="give the path of a .stnb file") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise self._refused(f"cannot be read ({error})") from error
        self._files: dict[tuple[str, int], list[str]] = {}
        for name in sorted(manifest["files"]):
            found = _MEMBER.fullmatch(name)
            if found is not None:
                self._files.setdefault((found[1], int(found[2])), []).append(found[3])

    @property
    @override
    def rows(self) -> Rows:
        return self._rows

    @override
    def names(self, trial_id: str, number: int) -> Sequence[str]:
        return self._files.get((trial_id, number), [])

    @override
    def open(self, trial_id: str, number: int, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        return self._zip.open(_member(trial_id, number, name))

    @override
    def read_code(self, name: str) -> bytes | None:
        try:
            return self._zip.read(f"sources/{name}")
        except KeyError:
            return None

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def _refused(self, why: str) -> StoreError:
        return StoreError(f"the archive {self._path} {why}", remedy=_REMEDY)

    def _read_manifest(self) -> dict[str, Any]:
        names = self._zip.namelist()
        if MANIFEST not in names or self._zip.getinfo(MANIFEST).file_size > MANIFEST_MAX_BYTES:
            raise self._refused(f"has no {MANIFEST}")
        try:
            manifest = json.loads(self._zip.read(MANIFEST))
            version, revision, files = manifest["format"], manifest["revision"], manifest["files"]
            sizes = {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._refused(f"has a {MANIFEST} that says nothing ({type(error).__name__})") from error
        results = manifest.get("results_version", 0)
        is_older = isinstance(results, int) and results <= RESULTS_VERSION
        if version not in range(1, FORMAT + 1) or revision not in REVISIONS or not is_older:
            problem = f"the archive {self._path} has format {version}, revision {revision}, results version {results}"
            ours = f"this stnbench reads up to format {FORMAT}, revision {REVISIONS[-1]}, results {RESULTS_VERSION}"
            raise StoreError(f"{problem}, {ours}", remedy="a newer stnbench made it: update stnbench")
        self._check_names(names, sizes)
        return dict(manifest)

    def _check_names(self, names: Sequence[str], sizes: Mapping[str, tuple[Any, Any]]) -> None:
        """Check that the members are those of the manifest, with valid names and sizes."""
        if len(names) != len(set(names)) or set(names) != {MANIFEST, *sizes}:
            raise self._refused("has members that its manifest does not name, or lacks some")
        for name, (size, digest) in sizes.items():
            if name != ROWS and _MEMBER.fullmatch(name) is None and _SOURCE.fullmatch(name) is None:
                raise self._refused(f"has a member '{name[:80]}', which no archive has")
            if not isinstance(size, int) or not 0 <= size <= MEMBER_MAX_BYTES or not isinstance(digest, str):
                raise self._refused(f"says nothing of the size of {name}")
            if self._zip.getinfo(name).file_size != size:
                raise self._refused(f"has a {name} of another size than its manifest says")
        if ROWS not in sizes:
            raise self._refused(f"has no {ROWS}")

    def _check_members(self, manifest: Mapping[str, Any]) -> None:
        """Read every member once and check its size and digest.

        Raises:
            StoreError: if the digest or size of a member is not that of the manifest.
        """
        for name, entry in manifest["files"].items():
            sha, size = hashlib.sha256(), 0
            with self._zip.open(name) as member:
                while chunk := member.read(_CHUNK):
                    sha.update(chunk)
                    size += len(chunk)
                    if size > entry["size"]:
                        break
            if size != entry["size"] or sha.hexdigest() != entry["sha256"]:
                raise self._refused(f"has been changed: {name} is not as its manifest says")

    def _read_rows(self, manifest: Mapping[str, Any]) -> Rows:
        rows: Rows = {table: {} for table in KEYS}
        with self._zip.open(ROWS) as member:
            for line in member:
                try:
                    table, row = json.loads(line)
                    key = key_of(table, row)
                    decode(table, row, where=str(self._path))
                    is_new = key not in rows[table]
                    rows[table][key] = row
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise self._refused(f"has a line in {ROWS} that is no row ({type(error).__name__})") from error
                if not is_new:
                    raise self._refused(f"has a row of {table} twice")
        _check_rows(rows, self._path, same_version=manifest.get("results_version") == RESULTS_VERSION)
        return rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """Counts of the sweeps and trials that a merge brought into a store."""

    sweeps: int
    taken: int
    replaced: int
    known: int
    reproduced: tuple[Reproduction, ...]


def export_sweeps(
    layout: RunsLayout, sweeps: Sequence[str], out: Path, *, checkpoints: bool, now: datetime
) -> tuple[int, int]:
    """Write sweeps into an archive atomically and return its number of trials and of files.

    Raises:
        UnknownNameError: if the store does not have a sweep.
        StoreError: if the store cannot be read.
        FolderError: if the archive cannot be written.
    """
    source = FolderSource(layout, sweeps, checkpoints=checkpoints, now=now)
    temporary = out.with_name(f".{out.name}.tmp")
    files: dict[str, Json] = {}
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            text = "".join(f"{json.dumps([table, row])}\n" for table in KEYS for row in source.rows[table].values())
            files[ROWS] = _add(archive, ROWS, text.encode())
            for trial_id, number in _attempts(source.rows):
                for name in source.names(trial_id, number):
                    with source.open(trial_id, number, name) as file:
                        member = _member(trial_id, number, name)
                        files[member] = _add(archive, member, file.read())
            for name, data in _code_of(source).items():
                files[f"sources/{name}"] = _add(archive, f"sources/{name}", data)
            manifest: dict[str, Json] = {"format": FORMAT, "revision": REVISIONS[-1], "files": files}
            manifest |= {"results_version": RESULTS_VERSION, "sweeps": list(sweeps), "made_at": now.isoformat()}
            _add(archive, MANIFEST, json.dumps(manifest, indent=1).encode())
        temporary.replace(out)
        sync_folder(out.absolute().parent)
    except OSError as error:
        problem = f"the archive {out} cannot be written ({error.strerror or error})"
        raise FolderError(problem, remedy="give another path, or make room") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return len(source.rows["trials"]), len(files) - 1


def merge_source(store: Store, layout: RunsLayout, source: Source) -> Merged:
    """Merge the rows and files of a source into a store and its runs folder; the operation is idempotent.

    Raises:
        StoreError: if both use one name for different things.
        FolderError: if files cannot be written.
    """
    rows = source.rows
    plan, code = plan_merge(store.rows(KEYS), rows), _code_of(source)
    try:
        _copy_files(layout, source, plan, rows)
        _copy_code(layout, code)
    except OSError as error:
        raise FolderError(f"files cannot be copied to {layout.trials} ({error})", remedy="see to its disk") from error
    if not plan.is_empty:
        store.merge(plan)
    return Merged(
        sweeps=len(rows["sweeps"]),
        taken=len(plan.taken) - len(plan.replaced),
        replaced=len(plan.replaced),
        known=len(rows["trials"]) - len(plan.taken),
        reproduced=tuple(plan.reproduced),
    )


def _copy_files(layout: RunsLayout, source: Source, plan: MergePlan, rows: Rows) -> None:
    """Copy the files of the taken trials, and checkpoints that only the source has."""
    taken, replaced = set(plan.taken), set(plan.replaced)
    for trial_id in sorted(replaced):
        _retire(layout.trial(trial_id))
    for trial_id, number in _attempts(rows):
        folder = layout.attempt(trial_id, number)
        for name in source.names(trial_id, number):
            if trial_id in taken:
                _copy(source, trial_id, number, folder / name)


def _code_of(source: Source) -> dict[str, bytes]:
    """Return the records of the code that trained the trials of a source, and their differences, by file name.

    Raises:
        StoreError: if a record or a difference is damaged.
    """
    sessions = {str(row["token"]).rpartition("-")[0] for row in source.rows["attempts"].values()}
    found: dict[str, bytes] = {}
    for session in sorted(sessions):
        name = record_name(session)
        data = source.read_code(name)
        if data is None:
            continue
        try:
            diff = from_stored(SourceRecord, data, where=name).diff
        except StnbenchError as error:
            raise StoreError(f"the record of code {name} cannot be used ({error})", remedy=_REMEDY) from error
        found[name] = data
        kept = source.read_code(f"{diff}.diff") if _SOURCE.fullmatch(f"sources/{diff}.diff") else None
        if kept is not None:
            if diff_digest(kept) != diff:
                raise StoreError(f"the differences {diff}.diff were changed", remedy=_REMEDY)
            found[f"{diff}.diff"] = kept
    return found


def _copy_code(layout: RunsLayout, code: Mapping[str, bytes]) -> None:
    """Write the records of code that this runs folder lacks; those that it has are kept."""
    for name, data in code.items():
        path = layout.sources / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)


def _retire(folder: Path) -> None:
    """Move the attempts of a trial aside, so that another store's replace them; nothing is removed."""
    attempts = [path for path in folder.glob("*") if path.name.isdecimal()]
    if attempts:
        aside = next(place for i in range(1, 10_000) if not (place := folder / f"superseded-{i}").exists())
        aside.mkdir(parents=True)
        for path in attempts:
            path.rename(aside / path.name)


def _copy(source: Source, trial_id: str, number: int, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = to.with_name(f".{to.name}.copy.tmp")
    with source.open(trial_id, number, to.name) as file, temporary.open("wb") as copy:
        shutil.copyfileobj(file, copy, _CHUNK)
    temporary.replace(to)


def _check_rows(rows: Rows, path: Path, *, same_version: bool) -> None:
    """Raise StoreError if there are rows that no store exports."""
    if drop_orphans(rows):
        raise StoreError(f"the archive {path} has rows without those that they belong to", remedy=_REMEDY)
    where = f"the archive {path}"
    try:
        for (name,), row in rows["sweeps"].items():
            _require_same(where, "sweep", str(name), from_json(SweepSpec, str(row["spec"]), where=where).name)
        for (trial_id,), row in rows["trials"].items():
            _check_trial(str(trial_id), row, where, same_version=same_version)
        for table, column, kind in JSON_COLUMNS:
            for row in rows[table].values():
                from_json(kind, str(row[column]), where=where)
        require_insertable(rows, where=where)
    except StoreError:
        raise
    except StnbenchError as error:
        raise StoreError(f"{error}", remedy="it was changed, or another stnbench made it") from error


def _check_trial(trial_id: str, row: Row, where: str, *, same_version: bool) -> None:
    spec = from_json(TrialSpec, str(row["spec"]), where=where)
    _require_same(where, "seed", str(row["seed"]), str(spec.seed))
    if same_version:  # otherwise the same words mean another trial
        _require_same(where, "trial", trial_id, spec.trial_id)
        _require_same(where, "configuration", str(row["cell_id"]), spec.config_id)


def _require_same(where: str, kind: str, name: str, meant: str) -> None:
    if name != meant:
        raise StoreError(f"{where} calls a {kind} {name[:80]} that is {meant[:80]}", remedy=_REMEDY)


def _attempts(rows: Rows) -> Iterator[tuple[str, int]]:
    for trial_id, number in rows["attempts"]:
        yield str(trial_id), int(str(number))


def _member(trial_id: str, number: int, name: str) -> str:
    return f"trials/{trial_id}/{number:03d}/{name}"


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> Row:
    """Write a member with a fixed time, so that equal exports are identical; return its entry in the manifest."""
    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
