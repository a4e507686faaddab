"""Identity by content: canonical JSON, its digest, and seeds derived by purpose."""

import functools
import hashlib
import importlib.metadata
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stnbench.core.errors import SpecError

# Seeds are derived by purpose, never by trial, so that all configurations of one seed are paired.


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2**63) for one purpose of a seed, for example ``derive_seed(3, "order", epoch)``.

    Different purposes give independent streams; equal arguments give equal seeds.
    """
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


RESULTS_VERSION = 2
"""Version of results; increased by hand when training code changes its meaning, which makes every specification a new
trial.

2: equivalent trials have one identity, whichever idle keys they name; the configurations of 2015 drop the last batch
of an epoch even if it is full, and their momentum is dampened as in torch7; theta error and health are measured
differently.
"""

DIGEST_LENGTH = 16
"""Number of hexadecimal digits: 64 bits, for which a collision among a million trials has a probability below 1e-7."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def canonical_json(value: Json) -> str:
    """Return JSON text with sorted keys and without white space, so that equal values give equal text.

    Raises:
        SpecError: if a float is not finite, which JSON cannot represent.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise SpecError(f"a value is not a finite number ({error})", remedy="use a number, or leave it out") from error


def digest(value: Json) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:DIGEST_LENGTH]


# Version of the running code: its commit, and the differences from it as reported by git.


GIT_TIMEOUT_S = 10
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeVersion:
    """Commit of the running code.

    Attributes:
        commit: the hash; ``wheel X`` for an installed package outside a checkout, ``unknown`` for neither.
        dirty: whether files of the package or its configuration differ from the commit.
        problem: why git could not report one of them; empty where it could.
    """

    commit: str
    dirty: bool
    problem: str = ""


CONFIGURATION = (":/conf", ":/sweeps")
"""Folders that decide a result in addition to the package, relative to the root of its checkout."""


@functools.cache
def code_version(package: Path) -> CodeVersion:
    """Return the version of the code in a package's folder.

    The result is cached for the process, since the running code was read when it started. Where git reports nothing
    about a package that lies in a checkout, the commit is ``unknown`` and counts as dirty.
    """
    tracked = run_git(package, "ls-files", "--", "__init__.py")
    if tracked is None and _is_in_checkout(package):
        return CodeVersion(commit=UNKNOWN, dirty=True, problem=f"git says nothing of the checkout that holds {package}")
    if not tracked:
        return CodeVersion(commit=_wheel(), dirty=False)
    commit = run_git(package, "rev-parse", "HEAD")
    changed = run_git(package, "status", "--porcelain", "--", ".", *CONFIGURATION)
    problem = "" if commit and changed is not None else f"git does not say what is committed of {package}"
    return CodeVersion(commit=commit or UNKNOWN, dirty=changed != "", problem=problem)


def _is_in_checkout(package: Path) -> bool:
    """Check whether a package lies in the source of a checkout and was not installed into an environment there."""
    if {"site-packages", "dist-packages"} & set(package.parts):
        return False
    return any((folder / ".git").exists() for folder in package.parents)


def run_git(folder: Path, *arguments: str) -> str | None:
    """Return git's output as text without its last line end; None as for ``git_bytes``, or if it is not UTF-8."""
    printed = git_bytes(folder, *arguments)
    try:
        return None if printed is None else printed.decode().removesuffix("\n")
    except UnicodeDecodeError:
        return None


def git_bytes(folder: Path, *arguments: str) -> bytes | None:
    """Return git's output, or None if git is missing, the folder is in no checkout, or git exceeds ``GIT_TIMEOUT_S``.

    A checkout that belongs to another user, as on a shared disk or in a container, is read as well: these commands
    execute nothing of its configuration, because the file system monitor is switched off.
    """
    allowed = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
    command = ["git", *allowed, "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_TIMEOUT_S, check=True)  # noqa: S603 - fixed words and our own folder
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _wheel() -> str:
    version = library_version("stnbench")
    return f"wheel {version}" if version else UNKNOWN


@functools.cache
def library_version(library: str) -> str | None:
    """Return the version of an installed library, or None where it is not installed."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """Differences from the commit in the tracked files that decide results.

    Attributes:
        diff: text differences in the format of ``git apply``.
        left_out: files that differ and are not in the diff: binary files, or all files where it would be too large.
        untracked: files in the same folders that git does not track; their contents are not read.
    """

    diff: str
    left_out: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()


def read_changes(package: Path, *, max_bytes: int) -> Changes | None:
    """Return the differences from the commit, or None where git does not report them.

    Args:
        package: the folder of the package.
        max_bytes: the largest diff that is kept; a larger one is left out and its files are listed.
    """
    places = (".", *CONFIGURATION)
    counted = run_git(
        package, "diff", "--no-ext-diff", "--no-textconv", "--numstat", "-z", "--no-renames", "HEAD", "--", *places
    )
    others = run_git(package, "ls-files", "--others", "--exclude-standard", "-z", "--full-name", "--", *places)
    if counted is None or others is None:
        return None
    lines = [line.split("\t", 2) for line in counted.split("\0") if line]
    binary = tuple(name for added, _, name in lines if added == "-")
    plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/")
    text = run_git(
        package, "diff", *plain, "HEAD", "--", *places, *(f":(top,exclude,literal){name}" for name in binary)
    )
    untracked = tuple(name for name in others.split("\0") if name)
    if text is None or len(text.encode()) > max_bytes:  # None: not UTF-8, or too slow
        return Changes(diff="", left_out=tuple(name for *_, name in lines), untracked=untracked)
    return Changes(diff=f"{text}\n" if text else "", left_out=binary, untracked=untracked)
