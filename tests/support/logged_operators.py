"""A log of every operator that reaches a device: what crosses from or to the host, and how many kernels there are."""

import traceback
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HIDDEN_WAITS = frozenset(
    {
        "aten._local_scalar_dense",
        "aten.nonzero",
        "aten.bincount",
        "aten.equal",
        "aten.linalg_matrix_exp",
        "aten.linalg_inv_ex",
        "aten._linalg_check_errors",
        "aten._unique2",
        "aten.unique_dim",
        "aten.masked_select",
        "aten.repeat_interleave",
        "aten.histc",
        "aten.cudnn_grid_sampler",
    }
)
"""Operators that let the host wait on CUDA, some of them deep inside; and cuDNN's sampler, which is not repeatable."""

_NO_KERNELS = frozenset(
    {
        "aten.detach",
        "aten.empty",
        "aten.empty_like",
        "aten.empty_strided",
        "aten.new_empty",
        "aten.new_empty_strided",
        "aten.lift_fresh",
        "aten._unsafe_view",
    }
)


class OperatorLog(TorchDispatchMode):
    """Logs the operators on tensors of a kind of device while it is active.

    Attributes:
        uploads: the places in our code from which numbers of the host went to the device.
        downloads: those at which numbers of the device came to the host.
        names: of all operators.
        kernels: how many of them compute something.
    """

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it untyped
        self._device = device
        self.uploads: list[str] = []
        self.downloads: list[str] = []
        self.names: set[str] = set()
        self.kernels = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, and note it."""
        given = _kinds((args, kwargs or {}))
        result = function(*args, **(kwargs or {}))
        made = _kinds(result)
        name = str(function.overloadpacket)
        self.names.add(name)
        if "cpu" in given and self._device in made | given and self._crosses(name, args):
            self.uploads.append(f"{name} at {_place()}")
        if self._device in given and "cpu" in made:
            self.downloads.append(f"{name} at {_place()}")
        if self._device in given | made and not function.is_view and name not in _NO_KERNELS:
            self.kernels += 1
        return result

    def _crosses(self, name: str, args: Any) -> bool:
        """Whether numbers of the host go to the device: a tensor of no dimension is an argument of the kernel."""
        host = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor) and leaf.device.type == "cpu"]
        return name in {"aten._to_copy", "aten.copy_"} or any(leaf.dim() > 0 for leaf in host)


def _kinds(tree: Any) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}


def _place() -> str:
    ours = [frame for frame in traceback.extract_stack() if "/src/stnbench/" in frame.filename]
    return f"{ours[-1].filename.rpartition('/src/stnbench/')[2]}:{ours[-1].lineno}" if ours else "elsewhere"
