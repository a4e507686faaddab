"""Networks that make their modules themselves: backbones of timm and torchvision, and deformable convolutions.

The logits are a linear layer behind the last stage.
"""

import importlib
import importlib.util
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula
from torchvision.ops import deform_conv2d

from stnbench.core.errors import InfeasibleError, SpecError, UnknownNameError
from stnbench.nn.precision import full_precision
from stnbench.spec.network import DeformableSpec, TimmSpec, TorchvisionSpec

_LAST_LAYERS: Final = ("fc", "classifier", "heads", "head")
"""Names of the classifier layer in torchvision's networks."""

_COLOURS: Final = 3


class Timm:
    """Backbone of timm without its classifier; it returns features of an image."""

    def __init__(self, spec: TimmSpec) -> None:
        self._spec = spec

    def stage(self, number: int, channels: int, height: int, width: int) -> nn.Module:
        """Return the backbone for images of a size in pixels, with drawn weights.

        Raises:
            SpecError: where timm is not installed.
            UnknownNameError: for a name that timm does not have.
        """
        del number
        return self._made(channels, height, width, pretrained=False)

    def initial_stage(self, number: int, channels: int, height: int, width: int) -> nn.Module:
        """Return the backbone with the weights that training starts from.

        Raises:
            SpecError: where timm is not installed.
            UnknownNameError: for a name that timm does not have.
        """
        del number
        return self._made(channels, height, width, pretrained=self._spec.pretrained)

    def _made(self, channels: int, height: int, width: int, *, pretrained: bool) -> nn.Module:
        timm, name = _timm(), self._spec.name
        if not timm.is_model(name):
            raise UnknownNameError("network.name", name, timm.list_models(), where="timm")
        known = timm.get_pretrained_cfg(name)
        sized = {"img_size": (height, width)} if known is not None and known.fixed_input_size else {}
        made: nn.Module = timm.create_model(name, pretrained=pretrained, in_chans=channels, num_classes=0, **sized)
        return made


def _timm() -> ModuleType:
    if importlib.util.find_spec("timm") is None:
        problem = "network=timm needs the package timm, which is not installed"
        raise SpecError(problem, remedy="pip install 'stnbench[timm]'")
    return importlib.import_module("timm")


class Torchvision:
    """Classifier of torchvision without its last layers."""

    def __init__(self, spec: TorchvisionSpec) -> None:
        self._spec = spec

    def stage(self, number: int, channels: int, height: int, width: int) -> nn.Module:
        """Return the backbone for images of a size in pixels, with drawn weights.

        Raises:
            UnknownNameError: for a name that torchvision does not have.
            InfeasibleError: for images that do not have three channels.
        """
        del number, width
        return self._made(channels, height, pretrained=False)

    def initial_stage(self, number: int, channels: int, height: int, width: int) -> nn.Module:
        """Return the backbone with the weights that training starts from.

        Raises:
            UnknownNameError: for a name that torchvision does not have.
            InfeasibleError: for images that do not have three channels.
        """
        del number, width
        return self._made(channels, height, pretrained=self._spec.pretrained)

    def _made(self, channels: int, side: int, *, pretrained: bool) -> nn.Module:
        from torchvision import models

        name = self._spec.name
        names = models.list_models(module=models)
        if name not in names:
            raise UnknownNameError("network.name", name, names, where="torchvision")
        if channels != _COLOURS:
            problem = f"{name} of torchvision reads 3 channels, and the images have {channels}"
            remedy = "choose images of three colours, or network=timm, whose models take any number"
            raise InfeasibleError(problem, remedy=remedy)
        options: dict[str, Any] = {"image_size": side} if name.startswith("vit_") else {}
        if name in {"googlenet", "inception_v3"}:
            options |= {"aux_logits": False, "init_weights": True}
        made: nn.Module = models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
        for last in (item for item in _LAST_LAYERS if hasattr(made, item)):
            setattr(made, last, nn.Identity())
        return made


class Deformable:
    """Stages of deformable convolutions."""

    def __init__(self, spec: DeformableSpec) -> None:
        self._spec = spec

    def stage(self, number: int, channels: int, height: int, width: int) -> nn.Module:
        """Return a stage (from 1) for maps of a size, with drawn weights."""
        del height, width
        size = self._spec.sizes[number - 1]
        layers = DeformableConv2d(channels, size, modulated=self._spec.modulated), nn.BatchNorm2d(size), nn.ReLU()
        return nn.Sequential(*layers, nn.MaxPool2d(2))


class DeformableConv2d(nn.Module):
    """Deformable convolution 3x3 with a padding of 1; a new one equals an ordinary convolution of the same weights.

    Args:
        channels: channels of the input.
        outputs: channels of the output.
        modulated: whether what is read at a place is multiplied by a learned factor in [0, 2].

    Shape:
        - Input: (batch, channels, height, width).
        - Output: (batch, outputs, height, width), float32.
    """

    def __init__(self, channels: int, outputs: int, *, modulated: bool) -> None:
        super().__init__()
        places = _KERNEL * _KERNEL
        self.conv = nn.Conv2d(channels, outputs, _KERNEL, padding=1, bias=False)
        self.offsets = nn.Conv2d(channels, 2 * places, _KERNEL, padding=1)
        self.factors = nn.Conv2d(channels, places, _KERNEL, padding=1) if modulated else None
        for layer in (self.offsets, self.factors):
            for weight in () if layer is None else layer.parameters():
                nn.init.zeros_(weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the convolved maps."""
        # The kernel exists in float32 alone on a CPU, and offsets are geometry, which stays in float32.
        with full_precision(maps.device.type):
            maps = maps.float()
            factors = None if self.factors is None else 2 * self.factors(maps).sigmoid()
            convolved: Tensor = deform_conv2d(maps, self.offsets(maps), self.conv.weight, padding=1, mask=factors)
        return convolved


_KERNEL: Final = 3


@register_flop_formula(torch.ops.torchvision.deform_conv2d)
def _deformable_flops(
    maps: Sequence[int], weight: Sequence[int], *_: object, out_shape: Sequence[int], **__: object
) -> int:
    """Return the FLOPs, two for a multiply-add; those of interpolation are not counted anywhere."""
    del maps
    return 2 * math.prod(out_shape) * math.prod(weight[1:])
