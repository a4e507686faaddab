"""What a result was made with: code, libraries, machine, data."""

import platform
from pathlib import Path

import torch

import stnbench
from stnbench.core.code import code_version, library_version
from stnbench.spec.compute import ComputeOptions
from stnbench.spec.result import Environment
from stnbench.spec.trial import Precision
from stnbench.training.device import DeviceSpec, device_name, gpu_driver, numerics

LIBRARIES = ("numpy", "stnbench", "torch", "torchvision")


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


def _versions(device: DeviceSpec) -> tuple[tuple[str, str], ...]:
    versions = [(name, version) for name in LIBRARIES if (version := library_version(name))]
    if device.kind == "cuda":
        versions += [("cuda", str(torch.version.cuda)), ("cudnn", str(torch.backends.cudnn.version()))]  # type: ignore[no-untyped-call] # torch leaves it untyped
    return tuple(versions)
