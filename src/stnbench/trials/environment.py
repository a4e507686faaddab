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
LIBRARIES = ("numpy", "stnbench", "torch", "torchvision")


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeVersion:
    """The commit of the running code; dirty where files of the package differ from it.

    ``wheel X`` stands for an installed package outside a checkout, ``unknown`` for neither.
    """

    commit: str
    dirty: bool


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
    """The version of the code in a package's folder; asked once a process, since what runs was read at its start."""
    if not _git(package, "ls-files", "--", "__init__.py"):
        return CodeVersion(commit=_wheel(), dirty=False)
    commit = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--", ".", *CONFIGURATION)
    return CodeVersion(commit=commit or "unknown", dirty=changed != "")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git, no checkout, or no answer in time."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)  # noqa: S603 - fixed words and our own folder
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _wheel() -> str:
    version = _version("stnbench")
    return f"wheel {version}" if version else "unknown"


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
