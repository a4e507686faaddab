"""The contracts of the parts that train a network, and of metrics; one check for each property.

Localisation networks, optimisers, schedules, augmentations and metrics.
"""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stnbench.core.errors import InfeasibleError, SpecError
from stnbench.data.augmentation import DrawnAugmentation, build_augmentation, draw_augmentation
from stnbench.models.classifiers import StnClassifier, build_network
from stnbench.models.scored_network import localization_networks, measure_cost
from stnbench.spec.codec import from_json, to_json
from stnbench.spec.data import SignsSpec
from stnbench.spec.metrics import Metric
from stnbench.spec.network import LecunSpec
from stnbench.spec.optimizer import (
    AnyAugmentation,
    AnyOptimizer,
    AnySchedule,
    AugmentationSpec,
    OptimizerSpec,
    ScheduleSpec,
)
from stnbench.spec.result import EpochRecord
from stnbench.spec.transformer import AnyLocnet, LocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.testing.transformers import require, require_close
from stnbench.training.optim import (
    FACTOR,
    StepTime,
    build_optimizer,
    learning_rate_at,
    load_optimizer_state,
    optimizer_state,
    set_learning_rate,
)


def stored_as(form: object) -> Callable[[Any], None]:
    """Return the check that a specification of some form is unchanged after serialisation to JSON and back."""

    def check(spec: Any) -> None:  # noqa: ANN401 - of any kind
        again = from_json(cast("Any", form), to_json(spec), where="the part")
        require(again == spec, f"{spec} comes back from JSON as {again}")

    return check


# Localisation networks, in a small classifier with one affine transformer before its first stage.


CLASSES, SIDE = 4, 32


def identity_at_first(spec: LocnetSpec) -> None:
    """Check that the logits are those of the network without the transformer, for one image and for several."""
    bare = build_network(replace(_trial(spec), transformers=()), classes=CLASSES, seed=1).eval()
    network = _classifier(spec)
    for batch in (1, 3):
        difference = f"a new localisation network changes the logits of {batch} images"
        require_close(network(_pictures(batch)), bare(_pictures(batch)), 1e-3, difference)


def drawn_by_the_seed(spec: LocnetSpec) -> None:
    """Check that weights are decided by the seed alone, and torch's own generator is not used."""
    state = torch.random.get_rng_state()
    one, same, other = (dict(_localization(_classifier(spec, seed=seed)).named_parameters()) for seed in (1, 1, 2))
    require(torch.equal(state, torch.random.get_rng_state()), "weights are drawn from torch's global generator")
    require(all(torch.equal(one[name], same[name]) for name in one), "two networks of one seed have other weights")
    if len(one) > 2:  # more than the last layer, which is the identity at first whatever the seed
        require(any(not torch.equal(one[name], other[name]) for name in one), "two seeds give the same weights")


def located_alone(spec: LocnetSpec) -> None:
    """Check that in scoring an image is transformed alone as it is in a batch, and the same at a second call."""
    network, pictures = _moving(spec), _pictures(3)
    together = network(pictures)
    require(torch.equal(together, network(pictures)), "two calls differ")
    alone = torch.cat([network(picture[None]) for picture in pictures])
    require_close(together, alone, 1e-4, "an image has other logits in a batch than alone")


def learns_where(spec: LocnetSpec) -> None:
    """Check that every weight has a finite gradient."""
    network = _moving(spec).train()
    functional.cross_entropy(network(_pictures(4)), torch.arange(4) % CLASSES).backward()  # torch
    for name, weight in _localization(network).named_parameters():
        require(weight.grad is not None, f"{name} has no gradient: it has no part in the parameters")
        require(bool(cast("Tensor", weight.grad).isfinite().all()), f"the gradient of {name} is not finite")


def cost_of_locnet(spec: LocnetSpec) -> None:
    """Check that the parameters counted on the meta device are those of the network."""
    counted, network = measure_cost(_trial(spec), classes=CLASSES).parameters, _classifier(spec)
    found = sum(weight.numel() for weight in network.parameters())
    require(counted == found, f"{counted} parameters on the meta device, {found} on the CPU")


def half_precision(spec: LocnetSpec) -> None:
    """Check that logits are finite under autocast to bfloat16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = _moving(spec)(_pictures(2))
    require(bool(logits.isfinite().all()), "logits are not finite in bfloat16")


LOCNET_CHECKS: Final[Mapping[str, Callable[[LocnetSpec], None]]] = {
    "identity at the start, batch of one": identity_at_first,
    "weights of the seed": drawn_by_the_seed,
    "images alone and together": located_alone,
    "gradients everywhere": learns_where,
    "meta device": cost_of_locnet,
    "half precision": half_precision,
    "specification in JSON": stored_as(AnyLocnet),
}
"""Every check of a localisation network, by the property that it checks."""


def _trial(locnet: LocnetSpec) -> TrialSpec:
    placed = PlacedTransformerSpec(place=1, locnet=locnet)
    return TrialSpec(
        dataset=SignsSpec(image_size=SIDE), network=LecunSpec(sizes=(4, 6, 8)), transformers=(placed,)
    )  # fmt: skip


def _classifier(spec: LocnetSpec, *, seed: int = 1) -> StnClassifier:
    return build_network(_trial(spec), classes=CLASSES, seed=seed).eval()


def _localization(network: StnClassifier) -> nn.Module:
    (found,) = localization_networks(network).values()
    return found


def _moving(spec: LocnetSpec) -> StnClassifier:
    """Return the network with small random weights in the last layer of its localisation network."""
    network = _classifier(spec)
    (found,) = localization_networks(network).values()
    with torch.no_grad():
        weight = found.parameters_layer.weight
        weight.copy_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(7)))
    return network


def _pictures(batch: int) -> Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(batch))


# Optimisers, on a small network of which a part stands for a localisation network.


STEPS: Final = 40


class _Task:
    """A toy task: points around four centres, classified by a network after another one has moved them."""

    def __init__(self, spec: OptimizerSpec) -> None:
        generator = torch.Generator().manual_seed(1)
        self.labels = torch.arange(64) % CLASSES
        centres = 2 * torch.randn(CLASSES, 8, generator=generator)
        self.points = centres[self.labels] + torch.randn(64, 8, generator=generator)
        self.locnet, self.hidden, self.output = nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, CLASSES)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
        self.optimizer = build_optimizer(
            spec,
            classifier=[*self.hidden.parameters(), *self.output.parameters()],
            localization=self.locnet.parameters(),
            outputs=self.output.parameters(),
        )
        self.rate = spec.learning_rate
        set_learning_rate(self.optimizer, self.rate)

    def parameters(self) -> list[nn.Parameter]:
        return [weight for part in (self.locnet, self.hidden, self.output) for weight in part.parameters()]

    def values(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.parameters()]

    def train(self, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            self.optimizer.zero_grad()
            hidden = self.hidden(self.points + self.locnet(self.points)).relu()
            loss = functional.cross_entropy(self.output(hidden), self.labels)
            loss.backward()
            self.optimizer.step()
            losses.append(float(loss.detach()))
        return losses


def falls(spec: OptimizerSpec) -> None:
    """Check that the loss of a toy task falls at the learning rate of the specification."""
    losses = _Task(spec).train(STEPS)
    require(all(map(math.isfinite, losses)), "the loss is not finite")
    require(losses[-1] < losses[0], f"the loss is {losses[0]:.4g} at first, and {losses[-1]:.4g} after {STEPS} steps")


def reads_its_rates(spec: OptimizerSpec) -> None:
    """Check that a learning rate of 0 changes no weight, in one group or in all."""
    task = _Task(replace(spec, locnet_learning_rate_factor=0.5))  # which tells its groups apart
    task.train(3)
    before = task.values()
    set_learning_rate(task.optimizer, 0.0)
    task.train(2)
    moved = max(float((new - old).abs().max()) for new, old in zip(task.values(), before, strict=True))
    require(moved == 0, f"at a learning rate of 0 weights change by {moved:.2g}: read group['lr'] at every step")
    for group in task.optimizer.param_groups:
        group["lr"] = task.rate if group[FACTOR] == 1 else 0.0
    task.train(2)
    require(torch.equal(task.values()[0], before[0]), "a localisation network changes where its own rate is 0")
    require(not torch.equal(task.values()[2], before[2]), "the classifier does not change at its own rate")


def repeats(spec: OptimizerSpec) -> None:
    """Check that two trainings give the same weights bit for bit."""
    one, other = _Task(spec), _Task(spec)
    one.train(10)
    other.train(10)
    require(all(map(torch.equal, one.values(), other.values())), "two trainings give other weights")


def goes_on(spec: OptimizerSpec) -> None:
    """Check that a training goes on from a stored state as if it had never stopped."""
    whole, first, second = _Task(spec), _Task(spec), _Task(spec)
    whole.train(10)
    first.train(5)
    file = io.BytesIO()
    torch.save(optimizer_state(first.optimizer), file)
    with torch.no_grad():
        for weight, value in zip(second.parameters(), first.values(), strict=True):
            weight.copy_(value)
    file.seek(0)
    load_optimizer_state(second.optimizer, torch.load(file, weights_only=True))
    set_learning_rate(second.optimizer, second.rate)
    second.train(5)
    same = all(map(torch.equal, whole.values(), second.values()))
    require(same, "after a break the weights are others: keep what steps need in self.state and param_groups")


def idle_parameters(spec: OptimizerSpec) -> None:
    """Check that a weight without a gradient is passed over."""
    task = _Task(spec)
    task.train(1)
    task.optimizer.zero_grad()
    before = task.values()
    task.output.bias.grad = torch.ones_like(task.output.bias)
    task.optimizer.step()
    require(torch.equal(task.values()[0], before[0]), "a weight without a gradient changes")


OPTIMIZER_CHECKS: Final[Mapping[str, Callable[[OptimizerSpec], None]]] = {
    "learns": falls,
    "learning rates of the groups": reads_its_rates,
    "determinism": repeats,
    "goes on from a checkpoint": goes_on,
    "weights without a gradient": idle_parameters,
    "specification in JSON": stored_as(AnyOptimizer),
}
"""Every check of an optimiser, by the property that it checks."""


# Schedules, over a training of six epochs of five steps whose losses fall and then rise.


def finite_factors(spec: ScheduleSpec) -> None:
    """Check that every learning rate is a finite number of at least 0, and not all are 0."""
    rates = _rates(spec)
    require(all(math.isfinite(rate) and rate >= 0 for rate in rates), f"some learning rate of {rates} is no rate")
    require(any(rates), "every learning rate is 0")


def nothing_kept(spec: ScheduleSpec) -> None:
    """Check that a rate depends on its step and the epochs before alone, so that a training goes on after a break."""
    require(_rates(spec)[::-1] == _rates(spec, backwards=True), "rates are others where steps are asked backwards")


def warms_up(spec: ScheduleSpec) -> None:
    """Check that ``warmup_epochs`` lowers the first rates, where the schedule has it."""
    try:
        warm = replace(spec, warmup_epochs=2.0)
    except SpecError:
        return  # it warms up itself
    plain, slow = _rates(replace(spec, warmup_epochs=0.0)), _rates(warm)
    require(slow[0] <= plain[0] / 5, f"with a warm-up the first rate is {slow[0]:.3g}, without {plain[0]:.3g}")
    require(slow[-1] == plain[-1], "the warm-up changes the last rate")


SCHEDULE_CHECKS: Final[Mapping[str, Callable[[ScheduleSpec], None]]] = {
    "learning rates": finite_factors,
    "nothing kept between steps": nothing_kept,
    "warm-up": warms_up,
    "specification in JSON": stored_as(AnySchedule),
}
"""Every check of a schedule, by the property that it checks."""

_EPOCH_STEPS, _EPOCHS = 5, 6


def _rates(spec: ScheduleSpec, *, backwards: bool = False) -> list[float]:
    records = [_record(epoch) for epoch in range(_EPOCHS)]
    order = range(_EPOCH_STEPS * _EPOCHS)
    return [
        learning_rate_at(
            spec,
            peak=1.0,
            time=StepTime(
                step=step, steps_per_epoch=_EPOCH_STEPS, epochs=_EPOCHS, records=records[: step // _EPOCH_STEPS]
            ),
        )
        for step in (reversed(order) if backwards else order)
    ]


def _record(epoch: int) -> EpochRecord:
    loss = 1.0 - 0.2 * min(epoch, 2) + 0.1 * max(epoch - 2, 0)
    return EpochRecord(
        epoch=epoch + 1, step=_EPOCH_STEPS * (epoch + 1), train_loss=loss, validation_loss=loss,
        validation_accuracy=0.5, learning_rate=0.1, train_duration_s=1.0, evaluate_duration_s=1.0, health=(),
    )  # fmt: skip


# Augmentations.


_SHOWN: Final = 6


def drawn_from_arguments(spec: AugmentationSpec) -> None:
    """Check that random numbers depend on seed and epoch alone, and have the same names and types in every epoch."""
    first, again, later, other = (
        draw_augmentation(spec, seed=seed, epoch=epoch, count=_SHOWN).numbers
        for seed, epoch in ((1, 0), (1, 0), (1, 3), (2, 0))
    )
    require(all(torch.equal(first[name], again[name]) for name in first), "two draws of one epoch differ")
    for found in (later, other):
        same = {name: (part.dtype, part.shape) for name, part in found.items()}
        require(same == {name: (part.dtype, part.shape) for name, part in first.items()}, "an epoch has other numbers")
    is_random = any(not torch.equal(first[name], later[name]) for name in first)
    require(is_random or not first, "every epoch draws the same numbers")


def levels_and_boxes(spec: AugmentationSpec) -> None:
    """Check that images stay float32 levels in [0, 255] of their shape, boxes boxes, and the originals as they were."""
    for channels in _channels(spec):
        images, boxes = _shown(channels)
        before = images.clone()
        varied, moved = _drawn(spec).apply(images, boxes)
        require(torch.equal(images, before), "the images that are varied are written to")
        inside = bool(varied.isfinite().all()) and float(varied.min()) >= 0 and float(varied.max()) <= 255
        require(inside, f"levels are from {float(varied.min()):.4g} to {float(varied.max()):.4g}, not in [0, 255]")
        ordered = bool(moved.isfinite().all()) and bool((moved[:, :2] <= moved[:, 2:]).all())
        require(ordered, "a moved box is not x1, y1, x2, y2")


def varied_alone(spec: AugmentationSpec) -> None:
    """Check that an image is varied alone as it is in a batch, and whole levels as the same levels in float32."""
    for channels in _channels(spec):
        images, boxes = _shown(channels)
        drawn = _drawn(spec)
        together, _ = drawn.apply(images, boxes)
        alone = torch.cat(
            [drawn.rows(slice(n, n + 1)).apply(images[n : n + 1], boxes[n : n + 1])[0] for n in range(_SHOWN)]
        )
        require_close(together, alone, 1e-2, "an image is varied otherwise in a batch than alone")
        require_close(together, drawn.apply(images.float(), boxes)[0], 1e-2, "float32 levels are varied otherwise")


AUGMENTATION_CHECKS: Final[Mapping[str, Callable[[AugmentationSpec], None]]] = {
    "numbers of the seed and epoch": drawn_from_arguments,
    "levels and boxes": levels_and_boxes,
    "images alone and together": varied_alone,
    "specification in JSON": stored_as(AnyAugmentation),
}
"""Every check of an augmentation, by the property that it checks."""


def _drawn(spec: AugmentationSpec) -> DrawnAugmentation:
    return draw_augmentation(spec, seed=1, epoch=0, count=_SHOWN)


def _channels(spec: AugmentationSpec) -> list[int]:
    """Return the numbers of channels, of grey and RGB, that can be varied."""
    found = []
    for channels in (1, 3):
        try:
            build_augmentation(spec).require_channels(channels)
        except InfeasibleError:
            continue
        found.append(channels)
    require(bool(found), "neither grey nor RGB images can be varied")
    return found


def _shown(channels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (_SHOWN, channels, 16, 16), generator=generator, dtype=torch.uint8)
    return images, torch.tensor([[-0.5, -0.5, 0.5, 0.5]]).repeat(_SHOWN, 1)


# Metrics.


@dataclass(frozen=True, slots=True)
class _Cases:
    """Images of four grey levels, one a class, and the answers of a perfect and a wrong classifier."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def value(self, metric: Metric, shift: int, order: NDArray[np.int64] | None = None) -> float:
        """Return the metric of a classifier that is right, or says a class beside the true one."""
        rows = np.arange(len(self.labels)) if order is None else order
        if metric.needs == "network":
            return float(metric.function()(lambda shown: _classify(shown, shift), self.images[rows], self.labels[rows]))
        return float(metric.function()(_classify(self.images[rows], shift), self.labels[rows]))


def _classify(images: NDArray[np.uint8], shift: int) -> NDArray[np.float64]:
    classes = (images.mean(axis=(1, 2, 3)) // 64).clip(0, CLASSES - 1).astype(int)
    probabilities: NDArray[np.float64] = np.full((len(images), CLASSES), 0.1)
    probabilities[np.arange(len(images)), (classes + shift) % CLASSES] = 0.7
    return probabilities


def _cases(labels: list[int]) -> _Cases:
    wanted = np.array(labels, np.int64)
    images = np.repeat((64 * wanted + 24).astype(np.uint8), 3 * 16 * 16).reshape(-1, 3, 16, 16)
    return _Cases(images, wanted)


def a_number(metric: Metric) -> None:
    """Check that the value is a finite number, the same at a second call and for images in another order."""
    cases = _cases([0, 1, 2, 3, 0, 0, 2, 3])
    value = cases.value(metric, 1)
    require(math.isfinite(value), f"it is {value}")
    require(cases.value(metric, 1) == value, "two calls differ")
    turned = cases.value(metric, 1, np.arange(8)[::-1].copy())
    require(math.isclose(turned, value, rel_tol=1e-6, abs_tol=0.02), f"in another order it is {turned}, not {value}")


def the_better_one(metric: Metric) -> None:
    """Check that a classifier that is always right is not worse than one that is always wrong."""
    cases = _cases([0, 1, 2, 3, 1, 2])
    right, wrong = cases.value(metric, 0), cases.value(metric, 1)
    is_so = right <= wrong if metric.better == "lower" else right >= wrong
    require(is_so, f"{metric.better} is better, and right is {right:.4g} where wrong is {wrong:.4g}")


def few_images(metric: Metric) -> None:
    """Check that one image, and classes without images, give a number."""
    for labels in ([2], [1, 1, 1]):
        value = _cases(labels).value(metric, 0)
        require(math.isfinite(value), f"of images of {labels} it is {value}")


def shares(metric: Metric) -> None:
    """Check that a metric in percent is a share in [0, 1]."""
    value = _cases([0, 1, 2, 3]).value(metric, 1)
    require(metric.unit != "%" or 0 <= value <= 1, f"its unit is %, which is for shares in [0, 1], and it is {value}")


METRIC_CHECKS: Final[Mapping[str, Callable[[Metric], None]]] = {
    "a finite number, determinism": a_number,
    "right is better than wrong": the_better_one,
    "one image, classes without images": few_images,
    "unit": shares,
}
"""Every check of a metric, by the property that it checks."""
