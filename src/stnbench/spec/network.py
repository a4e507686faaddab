"""Specifications of classifiers, without their spatial transformers.

Each is a part in a registry: those of stnbench are declared here with the place of their implementation, external ones
are registered with :func:`stnbench.register`.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from stnbench.core.errors import require, require_sizes
from stnbench.spec.codec import PartSpec
from stnbench.spec.registry import Registry

ContrastiveKernel = Literal["box", "gaussian"]
"""Window of the contrastive norm inside a network.

``box`` is 9x9 of ones, which the networks of 2015 had because of a misspelt name; ``gaussian`` is the intended gaussian
of side 7, which Arcos-Garcia et al. 2018 used.
"""

_KERNEL_WITHOUT_NORM: ContrastiveKernel = "box"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSpec(PartSpec):
    """Base specification of networks: stages, each of which may follow a transformer, and then the logits."""

    def __post_init__(self) -> None:
        self.settle()

    @property
    def stages(self) -> int:
        """Return the number of stages, the places at which a transformer may stand."""
        return 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the sizes that ``width`` multiplies; empty for a network that has none."""
        return ()

    def side_after(self, stage: int, side: int) -> int | None:
        """Return the side of the square output of a stage for a square input, in pixels.

        The result is below 1 if nothing is left, and None if it is unknown before the network is built.

        Args:
            stage: number of the stage, from 1.
            side: side of its input.
        """
        del stage, side
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class LecunSpec(NetworkSpec):
    """Network ``lecun c1,c2,h`` (Sermanet & LeCun 2011, as in the code of 2015).

    Two stages of conv 5x5 (padding 2), ReLU, max-pool 2 and contrastive norm, one hidden layer. ``multi_scale`` also
    feeds a pooled copy of the second stage's input to the hidden layer. ``contrastive_kernel`` counts as ``box`` if
    there is no contrastive norm.
    """

    kind: Literal["lecun"] = "lecun"
    sizes: tuple[int, int, int] = (108, 200, 100)
    multi_scale: bool = False
    contrastive_norm: bool = True
    contrastive_kernel: ContrastiveKernel = "box"

    def __post_init__(self) -> None:
        """Check the values, and reset a kernel that has no effect."""
        self.settle()
        require_sizes("sizes", self.sizes)
        if not self.contrastive_norm:
            object.__setattr__(self, "contrastive_kernel", _KERNEL_WITHOUT_NORM)

    @property
    def stages(self) -> int:
        """Return the number of stages."""
        return 2

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the square output of a stage for a square input, in pixels."""
        del stage
        return _pooled(side, 5, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class IdsiaSpec(NetworkSpec):
    """Network ``idsia c1,c2,c3,h`` (Ciresan et al. 2012, as in the code of 2015).

    Three stages of conv 7x7, 4x4 and 4x4, all padding 2, each with ReLU, max-pool 2 and contrastive norm, one hidden
    layer. With the gaussian kernel it is the classifier of Arcos-Garcia et al. 2018. ``contrastive_kernel`` counts as
    ``box`` if there is no contrastive norm.
    """

    kind: Literal["idsia"] = "idsia"
    sizes: tuple[int, int, int, int] = (150, 200, 300, 350)
    contrastive_norm: bool = True
    contrastive_kernel: ContrastiveKernel = "box"

    def __post_init__(self) -> None:
        """Check the values, and reset a kernel that has no effect."""
        self.settle()
        require_sizes("sizes", self.sizes)
        if not self.contrastive_norm:
            object.__setattr__(self, "contrastive_kernel", _KERNEL_WITHOUT_NORM)

    @property
    def stages(self) -> int:
        """Return the number of stages."""
        return 3

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the square output of a stage for a square input, in pixels."""
        return _pooled(side, 7 if stage == 1 else 4, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class FcnSpec(NetworkSpec):
    """Network ``fcn h1,h2``: two hidden layers with ReLU (Jaderberg et al. 2015, A.4, with 128 to 256 units each).

    The first one is the only stage, so that a transformer may stand at the image.
    """

    kind: Literal["fcn"] = "fcn"
    sizes: tuple[int, int] = (128, 128)

    def __post_init__(self) -> None:
        self.settle()
        require_sizes("sizes", self.sizes)

    @property
    def stages(self) -> int:
        """Return the number of stages."""
        return 1

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the square output of a stage for a square input, in pixels."""
        del stage, side
        return 1


@dataclass(frozen=True, kw_only=True, slots=True)
class CnnSpec(NetworkSpec):
    """Network ``cnn c1,c2`` (Jaderberg et al. 2015, A.4, with 32 to 64 filters).

    Two stages, conv 9x9 and conv 7x7, each with max-pool 2 and ReLU, and then the logits. The paper does not specify
    padding; there is none here, so images need at least 24 pixels a side.
    """

    kind: Literal["cnn"] = "cnn"
    sizes: tuple[int, int] = (32, 64)

    def __post_init__(self) -> None:
        self.settle()
        require_sizes("sizes", self.sizes)

    @property
    def stages(self) -> int:
        """Return the number of stages."""
        return 2

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the square output of a stage for a square input, in pixels."""
        return _pooled(side, 9 if stage == 1 else 7, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoojahiraSpec(NetworkSpec):
    """Network ``poojahira c1,c2,c3,h``: the classifier of poojahira/gtsrb-pytorch.

    With an affine transformer it has 855,487 parameters and classifies 99.7 % of the test images of GTSRB correctly.
    Three stages of conv 5x5, 3x3 and 3x3 without padding, each with leaky ReLU, max-pool 2, batch norm and dropout of
    whole channels; a hidden layer with ReLU and dropout. It is made for 32 x 32 images and needs at least 24 pixels a
    side.
    """

    kind: Literal["poojahira"] = "poojahira"
    sizes: tuple[int, int, int, int] = (100, 150, 250, 350)
    dropout: float = 0.5

    def __post_init__(self) -> None:
        self.settle()
        require_sizes("sizes", self.sizes)
        _require_share("dropout", self.dropout)

    @property
    def stages(self) -> int:
        """Return the number of stages."""
        return 3

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the square output of a stage for a square input, in pixels."""
        return _pooled(side, 5 if stage == 1 else 3, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModernSpec(NetworkSpec):
    """Network ``modern c1,...,cn``: a small batch-normalised network with two to five stages, one per size.

    A stage is conv 3x3 (padding 1, no bias), max-pool 2, batch norm and ReLU, then ``convs_per_stage - 1`` times conv
    3x3, batch norm and ReLU. The input of the logits is every channel's average over the last map if ``global_average``
    is set, all of the last map otherwise; ``dropout`` is the share of channels that is dropped before them.
    """

    kind: Literal["modern"] = "modern"
    sizes: tuple[int, ...] = (24, 48, 96, 192)
    convs_per_stage: int = 2
    global_average: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self.settle()
        require_sizes("sizes", self.sizes)
        require(2 <= len(self.sizes) <= 5, "sizes", list(self.sizes), "two to five of them, one a stage")
        require(1 <= self.convs_per_stage <= 4, "convs_per_stage", self.convs_per_stage, "from 1 to 4")
        _require_share("dropout", self.dropout)

    @property
    def stages(self) -> int:
        """Return the number of stages."""
        return len(self.sizes)

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the square output of a stage for a square input, in pixels."""
        del stage
        return _pooled(side, 3, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmSpec(NetworkSpec):
    """A backbone of the package timm by its ``name`` there, without its classifier.

    It is one stage, so that a transformer may stand at the image. ``pretrained`` starts from the weights that timm
    downloads (choose ``preprocess`` to match their normalisation), otherwise from timm's initialisation, drawn by the
    trial's seed.
    """

    kind: Literal["timm"] = "timm"
    name: str = "resnet18"
    pretrained: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchvisionSpec(NetworkSpec):
    """A classifier of torchvision by its ``name`` there, without its last layers; otherwise as ``TimmSpec``."""

    kind: Literal["torchvision"] = "torchvision"
    name: str = "resnet18"
    pretrained: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DeformableSpec(NetworkSpec):
    """Network ``deformable c1,...,cn``: stages whose convolutions read at learned places, another way to be spatial.

    A stage is a deformable convolution 3x3 (Dai et al. 2017, arXiv 1703.06211), batch norm, ReLU and max-pool 2. An
    ordinary 3x3 convolution of its input gives an offset for each of the nine places of every pixel, and with
    ``modulated`` a factor from 0 to 2 as well (Zhu et al. 2019, arXiv 1811.11168, whose factors end at 1). Both begin
    at zero weights, so that the stage begins as the convolution that it is without them.
    """

    kind: Literal["deformable"] = "deformable"
    sizes: tuple[int, ...] = (24, 48, 96)
    modulated: bool = True

    def __post_init__(self) -> None:
        self.settle()
        require_sizes("sizes", self.sizes)
        require(1 <= len(self.sizes) <= 5, "sizes", list(self.sizes), "one to five of them, one a stage")

    @property
    def stages(self) -> int:
        """Return the number of stages."""
        return len(self.sizes)

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the square output of a stage for a square input, in pixels."""
        del stage
        return _pooled(side, 3, 1)


NETWORKS: Final = Registry("network", NetworkSpec, section="network")
NETWORKS.declare_each(
    {
        LecunSpec: "stnbench.models.designs:lecun",
        IdsiaSpec: "stnbench.models.designs:idsia",
        FcnSpec: "stnbench.models.designs:fcn",
        CnnSpec: "stnbench.models.designs:cnn",
        PoojahiraSpec: "stnbench.models.designs:poojahira",
        ModernSpec: "stnbench.models.designs:modern",
        TimmSpec: "stnbench.models.designs:Timm",
        TorchvisionSpec: "stnbench.models.designs:Torchvision",
        DeformableSpec: "stnbench.models.designs:Deformable",
    }
)

AnyNetwork = Annotated[NetworkSpec, NETWORKS]
"""Specification of any network, discriminated by ``kind``."""


def _require_share(key: str, share: float) -> None:
    require(0 <= share < 1, key, share, "at least 0 and below 1")


def _pooled(side: int, kernel: int, padding: int) -> int:
    """Return the side of a map after a convolution of stride 1 and pooling by 2, as in every stage of stnbench."""
    return (side + 2 * padding - kernel + 1) // 2
