"""Stability of the signs in the output of a trained network's transformers, measured on its validation tracks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stnbench.core.errors import SpecError
from stnbench.core.identity import derive_seed
from stnbench.data.homographies import map_boxes
from stnbench.diagnostics.stability import (
    CORNERS,
    WARPS,
    SampledRegion,
    TrackMean,
    corner_spread,
    equivariance_error,
    lattice,
    look,
    pixel_variance,
    quadrilateral_area,
    quadrilateral_iou,
    render,
    sampled_regions,
    sign_coordinates,
    sign_movement,
    track_mean,
    track_means,
    track_ratio,
    warp_images,
)
from stnbench.trials.watch import TrainedNetwork, transformer_at

_BATCH: Final = 250


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One measure of a transformer, means over tracks.

    Attributes:
        name: name of the measure.
        unit: its unit; empty for a share or a ratio.
        transformer: value for the transformer itself.
        identity: value for the identity in its place.
        zoom: value for the fixed zoom in its place.
        to_identity: ratio of transformer to identity, on the same tracks.
        to_zoom: ratio of transformer to zoom, on the same tracks.
    Each is None if no track has a finite value, a ratio also if its denominator is 0.
    """

    name: str
    unit: str
    transformer: TrackMean | None
    identity: TrackMean | None
    zoom: TrackMean | None
    to_identity: TrackMean | None
    to_zoom: TrackMean | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerStability:
    """Stability of one transformer, the ``branch``-th at its ``place``.

    ``zoom`` is the fixed zoom it is compared with: the mean share of a side that the transformer reads.
    """

    place: int
    branch: int
    zoom: float
    measures: tuple[Measure, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stability:
    """Stability of a network's transformers over a number of validation tracks and images.

    ``sign`` is the source of the sign's coordinates: its true ``pose``, or its annotated ``box``.
    """

    tracks: int
    images: int
    sign: str
    transformers: tuple[TransformerStability, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sample:
    """The measured images, with the track of each on the CPU."""

    network: TrainedNetwork
    images: Tensor
    boxes: Tensor
    poses: Tensor | None
    tracks: Tensor
    seed: int

    def regions(self, warp: Tensor | None = None) -> tuple[SampledRegion, ...]:
        """Return the region that each transformer reads of the images, or of warped images, on the CPU."""
        parts = []
        for images, boxes in zip(torch.split(self.images, _BATCH), torch.split(self.boxes, _BATCH), strict=True):
            seen, where = images, boxes
            if warp is not None:
                seen = warp_images(images, warp)
                to_warped = torch.linalg.inv(warp).to(boxes).expand(len(boxes), -1, -1)
                where = map_boxes(to_warped, boxes)
            records = look(self.network.model, seen, where).transformers
            parts.append(sampled_regions(records, lattice().to(boxes.device)))
        return tuple(
            SampledRegion(
                place=one[0].place, branch=one[0].branch, points=torch.cat([part.points for part in one]).cpu()
            )
            for one in zip(*parts, strict=True)
        )


def measure_stability(network: TrainedNetwork, *, count: int | None, seed: int) -> Stability:
    """Measure the transformers of a network on its validation tracks, or on ``count`` of them drawn by the seed.

    Raises:
        SpecError: if there are fewer.
    """
    sample = _draw(network, count, seed)
    warped = {family: [sample.regions(warp) for warp in warps] for family, warps in WARPS.items()}
    found = []
    for index, region in enumerate(sample.regions()):
        errors = {family: [regions[index].points for regions in seen] for family, seen in warped.items()}
        found.append(_measure(sample, region, errors))
    return Stability(
        tracks=len(torch.unique(sample.tracks)),
        images=len(sample.tracks),
        sign="box" if sample.poses is None else "pose",
        transformers=tuple(found),
    )


def _draw(network: TrainedNetwork, count: int | None, seed: int) -> _Sample:
    data = network.data
    rows = data.split.validation
    known = np.unique(data.tracks[rows])
    if count is not None:
        if not 1 <= count <= len(known):
            problem = f"{count} tracks are asked for, and {len(known)} are held out"
            raise SpecError(problem, remedy=f"ask for 1 to {len(known)}")
        drawn = np.random.default_rng(derive_seed(seed, "tracks")).permutation(known)[:count]
        rows = rows[np.isin(data.tracks[rows], drawn)]
    on_device = torch.from_numpy(rows).to(data.images.labels.device)
    images = data.images
    return _Sample(
        network=network,
        images=images.images[on_device],
        boxes=images.boxes[on_device],
        poses=None if images.poses is None else images.poses[on_device].cpu(),
        tracks=torch.from_numpy(data.tracks[rows]),
        seed=seed,
    )


def _measure(sample: _Sample, region: SampledRegion, warped: dict[str, list[Tensor]]) -> TransformerStability:
    corner_rows = [int((lattice() == torch.tensor(corner)).all(dim=1).nonzero()) for corner in CORNERS]
    zoom = float((quadrilateral_area(region.points[:, corner_rows]) / 4).sqrt().mean())
    still = lattice().expand(len(sample.tracks), -1, -1)
    rivals = (region.points, still, still * zoom)

    def compared(name: str, unit: str, of_points: Callable[[Tensor], Tensor]) -> Measure:
        return _compare(name, unit, [of_points(points).numpy() for points in rivals], sample.seed)

    def in_sign(points: Tensor) -> Tensor:
        return sign_coordinates(points[:, corner_rows], sample.boxes.cpu(), sample.poses)

    def overlap(points: Tensor) -> Tensor:
        return track_means(quadrilateral_iou(points[:, corner_rows], sample.boxes.double().cpu()), sample.tracks)

    measures = [
        compared("corner spread", "half sides of the sign", lambda at: corner_spread(in_sign(at), sample.tracks)),
        compared("sign movement", "half sides of the output", lambda at: sign_movement(in_sign(at), sample.tracks)),
        compared("IoU with the box", "", overlap),
        compared("pixel variance", "share of the input's", lambda at: _variance_share(sample, region.place, at)),
        *(_equivariance(sample, family, seen, rivals) for family, seen in warped.items()),
    ]
    return TransformerStability(place=region.place, branch=region.branch, zoom=zoom, measures=tuple(measures))


def _variance_share(sample: _Sample, place: int, points: Tensor) -> Tensor:
    """Return the pixel variance along each track of the transformer's output, relative to that of the images."""
    spec = transformer_at(sample.network.spec, place)
    shown = [
        render(images, at.to(images.device), spec, fill=sample.network.fill)
        for images, at in zip(torch.split(sample.images, _BATCH), torch.split(points, _BATCH), strict=True)
    ]
    return pixel_variance(torch.cat(shown), sample.tracks) / pixel_variance(sample.images, sample.tracks)


def _equivariance(sample: _Sample, family: str, warped: list[Tensor], rivals: tuple[Tensor, ...]) -> Measure:
    """Return the error under the warps of a family; identity and zoom read the same points of every image."""
    of_rivals = []
    for index, plain in enumerate(rivals):
        errors = [
            equivariance_error(warp, seen if index == 0 else plain, plain)
            for warp, seen in zip(WARPS[family], warped, strict=True)
        ]
        of_rivals.append(track_means(torch.stack(errors).mean(dim=0), sample.tracks).numpy())
    return _compare(f"equivariance error, {family}", "half sides of the image", of_rivals, sample.seed)


def _compare(name: str, unit: str, values: list[NDArray[np.float64]], seed: int) -> Measure:
    own, identity, zoom = values
    return Measure(
        name=name,
        unit=unit,
        transformer=track_mean(own, seed=seed),
        identity=track_mean(identity, seed=seed),
        zoom=track_mean(zoom, seed=seed),
        to_identity=track_ratio(own, identity, seed=seed),
        to_zoom=track_ratio(own, zoom, seed=seed),
    )
