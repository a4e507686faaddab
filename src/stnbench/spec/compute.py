"""How a device computes a trial: what changes its speed and the last bits of its numbers, and not what it means."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from stnbench.core.errors import UnknownNameError

COMPUTE_VARIABLE: Final = "STNBENCH_COMPUTE"
"""The environment variable that names the options, with commas between: ``STNBENCH_COMPUTE=channels_last,compile``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeOptions:
    """Options of the machine that a trial happens to run on.

    They are chosen where the machine is, by an environment variable that workers inherit, and recorded beside the
    result (``Environment.compute``). They are no part of a trial's identity: kernels sum in another order, as on
    another device or with another number of threads, and no complete trial has to be trained again because of that.
    What changes numbers beyond it, the precision of products, is part of the trial: ``TrainingSpec.precision``.

    Attributes:
        channels_last: maps lie in memory with the channels of a pixel together, on a GPU as well; on a CPU they always
            do, where a step then takes a quarter less time.
        compile: the convolution stages, the hidden layers and the localisation networks run as torch.compile makes
            them; geometry and sampling do not, and stay in float32. It is for GPUs: on a CPU, oneDNN's kernels are
            quicker as they are (``modern`` trained 590 images a second, and 470 compiled).
        cuda_graphs: a GPU replays each training step as one graph of kernels, captured once a trial without a compiler:
            for small networks, whose kernels are shorter than the time it takes to start them. An error without a GPU.
    """

    channels_last: bool = False
    compile: bool = False
    cuda_graphs: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "ComputeOptions":
        """What ``STNBENCH_COMPUTE`` names; nothing where it is not set.

        Raises: UnknownNameError for a name that is none of the options.
        """
        known = [option.name for option in fields(cls)]
        named = [name.strip() for name in environment.get(COMPUTE_VARIABLE, "").split(",") if name.strip()]
        for name in named:
            if name not in known:
                raise UnknownNameError("option", name, known, where=COMPUTE_VARIABLE)
        return cls(**dict.fromkeys(named, True))

    def __str__(self) -> str:
        """As in the variable, always in the same order."""
        return ",".join(option.name for option in fields(self) if getattr(self, option.name))
