"""One training step over static tensors.

An epoch's tables are drawn before it, and a counter on the device gives the position of the step in them. A step reads
nothing from the host: the rows of its images, its augmentation, the kept channels of its dropout, its learning rates
and its share of the average lie in the tables. A CUDA graph of one step, captured once, is therefore every step, and a
replay needs no argument (``CapturedStep``). On a CPU the same step runs as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from typing_extensions import override

from stnbench.core.errors import EngineError, SpecError
from stnbench.core.identity import derive_seed
from stnbench.data import homographies
from stnbench.data.augmentation import DrawnAugmentation, draw_augmentation
from stnbench.data.resident import DeviceImages, epoch_order, steps_per_epoch
from stnbench.models.classifiers import Explained, build_network
from stnbench.models.scored_network import Model
from stnbench.nn.initialization import OwnModule
from stnbench.nn.layers import dropout_layers, seed_dropout
from stnbench.nn.transforms import pixel_centres
from stnbench.spec.result import EpochRecord
from stnbench.spec.trial import TrialSpec
from stnbench.training.device import CapturedCall
from stnbench.training.optim import (
    StepTime,
    WeightAverage,
    group_rates,
    learning_rate_at,
    reads_tensor_rates,
    set_learning_rate,
    use_tensor_rates,
)

WARM_UP_STEPS: Final = 3
"""Steps before a capture, taken one kernel after the other.

Libraries make their handles and workspaces in them, and the optimiser its buffers. They are the first steps of the
training, so none is taken twice.
"""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingRun:
    """Model, optimiser and data of a training run.

    Attributes:
        spec: the trial, with its optimiser, schedule, training and seed.
        model: the model on its device.
        optimizer: the optimiser over the model's network.
        images: the images on the same device.
        train: int64 (n,), rows of the images to train on, on the same device.
        validation: int64 (m,), rows of the images held out.
        average: the average of the network's weights, which is scored in their place; None where the last weights are.
        micro_batches: the number of parts in which each batch is computed, where memory is short; gradients are added
            up.
    """

    spec: TrialSpec
    model: Model
    optimizer: Optimizer
    images: DeviceImages
    train: Tensor
    validation: Tensor
    average: WeightAverage | None = None
    micro_batches: int = 1

    @property
    def steps(self) -> int:
        """Return the number of optimiser steps in one epoch.

        Raises:
            SpecError: where there is less than one whole batch.
        """
        training = self.spec.training
        return steps_per_epoch(len(self.train), training.batch_size, training.drop_last)

    def scored(self) -> AbstractContextManager[None]:
        """Return a context in which the network has the weights that are scored: their average where there is one."""
        return nullcontext() if self.average is None else self.average.applied()

    def learning_rate(self, step: int, records: Sequence[EpochRecord] = ()) -> float:
        """Return the learning rate of a step of the whole training, counted from 0, after the recorded epochs."""
        time = StepTime(step=step, steps_per_epoch=self.steps, epochs=self.spec.training.epochs, records=records)
        return learning_rate_at(self.spec.schedule, peak=self.spec.optimizer.learning_rate, time=time)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EpochTables:
    """Inputs of the steps of one epoch.

    Attributes:
        rows: int64 (steps * batch,), the images in the order of the epoch.
        augmentations: those of every image, in the same order; None without augmentation.
        kept: for each layer that draws, (steps, numbers): bool for the channels kept by dropout, float32 for noise.
        rates: float32 (steps, groups), the learning rates of the optimiser's groups.
        shares: float32 (steps,), the share of the new weights in their average.
    """

    rows: Tensor
    augmentations: DrawnAugmentation | None
    kept: tuple[Tensor, ...]
    rates: Tensor
    shares: Tensor

    def copy_from(self, other: "EpochTables") -> None:
        """Copy the numbers from tables of the same shapes; the place in memory stays."""
        for own, new in zip(self.tensors(), other.tensors(), strict=True):
            own.copy_(new)

    def to(self, device: torch.device) -> "EpochTables":
        """Return the tables on a device."""
        return EpochTables(
            rows=self.rows.to(device),
            augmentations=None if self.augmentations is None else self.augmentations.to(device),
            kept=tuple(table.to(device) for table in self.kept),
            rates=self.rates.to(device),
            shares=self.shares.to(device),
        )

    def tensors(self) -> Iterator[Tensor]:
        """Yield all tensors, in a fixed order."""
        yield from (self.rows, self.rates, self.shares, *self.kept)
        if self.augmentations is not None:
            yield from self.augmentations.numbers.values()


def draw_tables(
    run: TrainingRun, numbers: tuple[int, ...], *, epoch: int, first_step: int, rates: Sequence[float]
) -> EpochTables:
    """Return the tables of an epoch, drawn on the CPU from the trial's seed and the epoch, whatever the device.

    Args:
        run: the training run.
        numbers: the number of random numbers that each dropout layer needs in a step.
        epoch: the epoch, from 0.
        first_step: the number of steps before it in the whole training.
        rates: the learning rate of every step of the epoch.
    """
    spec, network = run.spec, run.model.network
    steps = range(first_step, first_step + run.steps)
    count = run.steps * spec.training.batch_size
    seed_dropout(network, derive_seed(spec.seed, "dropout", epoch))
    augmentations = None
    if spec.augment is not None:
        augmentations = draw_augmentation(spec.augment, seed=spec.seed, epoch=epoch, count=count)
    return EpochTables(
        rows=epoch_order(run.train, seed=spec.seed, epoch=epoch)[:count],
        augmentations=augmentations,
        kept=tuple(
            layer.draw(run.steps * needed).view(run.steps, needed)
            for layer, needed in zip(dropout_layers(network), numbers, strict=True)
        ),
        rates=_on_cpu([group_rates(run.optimizer, rate) for rate in rates]),
        shares=_on_cpu([0.0 if run.average is None else run.average.share(step + 1) for step in steps]),
    )


class StaticStep:
    """Training steps of a run, one after the other, from tables that stay at one place in memory between epochs.

    The losses of the epoch gather on the device. On a GPU the host waits for nothing in a step; on a CPU, where
    optimisers read their learning rate as a number anyway, it comes from the host.

    Args:
        run: the training run; its optimiser keeps its learning rates on the device from now on, where it can.
    """

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        pose_weights(run)  # a data set without poses is refused before the first step
        device = run.images.labels.device
        self._layers = dropout_layers(run.model.network)
        self._numbers = dropout_numbers(run) if self._layers else ()
        # Third-party layers may draw from torch's global generator, which is then seeded for every epoch.
        self._draws_itself = any(isinstance(module, OwnModule) for module in run.model.network.modules())
        self._rates = use_tensor_rates(run.optimizer)
        self._places = torch.arange(run.spec.training.batch_size, device=device)
        self._index = torch.zeros(1, dtype=torch.int64, device=device)
        self._losses = torch.zeros(run.steps, device=device)
        self._steps = torch.arange(run.steps, device=device)
        self._tables: EpochTables | None = None
        self._host_rates: Sequence[float] = ()
        self._first_step = 0
        self._taken = 0

    @property
    def losses(self) -> Tensor:
        """Return the loss before each step taken in the epoch, (steps,), on the device."""
        return self._losses[: self._taken]

    def begin_epoch(self, epoch: int, first_step: int, records: Sequence[EpochRecord] = ()) -> None:
        """Draw the tables of an epoch and copy them to the device.

        Args:
            epoch: the epoch, from 0.
            first_step: the number of steps of the training before it.
            records: the records of the epochs before it, from which some schedules derive its learning rates.
        """
        steps = range(first_step, first_step + self.run.steps)
        self._host_rates = [self.run.learning_rate(step, records) for step in steps]
        drawn = draw_tables(self.run, self._numbers, epoch=epoch, first_step=first_step, rates=self._host_rates)
        if self._tables is None:
            self._tables = drawn.to(self._index.device)
        else:
            self._tables.copy_from(drawn)
        self._index.zero_()
        self._first_step, self._taken = first_step, 0
        if self._draws_itself:
            torch.manual_seed(derive_seed(self.run.spec.seed, "layers", epoch))

    def take(self) -> None:
        """Take the next step of the epoch."""
        self._advance()
        self._taken += 1

    def close(self) -> None:
        """Let dropout layers draw their numbers themselves again."""
        for layer in self._layers:
            layer.serve(None)

    def _advance(self) -> None:
        """Take one step, at the position in the tables that the counter on the device gives."""
        if self._tables is None:
            raise ValueError("a step is taken before its epoch has begun")
        run, tables = self.run, self._tables
        if not self._rates:
            set_learning_rate(run.optimizer, self._host_rates[self._taken])
        else:
            for own, rate in zip(self._rates, tables.rates.index_select(0, self._index)[0].unbind(), strict=True):
                own.copy_(rate)
        for layer, kept in zip(self._layers, tables.kept, strict=True):
            layer.serve(kept.index_select(0, self._index)[0])
        places = self._places + self._index * len(self._places)
        augmentations = None if tables.augmentations is None else tables.augmentations.rows(places)
        loss = _update_weights(run, tables.rows[places], augmentations)
        # Where algorithms are deterministic, index_copy_ and scatter_ sort their indices, by a dozen kernels on a GPU.
        self._losses.copy_(torch.where(self._steps == self._index, loss, self._losses))
        if run.average is not None:
            host_share = run.average.share(self._first_step + self._taken + 1)
            run.average.update(tables.shares.index_select(0, self._index) if self._rates else host_share)
        self._index.add_(1)


class CapturedStep(StaticStep):
    """The same steps as replays of one CUDA graph, captured after a few steps have been taken kernel by kernel.

    Code between steps that reads weights or gradients finds them at the same place in memory.

    Args:
        run: the training run, on a GPU.
    """

    def __init__(self, run: TrainingRun) -> None:
        super().__init__(run)
        stream = torch.cuda.Stream(self._index.device)
        self._call = CapturedCall(super()._advance, stream, warm_up=WARM_UP_STEPS)

    @override
    def close(self) -> None:
        super().close()
        self._call.release()

    @override
    def _advance(self) -> None:
        self._call()


def build_step(run: TrainingRun) -> StaticStep:
    """Return the steps of a run: one CUDA graph where ``STNBENCH_COMPUTE`` requests it, else kernel by kernel.

    Raises:
        EngineError: where a graph is requested and the optimiser reads its learning rate from the host.
    """
    if not run.model.compute.cuda_graphs:
        return StaticStep(run)
    if not reads_tensor_rates(run.optimizer):
        problem = f"CUDA graphs are asked for, and optimizer={run.spec.optimizer.kind} reads its rate from the host"
        raise EngineError(problem, remedy="take cuda_graphs out of STNBENCH_COMPUTE, or choose another optimizer")
    return CapturedStep(run)


def dropout_numbers(run: TrainingRun) -> tuple[int, ...]:
    """Return the number of random numbers that each dropout layer needs for a batch.

    It is found in a pass on the meta device, since a layer may run twice.
    """
    with torch.device("meta"), torch.no_grad():
        network = build_network(run.spec, classes=2, seed=None).train()
        side, channels = run.spec.dataset.image_size, run.spec.dataset.channels
        images, boxes = torch.empty(2, channels, side, side), torch.empty(2, 4)
    layers = dropout_layers(network)
    needed = dict.fromkeys(layers, 0)

    def count(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        rows = given[0].shape[0] // images.shape[0]  # more than one where a transformer looks at copies
        needed[layer] += rows * given[0].shape[1]  # type: ignore[index] # only dropout layers are watched

    for layer in layers:
        layer.register_forward_pre_hook(count)
    with torch.no_grad():
        network.explain(images, boxes)
    return tuple(channels * run.spec.training.batch_size for channels in needed.values())


def _update_weights(run: TrainingRun, rows: Tensor, augmentations: DrawnAugmentation | None) -> Tensor:
    """Take one step of the optimiser, and return the cross-entropy before it, without the transformers' penalties."""
    prepared = run.images.prepared if augmentations is None else None
    images = run.images.images[rows] if prepared is None else prepared.rows(rows)
    boxes, labels = run.images.boxes[rows], run.images.labels[rows]
    if augmentations is not None:
        images, boxes = augmentations.apply(images, boxes)
    run.optimizer.zero_grad()
    total = torch.zeros((), device=labels.device)
    explain = run.model.explain if prepared is None else run.model.explain_prepared
    supervised = pose_weights(run)
    poses = _poses(run, rows, augmentations) if supervised else boxes
    parts = (tensor.chunk(run.micro_batches) for tensor in (images, boxes, labels, poses))
    for part_images, part_boxes, part_labels, part_poses in zip(*parts, strict=True):
        share = len(part_labels) / len(labels)
        explained = explain(part_images, part_boxes)
        smoothing = run.spec.training.label_smoothing
        loss = functional.cross_entropy(explained.logits, part_labels, label_smoothing=smoothing)
        detached = loss.detach()
        penalty = explained.penalty
        if supervised:
            loss = loss + pose_penalty(supervised, explained, part_poses, side=run.spec.dataset.image_size)
        (share * (loss if penalty is None else loss + penalty)).backward()
        total += share * detached
    clipping = run.spec.training.gradient_clipping
    if clipping is not None:
        nn.utils.clip_grad_norm_(run.model.network.parameters(), clipping)
    run.optimizer.step()
    return total


# Supervision of transformers by true poses, a control.


def pose_weights(run: TrainingRun) -> dict[int, float]:
    """Return the weight of the distance from the true pose at each place that has one.

    Raises:
        SpecError: if a transformer is to learn from poses and the data set has none.
    """
    found = {item.place: item.transformer.pose_weight for item in run.spec.transformers if item.transformer.pose_weight}
    if found and run.images.poses is None:
        problem = f"pose_weight is set, and the data set {run.spec.dataset.kind} knows no poses"
        raise SpecError(problem, remedy="choose signs, digits or a distortion, or set pose_weight=0")
    return found


def pose_penalty(weights: Mapping[int, float], explained: Explained, poses: Tensor, *, side: int) -> Tensor:
    """Return the weighted mean squared distance of sampling points from those at which the object fills the output.

    Args:
        weights: the weight at each place.
        explained: the network's transformations of a batch.
        poses: (batch, 3, 3), from the object's square to the image, with -1 and 1 at the outer edges of both.
        side: side of the images in pixels.
    """
    penalties = []
    for record in explained.transformers:
        weight, done = weights.get(record.place, 0.0), record.done
        if weight:
            height, width = done.grid.shape[1:3]
            points = pixel_centres((height, width), align_corners=done.align_corners, like=done.grid)
            out, seen = (_to_edges(size, done.align_corners, points) for size in ((height, width), (side, side)))
            target = homographies.map_points(poses.to(points.dtype), (points * out)[None]) / seen
            distance = (done.grid.flatten(1, 2) - target).square().sum(dim=-1)
            penalties.append(weight * distance.mean())
    return torch.stack(penalties).sum()


def _to_edges(size: Sequence[int], align_corners: bool, like: Tensor) -> Tensor:  # noqa: FBT001 - as torch's
    """Return the factors from (x, y) of a transformer to coordinates with -1 and 1 at the outer edges."""
    height, width = size
    return like.new_tensor([(side - 1) / side if align_corners else 1.0 for side in (width, height)])


def _poses(run: TrainingRun, rows: Tensor, augmentations: DrawnAugmentation | None) -> Tensor:
    """Return the poses of images, moved as their augmentation moves them."""
    if run.images.poses is None:
        raise ValueError("the data set knows no poses")
    poses = run.images.poses[rows]
    moves = None if augmentations is None else augmentations.augmentation.moves(augmentations.numbers)
    return poses if moves is None else moves @ poses


def _on_cpu(numbers: list[Any]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32, device="cpu")
