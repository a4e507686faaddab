"""Specification of trials: everything that decides a result, and nothing else."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Final, Literal

from stnbench.core.errors import INTEGER_MAX, InfeasibleError, UnknownNameError, require
from stnbench.core.identity import RESULTS_VERSION, digest
from stnbench.spec.codec import Strict, named_before, to_identity
from stnbench.spec.data import AllSplitSpec, AnyDataset, PreprocessSpec, SignsSpec, SplitSpec, TrackSplitSpec
from stnbench.spec.network import AnyNetwork, LecunSpec
from stnbench.spec.optimizer import (
    OPTIMIZERS,
    TENSOR_RATES,
    AnyAugmentation,
    AnyOptimizer,
    AnySchedule,
    ConstantScheduleSpec,
    SgdSpec,
    TtaSpec,
)
from stnbench.spec.registry import PartSource, used_parts
from stnbench.spec.transformer import PlacedTransformerSpec

# Options of computation that change the speed of a trial and the last bits of its numbers, but not its meaning.


COMPUTE_VARIABLE: Final = "STNBENCH_COMPUTE"
"""Environment variable with the comma-separated options, such as ``STNBENCH_COMPUTE=channels_last,compile``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeOptions:
    """Options of computation on the machine that runs a trial.

    They are chosen per machine by an environment variable that workers inherit, and recorded with the result
    (``Environment.compute``). They are not part of a trial's identity: they only change the order of summation, as
    another device or another number of threads does, so complete trials need not be trained again. The precision of
    products, which changes more, is part of the trial: ``TrainingSpec.precision``.

    Attributes:
        channels_last: store maps with the channels of a pixel together on a GPU as well. On a CPU this is always done,
            where a step takes a quarter less time.
        compile: run the convolution stages, the hidden layers and the localisation networks through torch.compile;
            geometry and sampling are excluded and stay in float32. It is meant for GPUs: on a CPU, oneDNN's kernels are
            faster uncompiled (``modern`` trained 590 images per second, and 470 compiled).
        cuda_graphs: replay each training step on a GPU as one graph of kernels, captured once per trial without a
            compiler. It suits small networks, whose kernels run for less time than their launch takes. It is an error
            without a GPU.
        padded_channels: compute convolutions with zero channels added up to a multiple of 8, for which a GPU's tensor
            cores have kernels. It costs copies of maps; whether it is faster has not been measured.
        fused_kernels: compute contrastive normalisation and pooling on a GPU by kernels written in Triton
            (``nn.fused``), which read maps two or three times instead of eight, and keep a byte for each maximum
            instead of eight. It is an error without a GPU, and together with ``compile``.
    """

    channels_last: bool = False
    compile: bool = False
    cuda_graphs: bool = False
    padded_channels: bool = False
    fused_kernels: bool = False

    @property
    def of_gpus(self) -> tuple[str, ...]:
        """Return the names of the options that are on and need a GPU."""
        return tuple(name for name in ("cuda_graphs", "fused_kernels") if getattr(self, name))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "ComputeOptions":
        """Return the options that ``STNBENCH_COMPUTE`` names; none if it is not set.

        Raises:
            UnknownNameError: if a name is no option.
        """
        known = [option.name for option in fields(cls)]
        named = [name.strip() for name in environment.get(COMPUTE_VARIABLE, "").split(",") if name.strip()]
        for name in named:
            if name not in known:
                raise UnknownNameError("option", name, known, where=COMPUTE_VARIABLE)
        return cls(**dict.fromkeys(named, True))

    @classmethod
    def for_trial(
        cls, spec: "TrialSpec", *, is_on_gpu: bool, environment: Mapping[str, str] = os.environ
    ) -> "ComputeOptions":
        """Return the options with which a trial is computed: those that ``STNBENCH_COMPUTE`` names, or the usual ones.

        Where the variable is not set, a trial in bfloat16 on a GPU, as ``scale=paper_fast`` makes them, is computed
        with ``channels_last``, and with ``cuda_graphs`` where its step can be captured: its optimiser reads its
        learning rates on the GPU, and no part of it is a third party's. All other trials have no options then. Set to
        nothing, the variable turns the usual options off.

        Raises:
            UnknownNameError: if a name in the variable is no option.
        """
        if COMPUTE_VARIABLE in environment or not is_on_gpu or spec.training.precision != "bfloat16":
            return cls.from_environment(environment)
        can_capture = OPTIMIZERS.has_trait(spec.optimizer.kind, TENSOR_RATES) and not tuple(spec.parts)
        return cls(channels_last=True, cuda_graphs=can_capture)

    def __str__(self) -> str:
        """Return the names as in the variable, in a fixed order."""
        return ",".join(option.name for option in fields(self) if getattr(self, option.name))


Precision = Literal["float32", "tf32", "bfloat16"]
"""Precision of products: 24 bits; 11 bits in convolutions on a GPU that supports it; 8 bits in all layers."""

DropLast = Literal["incomplete", "always"]
"""Whether the last batch of an epoch is dropped if it is not full, or always, as in the code of 2015."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSpec(Strict):
    """Specification of the length and data volume of training, and of its regularisation and precision.

    ``train_images`` random training images are used, all of them if it is None. ``label_smoothing`` is the share of a
    label's weight that is spread evenly over all classes (Szegedy et al. 2016). With ``weight_average`` above 0, the
    network that is scored and kept is an exponential moving average of the weights and running statistics over the
    steps, with this decay factor (Polyak & Juditsky 1992); after k steps the factor is at most (1 + k) / (10 + k), so
    that the first weights are soon forgotten.

    ``drop_last`` determines when the last batch of an epoch is dropped. ``always`` takes 399 steps for 20,000 images in
    batches of 50, and makes no difference if ``train_images`` is no multiple of ``batch_size``.

    ``precision`` is that of products; weights, geometry, sampling, local normalisation and the loss are always float32.
    ``tf32`` lets a GPU round the factors of convolutions to 11 bits, which are nearly all products of a network; a
    device without TF32 (a CPU, a GPU before NVIDIA's Ampere) computes such a trial in float32, which its environment
    records. ``bfloat16`` computes convolutions and hidden layers in bfloat16 (autocast).

    ``gradient_clipping`` is the largest Euclidean norm of a step's gradient over all parameters; a longer gradient is
    scaled to it (Pascanu et al. 2013). None leaves gradients unchanged.
    """

    epochs: int = 10
    batch_size: int = 50
    train_images: int | None = None
    label_smoothing: float = 0.0
    weight_average: float = 0.0
    precision: Precision = "float32"
    drop_last: DropLast = "incomplete"
    gradient_clipping: float | None = None

    def __post_init__(self) -> None:
        self.settle()
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        enough = self.train_images is None or self.train_images >= self.batch_size
        require(enough, "train_images", self.train_images, f"at least one batch of {self.batch_size}")
        if self.train_images is not None and self.train_images % self.batch_size:
            object.__setattr__(self, "drop_last", "incomplete")
        enough = self.drop_last == "incomplete" or self.train_images is None or self.train_images > self.batch_size
        require(enough, "train_images", self.train_images, "more than one batch, since drop_last=always drops the last")
        smoothing, average = self.label_smoothing, self.weight_average
        require(0 <= smoothing < 1, "label_smoothing", smoothing, "at least 0 and below 1")
        require(0 <= average < 1, "weight_average", average, "at least 0 and below 1")
        clipping = self.gradient_clipping
        require(clipping is None or clipping > 0, "gradient_clipping", clipping, "above 0, or null for none")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec(Strict):
    """Specification of a fully resolved trial: a configuration with a seed.

    It only contains values that decide the result; where the trial runs, its name and its user are recorded separately.
    Keys that have no effect in this trial are reset to their defaults on creation, so that equivalent trials are equal:
    here those that depend on other parts, in the specifications of the parts the others.
    """

    dataset: AnyDataset = field(default_factory=SignsSpec)
    split: SplitSpec = field(default_factory=TrackSplitSpec)
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    augment: AnyAugmentation | None = None
    network: AnyNetwork = field(default_factory=LecunSpec)
    transformers: tuple[PlacedTransformerSpec, ...] = ()
    optimizer: AnyOptimizer = field(default_factory=SgdSpec)
    schedule: AnySchedule = field(default_factory=ConstantScheduleSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    tta: Annotated[TtaSpec | None, named_before("tta", "views")] = None
    seed: int = 1
    parts: tuple[PartSource, ...] = ()
    """Sources of the external parts that the trial uses; determined automatically."""

    def __post_init__(self) -> None:
        self.settle()
        places = [placed.place for placed in self.transformers]
        require(places == sorted(set(places)), "transformers", places, "one a place, in ascending order")
        if places and places[-1] > self.network.stages:
            raise InfeasibleError(
                f"a transformer stands at place {places[-1]} of the network {self.network.kind}",
                remedy=f"it has {self.network.stages} stages, so places 1 to {self.network.stages}",
            )
        require(0 <= self.seed <= INTEGER_MAX, "seed", self.seed, f"from 0 to {INTEGER_MAX}")
        self._forget_idle_keys()
        object.__setattr__(self, "parts", tuple(self._sources()))

    def _sources(self) -> Iterator[PartSource]:
        """Yield the sources of the used external parts: the stored ones, or else those of the registered parts."""
        stored = {(source.kind, source.name): source for source in self.parts}
        for registry, name in dict.fromkeys(used_parts(self)):
            source = stored.get((registry.kind, name)) or registry.source(name)
            if source is not None:
                yield source

    def _forget_idle_keys(self) -> None:
        """Reset the keys that have no effect in this trial to their defaults."""
        usual: dict[str, object] = {"transformers": tuple(self._with_needed_output_sizes())}
        if self.augment is not None and not self.augment.changes_anything:
            usual["augment"] = None
        if self.tta is not None and not self.tta.moves_anything:
            usual["tta"] = None
        learns = any(placed.locnet is not None for placed in self.transformers)
        if not learns and self.optimizer.locnet_learning_rate_factor != 1:
            usual["optimizer"] = dataclasses.replace(self.optimizer, locnet_learning_rate_factor=1.0)
        for key, value in usual.items():
            object.__setattr__(self, key, value)

    def _with_needed_output_sizes(self) -> Iterator[PlacedTransformerSpec]:
        """Yield the transformers, without output sizes that equal the size of the input."""
        side: int | None = self.dataset.image_size
        stage = 1
        for placed in self.transformers:
            for passed in range(stage, placed.place):
                side = None if side is None else self.network.side_after(passed, side)
            stage = placed.place
            transformer = placed.transformer
            if side is not None and transformer.output_size == side:
                usual = dataclasses.replace(transformer, output_size=None)
                yield dataclasses.replace(placed, transformer=usual)
            else:
                side = transformer.output_size or side
                yield placed
            side = None if side is None else side // transformer.output_pooling

    @property
    def trial_id(self) -> str:
        """Return the identity of the trial: 16 hexadecimal digits over the specification with its seed."""
        return digest({"results_version": RESULTS_VERSION, "trial": to_identity(self)})

    @property
    def config_id(self) -> str:
        """Return the identity of the configuration, without the seed: 16 hexadecimal digits."""
        plain = to_identity(self)
        plain.pop("seed", None)
        return digest({"results_version": RESULTS_VERSION, "cell": plain})

    @property
    def has_held_out_images(self) -> bool:
        """Return whether the validation images are not trained on, so that they give a score."""
        return not isinstance(self.split, AllSplitSpec)

    @property
    def trained_as(self) -> "TrialSpec":
        """Return the trial with the same training and no test-time augmentation; itself if it has none."""
        return dataclasses.replace(self, tta=None)

    @property
    def bare_id(self) -> str:
        """Return an identity shared by all configurations that differ only in transformers and network sizes."""
        plain = to_identity(self.baseline())
        plain.pop("seed", None)
        network = plain.get("network")
        if isinstance(network, dict):
            plain["network"] = {key: value for key, value in network.items() if key != "sizes"}
        return digest({"results_version": RESULTS_VERSION, "bare": plain})

    def with_seed(self, seed: int) -> "TrialSpec":
        """Return the same configuration with another seed."""
        return dataclasses.replace(self, seed=seed)

    def baseline(self) -> "TrialSpec":
        """Return the baseline: the same trial without spatial transformers."""
        return dataclasses.replace(self, transformers=())
