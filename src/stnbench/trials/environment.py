"""What a result was made with: code, libraries, machine, data."""

import functools
import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

import stnbench
from stnbench.spec.compute import ComputeOptions
from stnbench.spec.result import Environment
from stnbench.spec.trial import Precision
from stnbench.training.device import DeviceSpec, device_name, gpu_driver, numerics

GIT_TIMEOUT_S = 10
UNKNOWN = "unknown"
LIBRARIES = ("numpy", "stnbench", "torch", "torchvision")


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeVersion:
    """The commit of the running code; dirty where files of the package differ from it.

    ``wheel X`` stands for an installed package outside a checkout, ``unknown`` for neither; ``problem`` says what kept
    git from telling.
    """

    commit: str
    dirty: bool
    problem: str = ""


def describe_environment(
    device: DeviceSpec, *, dataset_digest: str, parts: int = 1, precision: Precision = "float32"
) -> Environment:
    """The environment of this process, as recorded beside a result; ``parts`` are the micro-batches of a batch."""
    code = code_version(Path(stnbench.__file__).parent)
    return Environment(
        commit=code.commit,
        dirty=code.dirty,
        python=platform.python_version(),
        platform=platform.platform(),
        host=platform.node(),
        device=device_name(device),
        threads=device.threads,
        versions=_versions(device),
        dataset_digest=dataset_digest,
        micro_batches=parts,
        compute=str(ComputeOptions.from_environment()),
        driver=gpu_driver() if device.kind == "cuda" else "",
        numerics=numerics(device, precision),
    )


CONFIGURATION = (":/conf", ":/sweeps")
"""What decides a result beside the package, from the root of its checkout."""


@functools.cache
def code_version(package: Path) -> CodeVersion:
    """The version of the code in a package's folder; asked once a process, since what runs was read at its start.

    Where git cannot be asked about a package that lies in a checkout, the commit is ``unknown``, and dirty: nobody has
    seen that it is not.
    """
    tracked = _git(package, "ls-files", "--", "__init__.py")
    if tracked is None and _is_in_checkout(package):
        return CodeVersion(commit=UNKNOWN, dirty=True, problem=f"git says nothing of the checkout that holds {package}")
    if not tracked:
        return CodeVersion(commit=_wheel(), dirty=False)
    commit = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--", ".", *CONFIGURATION)
    problem = "" if commit and changed is not None else f"git does not say what is committed of {package}"
    return CodeVersion(commit=commit or UNKNOWN, dirty=changed != "", problem=problem)


def _is_in_checkout(package: Path) -> bool:
    """Whether a package lies in the source of a checkout, and was not installed into some environment there."""
    if {"site-packages", "dist-packages"} & set(package.parts):
        return False
    return any((folder / ".git").exists() for folder in package.parents)


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git, no checkout, or no answer in time.

    A checkout that belongs to another user, as on a shared disk or in a container, is read all the same: nothing of its
    configuration is executed by these commands, for the monitor of the file system is switched off.
    """
    allowed = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
    command = ["git", *allowed, "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)  # noqa: S603 - fixed words and our own folder
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _wheel() -> str:
    version = _version("stnbench")
    return f"wheel {version}" if version else UNKNOWN


@functools.cache
def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions(device: DeviceSpec) -> tuple[tuple[str, str], ...]:
    versions = [(name, version) for name in LIBRARIES if (version := _version(name))]
    if device.kind == "cuda":
        versions += [("cuda", str(torch.version.cuda)), ("cudnn", str(torch.backends.cudnn.version()))]  # type: ignore[no-untyped-call] # torch leaves it untyped
    return tuple(versions)
