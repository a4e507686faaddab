"""The spatial transformer as a layer of anybody's model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import layer_in_torch
import pytest
import torch
from layer_in_torch import FAMILIES, VARIANTS, WAYS
from torch import Tensor, nn

from stnbench.core.errors import ExportError, InfeasibleError, ShapeError, SpecError, UnknownNameError
from stnbench.nn import SpatialTransformer
from stnbench.nn.onnx import export_onnx
from stnbench.spec.transformer import TRANSFORMERS, DenseLocnetSpec, Sampler

ONNX_TABLE = Path(__file__).parents[3] / "docs" / "onnx_table.py"


def layer(family: str = "affine", *, moved: float = 0.3, **options: Any) -> SpatialTransformer:
    """A small one for 3 x 16 x 20 images, whose last layer moves every image in another way."""
    torch.manual_seed(3)
    options = VARIANTS.get(family, {}) | options
    made = SpatialTransformer(family.split(maxsplit=1)[0], in_channels=3, size=(16, 20), locnet=(4, 4, 8), **options)
    if made.localization is not None:
        nn.init.normal_(made.localization.parameters_layer.weight, std=moved)
    return made.eval()


def images(batch: int = 2) -> Tensor:
    """Random images in [0, 1]."""
    return torch.rand(batch, 3, 16, 20, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("fixed_zoom", "roi")])
def test_a_new_layer_is_the_identity_and_its_weights_are_drawn(family: str) -> None:
    """It shows images as they are, and its first layers are not zero: it can learn at once."""
    made = SpatialTransformer(family, in_channels=3, size=(16, 20), locnet=(4, 4, 8))

    torch.testing.assert_close(made(images()), images(), rtol=0, atol=1e-5)
    assert made.localization is not None
    assert all(weight.abs().min().item() > 0 for weight in made.localization.features.parameters())


def test_a_layer_not_drawn_holds_zeros_and_the_identity() -> None:
    """No memory is left as it was found: every weight is zero, and the layer shows images as they are."""
    made = SpatialTransformer("affine", in_channels=3, size=(16, 20), locnet=(4, 4, 8), draw=False)

    assert made.localization is not None
    *others, bias = made.localization.parameters()
    assert all(not weight.any() for weight in others)
    assert bias.tolist() == [1, 0, 0, 0, 1, 0]
    torch.testing.assert_close(made(images()), images(), rtol=0, atol=1e-5)


def test_the_seed_of_torch_decides_the_weights() -> None:
    """``torch.manual_seed`` repeats a layer, as it repeats torch's own."""
    weights = [list(layer().parameters()) for _ in range(2)]

    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_theta_is_returned_where_it_is_asked_for() -> None:
    """The matrices come with their gradient, and the images are those of a call without them."""
    made = layer()
    shown, theta = made(images(), return_theta=True)

    assert torch.equal(shown, made(images()))
    assert theta.shape == (2, 2, 3)
    assert theta.requires_grad
    expected = made.transformation.grid(made.locate(images()), (16, 20), align_corners=True)
    torch.testing.assert_close(nn.functional.affine_grid(theta, [2, 3, 16, 20], align_corners=True), expected)


def test_a_model_with_the_layer_learns() -> None:
    """Dropped into a model of torch, its localisation network gets gradients and a step lowers the loss."""
    model = nn.Sequential(layer(moved=0.01), nn.Flatten(), nn.Linear(3 * 16 * 20, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(images(8)), torch.arange(8) % 5)
        optimizer.zero_grad()
        loss.backward()
        assert all(weight.grad is not None for weight in model.parameters())
        optimizer.step()
        losses.append(loss.item())

    assert losses[2] < losses[1] < losses[0]


def test_options_are_keys_of_the_specification() -> None:
    """How images are read, and what a family alone knows, is said by name."""
    made = layer("tps", control_points=3, sampler="bicubic", output_size=8)

    assert made.transformation.number_of_parameters == 18
    assert made(images()).shape == (2, 3, 8, 8)


def test_another_localisation_network_is_given_by_its_specification() -> None:
    """A dense one, for example."""
    made = SpatialTransformer("scale", in_channels=1, size=9, locnet=DenseLocnetSpec(sizes=(5,)))

    assert made(torch.rand(2, 1, 9, 9)).shape == (2, 1, 9, 9)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"family": "afine"}, UnknownNameError, "afine.*did you mean affine"),
        ({"samplr": "bicubic"}, UnknownNameError, "samplr.*did you mean sampler"),
        ({"sampler": "trilinear"}, UnknownNameError, "trilinear"),
        ({"output_size": 1}, SpecError, "output_size is 1"),
        ({"branches": 2}, SpecError, "branches is 2.*ParallelTransformers"),
        ({"locnet": (1, 2)}, SpecError, "locnet.sizes"),
        ({"locnet": None}, SpecError, "locnet is None"),
        ({"size": 7}, InfeasibleError, "pools its 3 x 7 x 7 input to nothing"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    """A name, a value or a size that cannot be meant is named, with what could be."""
    with pytest.raises(error, match=message):
        SpatialTransformer(**{"family": "affine", "in_channels": 3, "size": 16, **settings})


def test_images_of_another_size_are_refused() -> None:
    """The message says what the layer was made for."""
    with pytest.raises(ShapeError, match=r"\(2, 3, 20, 16\).*\(batch, 3, 16, 20\)"):
        layer()(images().mT)


@pytest.mark.parametrize(("family", "sampler"), WAYS)
def test_the_layer_can_be_mapped(family: str, sampler: str) -> None:
    """``torch.func.vmap`` over a further dimension is a loop over it."""
    made, batches = layer(family, sampler=sampler), torch.stack([images(), images().flip(0)])

    with torch.no_grad():
        mapped = torch.func.vmap(made)(batches)

    torch.testing.assert_close(mapped, torch.stack([made(batch) for batch in batches]))


@pytest.fixture(scope="module")
def in_torch() -> dict[str, Any]:
    """What ``tests/support/layer_in_torch.py`` found."""
    done = subprocess.run(
        [sys.executable, layer_in_torch.__file__], capture_output=True, text=True, check=True, timeout=220
    )
    return dict(json.loads(done.stdout))


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize(("family", "sampler"), WAYS)
def test_compilers_and_exporters_agree(family: str, sampler: str, in_torch: dict[str, Any]) -> None:
    """One graph for ``torch.compile`` and a program of ``torch.export`` give the same images.

    Far from the identity, and for batches of any size.
    """
    assert in_torch[f"compiled {family} {sampler}"] <= 1e-5
    assert in_torch[f"exported {family} {sampler}"] <= 1e-5


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("part", [*get_args(Sampler), "variants", "networks"])
def test_every_onnx_file_agrees_or_is_refused(part: str, tmp_path: Path) -> None:
    """Every family with every sampler, keys that change the program, and every network: to 1e-4, or nothing is left.

    In a process of its own, because the shapes that tests check at every call cannot be traced.
    """
    rows = tmp_path / "rows.jsonl"
    subprocess.run([sys.executable, str(ONNX_TABLE), str(rows), part], check=True, timeout=1200, capture_output=True)
    done = [json.loads(line) for line in rows.read_text().splitlines()]
    families = [row["subject"] for row in done] if part in get_args(Sampler) else TRANSFORMERS.names()
    assert families == TRANSFORMERS.names()
    for row in done:
        agrees = row["difference"] is not None and row["difference"] <= 1e-4 and row["files"] == ["module.onnx"]
        is_refused = row["difference"] is None and row["subject"] == "roi" and "boxes" in row["refused"]
        assert agrees or (is_refused and row["files"] == []), row


def test_a_layer_that_reads_boxes_is_not_exported(tmp_path: Path) -> None:
    """The reason is what is missing, a file of that name stays, and nothing else is left."""
    (tmp_path / "layer.onnx").write_bytes(b"old")
    with pytest.raises(ExportError, match=r"reads more than images \(the boxes for roi.*nothing was written"):
        export_onnx(layer("roi"), images(), tmp_path / "layer.onnx")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("layer.onnx", b"old")]


@pytest.mark.thorough
@pytest.mark.slow
def test_an_onnx_file_that_disagrees_is_not_written(in_torch: dict[str, Any]) -> None:
    """A module whose export differs from it, or has no counterpart, is refused and leaves nothing behind."""
    differs, left = in_torch["OnlyInTorch"]
    assert differs.startswith("the ONNX export of OnlyInTorch differs from torch by 1:")
    assert left == []
    unknown, left = in_torch["Unknown"]
    assert unknown.startswith("Unknown cannot be exported to ONNX (")
    assert "matrix_exp" in unknown
    assert left == []
