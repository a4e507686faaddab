"""Health of spatial transformers while a network learns: statistics of theta, dead units and gradients."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from stnbench.diagnostics.pose import PoseMeter, RunningMoments, sample_points
from stnbench.models.classifiers import StnClassifier, TransformerRecord
from stnbench.models.scored_network import Key, Model, localization_networks
from stnbench.spec.result import LARGEST_AREA, LOST_OUTSIDE, SMALLEST_AREA, TransformerHealth

# Hidden units of localisation networks that are off for every image.


class UnitWatch:
    """Watch on the last hidden layer of every localisation network, over the images of one pass.

    A unit behind a ReLU that is 0 for an image gets no gradient from it. Where all are for all images, the
    transformation is the last layer's bias, the same for every image. Images of all views count.

    Args:
        model: the model of the localisation networks; compiled networks and those without hidden layers are left out.
    """

    def __init__(self, model: Model) -> None:
        found = {} if model.compute.compile else localization_networks(model.network)
        self._networks = {key: network for key, network in found.items() if len(network.hidden)}
        self._on: dict[Key, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[dict[Key, Tensor]]:
        """Watch the images that go through the network within the context.

        Yields:
            Which units were on for any of them, bool (units,) by transformer; it is filled as they go through.
        """
        on: dict[Key, Tensor] = {}
        handles = [network.hidden.register_forward_hook(_look(on, key)) for key, network in self._networks.items()]
        try:
            yield on
        finally:
            for handle in handles:
                handle.remove()

    def add(self, on: Mapping[Key, Tensor]) -> None:
        """Add the units that were on for any image of a batch."""
        for key, units in on.items():
            self._on[key] = units.clone() if key not in self._on else torch.logical_or(self._on[key], units)

    def completed(self, healths: tuple[TransformerHealth, ...]) -> tuple[TransformerHealth, ...]:
        """Return the health of transformers with the ``dead_share`` in [0, 1], None for those that were not watched."""
        shares = {key: 1 - float(on.double().mean()) for key, on in self._on.items()}
        return tuple(replace(health, dead_share=shares.get((health.place, health.branch))) for health in healths)


def _look(on: dict[Key, Tensor], key: Key) -> Callable[[nn.Module, object, Tensor], None]:
    def look(_module: nn.Module, _inputs: object, hidden: Tensor) -> None:
        units = (hidden.detach() > 0).any(dim=0)
        on[key] = units if key not in on else torch.logical_or(on[key], units)

    return look


# Gradients of the localisation networks, relative to those of the classifier.


EVERY_STEPS: Final = 10
"""Steps between measurements of the gradients, from the first step of an epoch on: often enough for a mean."""


class GradientMeter:
    """Meter of the gradients of one epoch, at every ``EVERY_STEPS``-th step; the host never waits for it.

    Args:
        network: the network whose gradients are measured.
    """

    def __init__(self, network: StnClassifier) -> None:
        self._classifier = _MeanSquare(network.classifier_parameters())
        networks = localization_networks(network)
        self._localization = {key: _MeanSquare(found.parameters()) for key, found in networks.items()}
        self._steps = 0

    def look(self) -> None:
        """Measure the gradients that the last step left, if they are due; steps of torch's SGD do not change them."""
        if self._localization and self._steps % EVERY_STEPS == 0:
            for meter in (self._classifier, *self._localization.values()):
                meter.add()
        self._steps += 1

    def ratios(self) -> dict[Key, float | None]:
        """Return the ratio of each localisation network's gradient to that of the classifier, by transformer.

        Each gradient is a root mean square over parameters and over the measured steps. The ratio is None where it is
        not a finite number.
        """
        classifier = self._classifier.root()
        return {key: _ratio(own.root(), classifier) for key, own in self._localization.items()}


class _MeanSquare:
    """Mean square of the gradients of some parameters, over parameters and measurements."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._numbers = sum(parameter.numel() for parameter in self._parameters)
        self._sums: list[Tensor] = []

    def add(self) -> None:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        self._sums.append(get_total_norm(gradients).double().square())

    def root(self) -> float:
        if not self._sums:
            return 0.0
        return math.sqrt(float(torch.stack(self._sums).mean()) / self._numbers)


def _ratio(over: float, under: float) -> float | None:
    ratio = over / under if under else math.nan
    return ratio if math.isfinite(ratio) else None


# Running statistics of a spatial transformer over the images of one pass, behind ``TransformerHealth``.


Looks = tuple[tuple[float, ...], ...]
"""Parameters of a transformer in each iteration."""

_IDENTITY: Final = torch.tensor([1, 0, 0, 0, 1, 0], dtype=torch.float64)

_THETA, _POINTS = 6, 9


class HealthMeter:
    """Health of one spatial transformer, gathered batch by batch with no batch kept.

    An image with a number that is not finite is counted, and left out of all other statistics.

    Convention: theta maps normalised output to input coordinates.

    Args:
        place: the stage that the transformer stands before, from 1.
        branch: the branch of the transformer at this place, from 1.
    """

    def __init__(self, place: int, branch: int = 1) -> None:
        self._place = place
        self._branch = branch
        self._images = 0
        self._theta = RunningMoments(_THETA)
        self._mapped = RunningMoments(2 * _POINTS)
        self._scalars = RunningMoments(5)

    def add(
        self,
        theta_out_to_in: Float[Tensor, "batch 2 3"],
        mapped: Float[Tensor, "batch 9 2"],
        outside_share: Float[Tensor, " batch"],
    ) -> None:
        """Update the statistics with one batch, which is not empty.

        Args:
            theta_out_to_in: the matrix of every image, from output to input coordinates.
            mapped: the points of the input that are read for ``pose.sample_points`` of the output.
            outside_share: the share, in [0, 1], of sampling points outside the image.
        """
        parts = (theta_out_to_in.flatten(1), mapped.flatten(1), outside_share[:, None])
        rows = torch.cat(parts, dim=1).detach().double().cpu()  # one transfer a batch
        self._images += len(rows)
        rows = rows[rows.isfinite().all(dim=1)]
        theta, points, outside = torch.split(rows, [_THETA, 2 * _POINTS, 1], dim=1)
        self._theta.add(theta)
        self._mapped.add(points)
        self._scalars.add(_scalars(theta, outside[:, 0]))

    def result(self, pose: PoseMeter | None = None) -> TransformerHealth:
        """Return the health over all images added, at least one.

        Args:
            pose: the meter of the theta error, where poses are known.
        """
        determinant, largest, smallest, outside, lost = self._scalars.mean.tolist()
        is_known = self._theta.count > 0
        still = sample_points().double().flatten()
        movement = self._mapped.variance + (self._mapped.mean - still) ** 2
        distance = self._theta.variance + (self._theta.mean - _IDENTITY) ** 2
        error = None if pose is None else pose.error()
        identity_error = None if pose is None else pose.identity_error()
        return TransformerHealth(
            place=self._place,
            branch=self._branch,
            theta_mean=tuple(self._theta.mean.tolist()),
            theta_std=tuple(self._theta.variance.sqrt().tolist()),
            outside_share=outside,
            identity_distance=math.sqrt(float(distance.mean())) if is_known else 0.0,
            determinant_mean=determinant,
            theta_error=None if error is None else error.mean,
            theta_error_far_share=None if error is None else error.far_share,
            theta_error_identity=None if identity_error is None else identity_error.mean,
            theta_error_identity_far_share=None if identity_error is None else identity_error.far_share,
            movement=math.sqrt(float(movement.sum()) / _POINTS) if is_known else 0.0,
            movement_spread=math.sqrt(float(self._mapped.variance.sum()) / _POINTS),
            singular_max_mean=largest,
            singular_min_mean=smallest,
            lost_share=lost,
            finite_share=self._theta.count / self._images,
        )


def _scalars(theta: Float[Tensor, "batch 6"], outside: Float[Tensor, " batch"]) -> Float[Tensor, "batch 5"]:
    """Return five numbers for every image, from theta row by row and the share of points outside the image.

    They are the determinant of theta's 2 x 2 part, its larger and smaller singular value, the share outside, and 1 if
    the image is lost, else 0. The singular values are the sum and the difference of two lengths: the part is a rotation
    times one of them plus a reflection times the other.
    """
    a, b, _, c, d, _ = theta.unbind(dim=1)
    determinant = a * d - b * c
    turned, mirrored = torch.hypot(a + d, c - b) / 2, torch.hypot(a - d, b + c) / 2
    is_lost = (determinant.abs() < SMALLEST_AREA) | (determinant.abs() > LARGEST_AREA) | (outside > LOST_OUTSIDE)
    return torch.stack([determinant, turned + mirrored, (turned - mirrored).abs(), outside, is_lost.double()], dim=1)


class TransformerWatch:
    """Watch on all spatial transformers of a network, batch by batch."""

    def __init__(self) -> None:
        self._health: dict[Key, HealthMeter] = {}
        self._looks: dict[Key, tuple[RunningMoments, ...]] = {}
        self._poses: dict[Key, PoseMeter] = {}

    def add(self, records: Sequence[TransformerRecord], poses: Float[Tensor, "batch 3 3"] | None) -> None:
        """Update the statistics with the transformers' output for one batch.

        Args:
            records: the output of each transformer.
            poses: the true poses, from sign to image coordinates; None where they are not known.
        """
        for record in records:
            key = (record.place, record.branch)
            health = self._health.setdefault(key, HealthMeter(*key))
            health.add(record.done.theta_out_to_in, _mapped(record), record.done.outside_share)
            self._add_looks(key, record)
            chain = chain_to(record, records)
            if poses is not None and chain is not None:
                self._pose_meter(key, chain[0]).add(chain, poses)

    def results(self) -> tuple[TransformerHealth, ...]:
        """Return the health of each transformer, by ascending place and branch."""
        return tuple(meter.result(self._poses.get(key)) for key, meter in self._health.items())

    def mean_parameters(self) -> dict[Key, Looks]:
        """Return the mean parameters in each iteration.

        Transformers whose parameters are finite for no image are left out.
        """
        return {
            key: tuple(tuple(look.mean.tolist()) for look in looks)
            for key, looks in self._looks.items()
            if all(look.count for look in looks)
        }

    def _add_looks(self, key: Key, record: TransformerRecord) -> None:
        looks = record.done.parameters
        if key not in self._looks:
            self._looks[key] = tuple(RunningMoments(look.shape[1]) for look in looks)
        for meter, look in zip(self._looks[key], looks, strict=True):
            meter.add(look.detach().double().cpu())

    def _pose_meter(self, key: Key, first: TransformerRecord) -> PoseMeter:
        """Return the meter of a transformer; poses are in coordinates of the image, which ``first`` reads."""
        if key not in self._poses:
            height, width = first.done.images.shape[-2:]
            self._poses[key] = PoseMeter((height, width), align_corners=first.done.align_corners)
        return self._poses[key]


def _mapped(record: TransformerRecord) -> Float[Tensor, "batch 9 2"]:
    """Return the points of the transformer's input that are read for the nine points of its output."""
    like = record.done.parameters[0]
    mapped = record.done.map_points(sample_points().to(like.device)[None])
    return mapped.expand(len(like), -1, -1)


def chain_to(record: TransformerRecord, records: Sequence[TransformerRecord]) -> list[TransformerRecord] | None:
    """Return the transformers from the image to this one, or None where earlier branches are joined, without a map.

    A transformer of feature maps counts as one of the image under them: stages shift maps by less than their pixel.
    """
    before = [other for other in records if other.place < record.place]
    if any(other.branch > 1 for other in before):
        return None
    return [*before, record]
