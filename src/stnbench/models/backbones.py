"""Backbones of timm and torchvision as networks of one stage; the logits are a linear layer behind it."""

import importlib
import importlib.util
from types import ModuleType
from typing import Any, Final

from torch import nn

from stnbench.core.errors import InfeasibleError, SpecError, UnknownNameError
from stnbench.spec.network import TimmSpec, TorchvisionSpec

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
