"""A trial: everything that decides its result, and nothing else."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Discriminator

from stnbench.core.errors import InfeasibleError
from stnbench.core.identity import RESULTS_VERSION, digest
from stnbench.spec.augment import AugmentSpec
from stnbench.spec.check import require
from stnbench.spec.codec import Strict, to_identity
from stnbench.spec.data import AllSplitSpec, DatasetSpec, PreprocessSpec, SignsSpec, SplitSpec, TrackSplitSpec
from stnbench.spec.network import LecunSpec, NetworkSpec
from stnbench.spec.transformer import PlacedTransformerSpec
from stnbench.spec.views import ViewsSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SgdSpec(Strict):
    """Stochastic gradient descent; ``locnet_learning_rate_factor`` multiplies the rate of localisation networks."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    locnet_learning_rate_factor: float = 1.0

    def __post_init__(self) -> None:
        """Check the values."""
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        factor = self.locnet_learning_rate_factor
        require(factor >= 0, "locnet_learning_rate_factor", factor, "at least 0")
        require(not self.nesterov or self.momentum > 0, "nesterov", self.nesterov, "needs a momentum above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstantScheduleSpec(Strict):
    """The learning rate never changes, as in 2015."""

    kind: Literal["constant"] = "constant"


@dataclass(frozen=True, kw_only=True, slots=True)
class OneCycleScheduleSpec(Strict):
    """Up to the learning rate over ``warmup_share`` of all steps, then down to zero, both by cosine (Smith 2018)."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup_share: float = 0.3

    def __post_init__(self) -> None:
        """Check the values."""
        require(0 < self.warmup_share < 1, "warmup_share", self.warmup_share, "between 0 and 1")


ScheduleSpec = Annotated[ConstantScheduleSpec | OneCycleScheduleSpec, Discriminator("kind")]


Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSpec(Strict):
    """How long and on how much; the last, incomplete batch of an epoch is dropped, as in 2015.

    ``train_images`` random training images are used, all of them where it is None. ``label_smoothing`` is the share of
    a label's weight that is spread evenly over all classes (Szegedy et al. 2016). With ``weight_average`` above 0, the
    network that is scored and kept is an exponential moving average of the weights and running statistics over the
    steps, each with this share of the average before it (Polyak & Juditsky 1992); after k steps the share is at most
    (1 + k) / (10 + k), so that the first weights are soon forgotten.

    ``precision`` is that of convolutions and matrix products; the weights themselves stay float32 (autocast). Geometry,
    sampling, local normalisation and the loss are float32 whatever it is.
    """

    epochs: int = 10
    batch_size: int = 50
    train_images: int | None = None
    label_smoothing: float = 0.0
    weight_average: float = 0.0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Check the values."""
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        enough = self.train_images is None or self.train_images >= self.batch_size
        require(enough, "train_images", self.train_images, f"at least one batch of {self.batch_size}")
        smoothing, average = self.label_smoothing, self.weight_average
        require(0 <= smoothing < 1, "label_smoothing", smoothing, "at least 0 and below 1")
        require(0 <= average < 1, "weight_average", average, "at least 0 and below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec(Strict):
    """One trial, fully resolved: a cell with a seed.

    Only what decides the result is in it. Where it runs, what it is called and who asked for it are recorded beside it.
    """

    dataset: DatasetSpec = field(default_factory=SignsSpec)
    split: SplitSpec = field(default_factory=TrackSplitSpec)
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    augment: AugmentSpec | None = None
    network: NetworkSpec = field(default_factory=LecunSpec)
    transformers: tuple[PlacedTransformerSpec, ...] = ()
    optimizer: SgdSpec = field(default_factory=SgdSpec)
    schedule: ScheduleSpec = field(default_factory=ConstantScheduleSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    views: ViewsSpec | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        """Check what no part can check alone."""
        places = [placed.place for placed in self.transformers]
        require(places == sorted(set(places)), "transformers", places, "one a place, in ascending order")
        if places and places[-1] > self.network.stages:
            raise InfeasibleError(
                f"a transformer stands at place {places[-1]} of the network {self.network.kind}",
                remedy=f"it has {self.network.stages} stages, so places 1 to {self.network.stages}",
            )
        require(self.seed >= 0, "seed", self.seed, "a whole number of at least 0")

    @property
    def trial_id(self) -> str:
        """The identity of the trial: 16 hexadecimal digits of the specification with its seed."""
        return digest({"results_version": RESULTS_VERSION, "trial": to_identity(self)})

    @property
    def cell_id(self) -> str:
        """The identity of the configuration without its seed."""
        plain = to_identity(self)
        plain.pop("seed", None)
        return digest({"results_version": RESULTS_VERSION, "cell": plain})

    @property
    def has_held_out_images(self) -> bool:
        """Whether its validation images are not trained on, so that they are a score."""
        return not isinstance(self.split, AllSplitSpec)

    @property
    def trained_as(self) -> "TrialSpec":
        """The trial that ends with the same weights and looks at every image once; itself where it has no views."""
        return dataclasses.replace(self, views=None)

    @property
    def bare_id(self) -> str:
        """What all cells share that differ in nothing but transformers and the sizes of the network."""
        plain = to_identity(self.twin())
        plain.pop("seed", None)
        network = plain.get("network")
        if isinstance(network, dict):
            plain["network"] = {key: value for key, value in network.items() if key != "sizes"}
        return digest({"results_version": RESULTS_VERSION, "bare": plain})

    def with_seed(self, seed: int) -> "TrialSpec":
        """The same cell with another seed."""
        return dataclasses.replace(self, seed=seed)

    def twin(self) -> "TrialSpec":
        """The same trial without its spatial transformers; itself where it has none."""
        return dataclasses.replace(self, transformers=())
