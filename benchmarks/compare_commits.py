"""Train six tiny trials with two versions of the code and compare them bit for bit: ``make compare BASE=main``.

The version here is the working tree, the other one a commit of its history, checked out beside it for the time. Each
trains ``compare_commits.yaml`` (its own, where it has one) by its own command line, in folders of its own, with the
libraries that are installed here. A change of numbers is declared by a higher ``RESULTS_VERSION``; one that is not ends
with exit code 1. Where git has no such commit, as in a shallow clone, a line says that nothing was compared.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from stnbench.orchestration.verify import differences

ROOT: Final = Path(__file__).parents[1]
SWEEP: Final = "compare_commits"
SHOWN_MAX: Final = 4
DECLARATION: Final = re.compile(r"^RESULTS_VERSION = (\d+)$", re.MULTILINE)

SAME, CHANGED, CANNOT = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A trial that a version has trained: its result as JSON, and the bytes of its probabilities by split."""

    result: dict[str, Any]
    probabilities: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A version of the code: its name, tree, declared version of results, and commit where it is one."""

    name: str
    tree: Path
    results_version: int
    commit: str = ""


class NotComparedError(Exception):
    """There is nothing to compare with."""


class CannotTrainError(Exception):
    """A version does not train the six trials."""


def main(arguments: list[str]) -> int:
    """Compare; 0 where nothing changed, or what did is declared, 1 where it is not, 2 where one cannot train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="main", help="the commit to compare with (default: %(default)s)")
    parser.add_argument("--tree", type=Path, default=ROOT, help="compare this tree instead of the one here")
    options = parser.parse_args(arguments)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="stnbench-compare-") as folder,
            other_tree(options.base, Path(folder)) as base,
        ):
            return compare(base, read_version("the tree here", options.tree.resolve()), Path(folder))
    except NotComparedError as error:
        print(f"nothing was compared: {error}")
        return SAME
    except CannotTrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return CANNOT


def compare(base: Version, here: Version, folder: Path) -> int:
    """Train with both at once, and say what differs."""
    runs = [(base, start(base, folder / "base")), (here, start(here, folder / "here"))]
    try:
        for version, process in runs:
            wait(version, process)
    finally:
        for _, process in runs:
            if process.poll() is None:
                process.kill()
                process.wait()
    before, after = read_trials(folder / "base"), read_trials(folder / "here")
    require_own_code(base, before)
    changes = compare_trials(before, after)
    print(f"{base.name} (results version {base.results_version}) and {here.name} ({here.results_version}):")
    code, verdict = decide(changes, base.results_version, here.results_version)
    for label, found in changes.items():
        print(f"  {'changed' if found else 'equal':8} {label}")
        for difference in found[:SHOWN_MAX]:
            print(f"           {difference}")
        if len(found) > SHOWN_MAX:
            print(f"           and {len(found) - SHOWN_MAX} more differences")
    print(verdict)
    return code


def decide(changes: Mapping[str, list[str]], before: int, after: int) -> tuple[int, str]:
    """Return the exit code, and why, for what differs by trial and the declared versions of results."""
    changed = sum(bool(found) for found in changes.values())
    if not changes:
        return CANNOT, "no trial could be compared: the two versions train different ones"
    if not changed:
        return SAME, f"all {len(changes)} trials are equal bit for bit"
    if after > before:
        return SAME, f"{changed} of {len(changes)} trials changed, as RESULTS_VERSION {before} -> {after} declares"
    return CHANGED, (
        f"{changed} of {len(changes)} trials changed their numbers, and RESULTS_VERSION is still {after}: "
        "raise it in src/stnbench/core/identity.py if that is meant"
    )


def compare_trials(before: Mapping[str, Trained], after: Mapping[str, Trained]) -> dict[str, list[str]]:
    """Return what differs of every trial that both versions know by its name."""
    changes = {}
    for label in before.keys() & after.keys():
        one, other = before[label], after[label]
        found = [
            str(difference) for difference in differences(one.result, other.result) if difference.where != "trial_id"
        ]
        splits = sorted(one.probabilities.keys() & other.probabilities.keys())
        unequal = [split for split in splits if one.probabilities[split] != other.probabilities[split]]
        found += [f"{split} probabilities differ" for split in unequal]
        changes[label] = found
    return dict(sorted(changes.items()))


def require_own_code(version: Version, trained: Mapping[str, Trained]) -> None:
    """Raise CannotTrainError where a commit's trials say that other code has trained them."""
    commits = {trial.result["environment"]["commit"] for trial in trained.values()}
    if version.commit and commits != {version.commit}:
        raise CannotTrainError(f"{version.name} was to train, and {', '.join(sorted(commits))} did")


@contextlib.contextmanager
def other_tree(base: str, folder: Path) -> Iterator[Version]:
    """Check a commit out in a folder, for the block.

    Raises: NotComparedError where there is no git, no history, or no such commit.
    """
    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    if commit is None:
        shallow = " (a shallow clone)" if git("rev-parse", "--is-shallow-repository") == "true" else ""
        raise NotComparedError(f"git knows no commit {base} here{shallow}")
    tree = folder / "tree"
    if git("worktree", "add", "--detach", "--force", str(tree), commit) is None:
        raise NotComparedError(f"git cannot check {base} out")
    try:
        yield read_version(f"{base} ({commit[:12]})", tree, commit)
    finally:
        git("worktree", "remove", "--force", str(tree))


def git(*arguments: str) -> str | None:
    """Return what git prints of the repository here; None where it fails or is not there."""
    if shutil.which("git") is None:
        return None
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def read_version(name: str, tree: Path, commit: str = "") -> Version:
    """Return the version of a tree. Raises: CannotTrainError where it declares none."""
    for path in sorted((tree / "src" / "stnbench").rglob("*.py")):
        declared = DECLARATION.search(path.read_text(encoding="utf-8"))
        if declared:
            return Version(name=name, tree=tree, results_version=int(declared[1]), commit=commit)
    raise CannotTrainError(f"{name} declares no RESULTS_VERSION below {tree / 'src' / 'stnbench'}")


def start(version: Version, folder: Path) -> "subprocess.Popen[str]":
    """Start a version's own command line on its own six trials."""
    own = version.tree / "benchmarks" / f"{SWEEP}.yaml"
    (folder / "sweeps").mkdir(parents=True)
    shutil.copy(own if own.exists() else ROOT / "benchmarks" / f"{SWEEP}.yaml", folder / "sweeps")
    environment = {name: text for name, text in os.environ.items() if not name.startswith("STNBENCH_")} | {
        "PYTHONPATH": str(version.tree / "src"),
        "STNBENCH_RUNS": str(folder / "runs"),
        "STNBENCH_DATA": str(folder / "data"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "stnbench.sweep", SWEEP, "--engine", "inline", "--no-mlflow"]
    with (folder / "output.log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, text=True)


def wait(version: Version, process: "subprocess.Popen[str]") -> None:
    """Wait for a version to train. Raises: CannotTrainError where it does not."""
    code = process.wait()
    if code:
        raise CannotTrainError(f"{version.name} does not train the six trials (exit code {code})")


def read_trials(folder: Path) -> dict[str, Trained]:
    """Return the trained trials of a version by their names in the sweep, read without its code."""
    with contextlib.closing(sqlite3.connect(folder / "runs" / "stnbench.db")) as database:
        rows = database.execute("SELECT label, trial_id FROM sweep_trials").fetchall()
    return {label: read_trial(folder / "runs" / "trials" / trial_id / "001") for label, trial_id in rows}


def read_trial(folder: Path) -> Trained:
    """Return what an attempt has left."""
    names = ("validation", "test")
    files = {split: folder / f"probabilities_{split}.npy" for split in names}
    return Trained(
        result=json.loads((folder / "result.json").read_text()),
        probabilities={
            split: np.load(path, allow_pickle=False).tobytes() for split, path in files.items() if path.exists()
        },
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
