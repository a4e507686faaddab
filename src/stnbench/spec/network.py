"""Classifiers as a trial describes them, without their spatial transformers.

Each is a part in a registry: ours are declared here with the place of what builds them, others come from outside
(:func:`stnbench.register`).
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from stnbench.spec.check import require, require_sizes
from stnbench.spec.codec import Strict
from stnbench.spec.registry import Registry

ContrastiveKernel = Literal["box", "gaussian"]
"""Window of the contrastive norm inside a network.

``box`` is 9x9 of ones, which the networks of 2015 had because of a misspelt name; ``gaussian`` is the gaussian of side
7 that they meant, and that Arcos-Garcia et al. 2018 used.
"""

_KERNEL_WITHOUT_NORM: ContrastiveKernel = "box"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSpec(Strict):
    """What all networks share: stages, before each of which a transformer may stand, and then the logits."""

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()

    @property
    def kind(self) -> str:
        """Name the network; each has a field of this name."""
        raise NotImplementedError

    @property
    def stages(self) -> int:
        """How many stages there are: places at which a transformer may stand."""
        return 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that ``width`` multiplies; empty for a network that has none."""
        return ()

    def side_after(self, stage: int, side: int) -> int | None:
        """Return the side of the map that a stage (from 1) makes of a map, both square.

        Below 1 where nothing is left, None where only building it would tell.
        """
        del stage, side
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class LecunSpec(NetworkSpec):
    """``lecun c1,c2,h`` (Sermanet & LeCun 2011, as in the code of 2015).

    Two stages of conv 5x5 (padding 2), ReLU, max-pool 2 and contrastive norm, one hidden layer. ``multi_scale`` also
    feeds a pooled copy of the second stage's input to the hidden layer. ``contrastive_kernel`` counts as ``box`` where
    there is no contrastive norm.
    """

    kind: Literal["lecun"] = "lecun"
    sizes: tuple[int, int, int] = (108, 200, 100)
    multi_scale: bool = False
    contrastive_norm: bool = True
    contrastive_kernel: ContrastiveKernel = "box"

    def __post_init__(self) -> None:
        """Check the values, and forget a kernel that has no effect."""
        self.settle()
        require_sizes("sizes", self.sizes)
        if not self.contrastive_norm:
            object.__setattr__(self, "contrastive_kernel", _KERNEL_WITHOUT_NORM)

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return 2

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the map that a stage makes of a square map."""
        del stage
        return _pooled(side, 5, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class IdsiaSpec(NetworkSpec):
    """``idsia c1,c2,c3,h`` (Ciresan et al. 2012, as in the code of 2015).

    Three stages of conv 7x7, 4x4 and 4x4, all padding 2, each with ReLU, max-pool 2 and contrastive norm, one hidden
    layer. With the gaussian kernel it is the classifier of Arcos-Garcia et al. 2018. ``contrastive_kernel`` counts as
    ``box`` where there is no contrastive norm.
    """

    kind: Literal["idsia"] = "idsia"
    sizes: tuple[int, int, int, int] = (150, 200, 300, 350)
    contrastive_norm: bool = True
    contrastive_kernel: ContrastiveKernel = "box"

    def __post_init__(self) -> None:
        """Check the values, and forget a kernel that has no effect."""
        self.settle()
        require_sizes("sizes", self.sizes)
        if not self.contrastive_norm:
            object.__setattr__(self, "contrastive_kernel", _KERNEL_WITHOUT_NORM)

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return 3

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the map that a stage makes of a square map."""
        return _pooled(side, 7 if stage == 1 else 4, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class FcnSpec(NetworkSpec):
    """``fcn h1,h2``: two hidden layers with ReLU (Jaderberg et al. 2015, A.4, with 128 to 256 units each).

    The first one is the only stage, so that a transformer may stand at the image.
    """

    kind: Literal["fcn"] = "fcn"
    sizes: tuple[int, int] = (128, 128)

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        require_sizes("sizes", self.sizes)

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return 1

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the map that a stage makes of a square map."""
        del stage, side
        return 1


@dataclass(frozen=True, kw_only=True, slots=True)
class CnnSpec(NetworkSpec):
    """``cnn c1,c2`` (Jaderberg et al. 2015, A.4, with 32 to 64 filters).

    Two stages, conv 9x9 and conv 7x7, each with max-pool 2 and ReLU, and then the logits. The paper says nothing of
    padding; there is none here, so images have at least 24 pixels a side.
    """

    kind: Literal["cnn"] = "cnn"
    sizes: tuple[int, int] = (32, 64)

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        require_sizes("sizes", self.sizes)

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return 2

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the map that a stage makes of a square map."""
        return _pooled(side, 9 if stage == 1 else 7, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoojahiraSpec(NetworkSpec):
    """``poojahira c1,c2,c3,h``: the classifier of poojahira/gtsrb-pytorch.

    With an affine transformer it has 855,487 parameters and reads 99.7 % of the test images of GTSRB. Three stages of
    conv 5x5, 3x3 and 3x3 without padding, each with leaky ReLU, max-pool 2, batch norm and dropout of whole channels; a
    hidden layer with ReLU and dropout. Made for 32 x 32 images; 24 pixels a side are the least.
    """

    kind: Literal["poojahira"] = "poojahira"
    sizes: tuple[int, int, int, int] = (100, 150, 250, 350)
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        require_sizes("sizes", self.sizes)
        _require_share("dropout", self.dropout)

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return 3

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the map that a stage makes of a square map."""
        return _pooled(side, 5 if stage == 1 else 3, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModernSpec(NetworkSpec):
    """``modern c1,...,cn``: a small batch-normalised network; two to five stages, as many as there are sizes.

    A stage is conv 3x3 (padding 1, no bias), max-pool 2, batch norm and ReLU, then ``convs_per_stage - 1`` times conv
    3x3, batch norm and ReLU. The logits see every channel's average over the last map where ``global_average`` is set,
    all of the last map otherwise; ``dropout`` is the share of channels that is dropped before them.
    """

    kind: Literal["modern"] = "modern"
    sizes: tuple[int, ...] = (24, 48, 96, 192)
    convs_per_stage: int = 2
    global_average: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        require_sizes("sizes", self.sizes)
        require(2 <= len(self.sizes) <= 5, "sizes", list(self.sizes), "two to five of them, one a stage")
        require(1 <= self.convs_per_stage <= 4, "convs_per_stage", self.convs_per_stage, "from 1 to 4")
        _require_share("dropout", self.dropout)

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return len(self.sizes)

    def side_after(self, stage: int, side: int) -> int:
        """Return the side of the map that a stage makes of a square map."""
        del stage
        return _pooled(side, 3, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmSpec(NetworkSpec):
    """A backbone of the package timm by its ``name`` there, without its classifier.

    It is one stage, so that a transformer may stand at the image.

    ``pretrained`` starts from the weights that timm downloads (made for images normalised in their own way: choose
    ``preprocess`` to match), otherwise from timm's own initialisation, drawn by the trial's seed.
    """

    kind: Literal["timm"] = "timm"
    name: str = "resnet18"
    pretrained: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchvisionSpec(NetworkSpec):
    """A classifier of torchvision by its ``name`` there, without its last layers; otherwise as ``timm``."""

    kind: Literal["torchvision"] = "torchvision"
    name: str = "resnet18"
    pretrained: bool = False


NETWORKS: Final = Registry("network", NetworkSpec, section="network")
NETWORKS.declare_each(
    {
        LecunSpec: "stnbench.models.designs:lecun",
        IdsiaSpec: "stnbench.models.designs:idsia",
        FcnSpec: "stnbench.models.designs:fcn",
        CnnSpec: "stnbench.models.designs:cnn",
        PoojahiraSpec: "stnbench.models.designs:poojahira",
        ModernSpec: "stnbench.models.designs:modern",
        TimmSpec: "stnbench.models.backbones:Timm",
        TorchvisionSpec: "stnbench.models.backbones:Torchvision",
    }
)

AnyNetwork = Annotated[NetworkSpec, NETWORKS]
"""The specification of any network, told apart by ``kind``."""


def _require_share(key: str, share: float) -> None:
    require(0 <= share < 1, key, share, "at least 0 and below 1")


def _pooled(side: int, kernel: int, padding: int) -> int:
    """The side of a map after a convolution of stride 1 and pooling by 2, as every stage of ours has them."""
    return (side + 2 * padding - kernel + 1) // 2
