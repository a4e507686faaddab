"""Where transformers read the image, and the picture that gives."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from stnbench.diagnostics.stability import lattice, look, render, sampled_regions
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.training.step import TrainingRun

MakeRun = Callable[[TrialSpec], TrainingRun]
LOCNET = ConvLocnetSpec(sizes=(3, 4, 5))


def placed(place: int, zoom: float, *, align_corners: bool = True) -> PlacedTransformerSpec:
    """A fixed zoom before a stage."""
    family = TransformerSpec(family="fixed_zoom", zoom=zoom, align_corners=align_corners)
    return PlacedTransformerSpec(place=place, transformer=family, locnet=None)


def regions_of(run: TrainingRun, images: int = 6) -> tuple[torch.Tensor, ...]:
    """Where each transformer of a run's network reads its first images."""
    explained = look(run.model, run.images.images[:images], run.images.boxes[:images])
    return tuple(region.points for region in sampled_regions(explained.transformers, lattice()))


def test_a_lattice_goes_from_edge_to_edge() -> None:
    """Row by row, x fastest."""
    assert lattice(3).tolist()[:4] == [[-1, -1], [0, -1], [1, -1], [-1, 0]]
    assert lattice().shape == (81, 2)


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_identity_reads_the_image_from_edge_to_edge(
    make_run: MakeRun, toy_spec: TrialSpec, align_corners: bool
) -> None:
    """Whether -1 and 1 are edges or centres of pixels within the transformer does not show outside."""
    transformer = PlacedTransformerSpec(
        place=1, locnet=LOCNET, transformer=TransformerSpec(align_corners=align_corners)
    )
    [points] = regions_of(make_run(dataclasses.replace(toy_spec, transformers=(transformer,))))
    assert torch.allclose(points, lattice().expand(6, -1, -1), atol=1e-6)


def test_transformers_one_behind_another_are_composed(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """A zoom of 0.5 before a zoom of 0.8 shows 0.4 of the image, though the second one reads a smaller map."""
    spec = dataclasses.replace(toy_spec, transformers=(placed(1, 0.5), placed(2, 0.8)))
    first, second = regions_of(make_run(spec))
    assert torch.allclose(first, 0.5 * lattice().expand(6, -1, -1), atol=1e-6)
    assert torch.allclose(second, 0.4 * lattice().expand(6, -1, -1), atol=1e-6)


def test_behind_joined_branches_there_is_no_map(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """Both branches before the first stage are shown, the transformer behind them is not."""
    branched = PlacedTransformerSpec(place=1, locnet=LOCNET, transformer=TransformerSpec(branches=2))
    run = make_run(dataclasses.replace(toy_spec, transformers=(branched, placed(2, 0.8))))
    explained = look(run.model, run.images.images[:2], run.images.boxes[:2])
    found = sampled_regions(explained.transformers, lattice())
    assert [(region.place, region.branch) for region in found] == [(1, 1), (1, 2)]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("zoom", [0.5, 0.9, 1.3])
def test_the_picture_is_what_the_transformer_puts_out(
    make_run: MakeRun, toy_spec: TrialSpec, zoom: float, align_corners: bool
) -> None:
    """Behind the image itself it is the transformer's own output, to a hundredth of a grey level."""
    spec = dataclasses.replace(toy_spec, transformers=(placed(1, zoom, align_corners=align_corners),))
    run = make_run(spec)
    images, boxes = run.images.images[:4], run.images.boxes[:4]
    [record] = look(run.model, images, boxes).transformers
    [region] = sampled_regions([record], lattice())
    shown = render(images, region.points, spec.transformers[0].transformer, fill=0.25 * 255)
    preprocess = dataclasses.replace(spec.preprocess, contrastive_norm=False)
    plain = make_run(dataclasses.replace(spec, preprocess=preprocess))
    [record] = look(plain.model, images, boxes).transformers
    assert torch.allclose(shown, record.done.images * 0.25 * 255 + 0.25 * 255, atol=0.01)


def test_looking_leaves_the_network_as_it_was(make_run: MakeRun, toy_spec: TrialSpec) -> None:
    """It goes on training where it was training."""
    run = make_run(toy_spec)
    for training in (True, False):
        run.model.network.train(training)
        look(run.model, run.images.images[:2], run.images.boxes[:2])
        assert run.model.network.training == training
