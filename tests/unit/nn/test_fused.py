"""Kernels in Triton give what the layers of torch give, forward and backward, as Triton's interpreter runs them."""

import importlib
import importlib.util
import math
import sys
from collections.abc import Iterator
from types import ModuleType

import jaxtyping
import pytest
import step_cases
import torch
from torch import Tensor, nn

from stnbench.core.errors import EngineError, InfeasibleError
from stnbench.data.preprocessing import GlobalStatistics
from stnbench.models.classifiers import build_network
from stnbench.models.scored_network import build_model, choose_kernels
from stnbench.nn.layers import CONTRASTIVE_KERNELS, ContrastiveNorm
from stnbench.spec.network import LecunSpec
from stnbench.spec.trial import ComputeOptions

pytestmark = pytest.mark.slow

if importlib.util.find_spec("triton") is None:  # only imported where it is to interpret
    pytest.skip("torch brings Triton where it is built for CUDA", allow_module_level=True)

NAME = "stnbench.nn.fused"


def is_of_triton(name: str) -> bool:
    """Whether a module decides at its import how kernels run; those in C are imported once a process."""
    return name == NAME or (name.partition(".")[0] == "triton" and not name.startswith("triton._C"))


@pytest.fixture(scope="module", autouse=True)
def fused() -> Iterator[ModuleType]:
    """The kernels, to be run by the interpreter on the CPU, and a Triton that does; both are gone afterwards."""
    before = {name: module for name, module in sys.modules.items() if is_of_triton(name)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRITON_INTERPRET", "1")
        for name in before:
            del sys.modules[name]
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            yield importlib.import_module(NAME)
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)
            for name in [name for name in sys.modules if is_of_triton(name)]:
                del sys.modules[name]
            sys.modules.update(before)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(layer: nn.Module, maps: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The output of a layer, and the gradient of its input."""
    own = maps.detach().clone().requires_grad_()
    result = layer(own)
    result.backward(gradient)
    assert own.grad is not None
    return result.detach(), own.grad


def both_norms(kernel: str, height: int, width: int, fused: ModuleType) -> tuple[nn.Module, nn.Module]:
    """The reference, and the same layer by the kernels."""
    pair = [ContrastiveNorm(CONTRASTIVE_KERNELS[kernel], height=height, width=width) for _ in range(2)]
    fused.use_fused_kernels(nn.Sequential(pair[1]))
    assert type(pair[1]).__name__ == "FusedContrastiveNorm"
    return pair[0], pair[1]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((2, 3, 16, 16), "gaussian"),
        ((1, 1, 5, 7), "box"),
        ((3, 38, 11, 9), "gaussian"),
        ((2, 13, 24, 17), "box"),
        ((1, 3, 48, 48), "gaussian"),
        ((1, 2, 1, 64), "box"),
    ],
)
def test_a_contrastive_norm_is_the_layer_s(
    shape: tuple[int, ...], kernel: str, layout: torch.memory_format, fused: ModuleType
) -> None:
    """Outputs and gradients agree to float32's rounding: odd sizes, one pixel, more channels than a program holds."""
    maps, gradient = (drawn(*shape, seed=seed).contiguous(memory_format=layout) for seed in (1, 2))
    reference, kernels = both_norms(kernel, shape[2], shape[3], fused)
    for found, expected in zip(run(kernels, maps, gradient), run(reference, maps, gradient), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_flat_maps_have_finite_gradients_as_the_layer_s(fused: ModuleType) -> None:
    """Below the threshold no gradient passes through the deviation; an image that is flat in part has both."""
    maps = torch.full((2, 3, 12, 12), 0.25)
    maps[1, :, :, 8:] = drawn(3, 12, 4)
    reference, kernels = both_norms("gaussian", 12, 12, fused)
    for found, expected in zip(
        run(kernels, maps, drawn(2, 3, 12, 12, seed=3)), run(reference, maps, drawn(2, 3, 12, 12, seed=3)), strict=True
    ):
        assert torch.isfinite(found).all()
        # numbers near 0 are divided by 1e-4, and so are their rounding errors, in another order
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-2)


def test_a_contrastive_norm_in_bfloat16_computes_in_float32(fused: ModuleType) -> None:
    """As the layer does: the output is that of float32, rounded once."""
    maps, gradient = (drawn(2, 6, 10, 10, seed=seed).bfloat16() for seed in (1, 2))
    reference, kernels = both_norms("box", 10, 10, fused)
    for found, expected in zip(run(kernels, maps, gradient), run(reference, maps, gradient), strict=True):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_a_gradient_of_another_layout_is_taken_as_it_lies(fused: ModuleType) -> None:
    """A gradient that is expanded or transposed has strides of its own."""
    maps, gradient = drawn(2, 4, 8, 8), torch.ones(()).expand(2, 4, 8, 8)
    reference, kernels = both_norms("box", 8, 8, fused)
    for found, expected in zip(run(kernels, maps, gradient), run(reference, maps, gradient), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    turned = drawn(2, 4, 8, 8, seed=5).transpose(2, 3)
    torch.testing.assert_close(run(kernels, maps, turned)[1], run(reference, maps, turned)[1], rtol=1e-5, atol=1e-5)


def pools(fused: ModuleType) -> tuple[nn.Module, nn.Module]:
    """Torch's pooling, and that by the kernels."""
    mine = nn.Sequential(nn.MaxPool2d(2))
    fused.use_fused_kernels(mine)
    assert type(mine[0]).__name__ == "FusedMaxPool2d"
    return nn.MaxPool2d(2), mine


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 5, 7, 9), (3, 1, 2, 3), (2, 38, 24, 24), (1, 2, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_is_torch_s_to_the_last_bit(
    shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype, fused: ModuleType
) -> None:
    """Values, layout and gradients, with odd rows and columns dropped, and equal maxima in every window."""
    maps = drawn(*shape).round(decimals=0).to(dtype).contiguous(memory_format=layout)
    reference, kernels = pools(fused)
    gradient = drawn(*reference(maps).shape, seed=4).to(dtype)
    for found, expected in zip(run(kernels, maps, gradient), run(reference, maps, gradient), strict=True):
        assert torch.equal(found, expected)
        assert found.dtype == dtype
    assert kernels(maps).is_contiguous(memory_format=layout)


def test_pooling_hands_on_what_is_no_number(fused: ModuleType) -> None:
    """NaN wins as in torch, and gets the gradient; infinities are numbers."""
    maps = torch.tensor([[1.0, math.nan, 2.0, math.inf], [3.0, 4.0, math.inf, -math.inf]])[None, None]
    reference, kernels = pools(fused)
    gradient = torch.tensor([[1.0, 2.0]])[None, None]
    for found, expected in zip(run(kernels, maps, gradient), run(reference, maps, gradient), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_other_layers_are_left_alone(fused: ModuleType) -> None:
    """Pooling of other windows, with other steps, or of whole maps stays torch's."""
    layers = [nn.MaxPool2d(3), nn.MaxPool2d(2, stride=1), nn.MaxPool2d(2, padding=1), nn.MaxPool2d((2, 1))]
    module = nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True), nn.AdaptiveAvgPool2d(1), nn.MaxPool2d((2, 2)))
    fused.use_fused_kernels(module)
    assert [type(layer).__name__.startswith("Fused") for layer in module] == [False] * 6 + [True]


def test_maps_that_are_too_large_are_refused(fused: ModuleType) -> None:
    """By name, and before anything is trained: nothing falls back."""
    norm = ContrastiveNorm(CONTRASTIVE_KERNELS["box"], height=20, width=65)
    with pytest.raises(InfeasibleError, match="20 x 65 pixels, and fused_kernels are asked for"):
        fused.use_fused_kernels(norm)


def test_a_whole_network_takes_the_same_step(toy_network: tuple[nn.Module, nn.Module]) -> None:
    """Logits, and the gradients of all weights, with the names of the weights as they were."""
    plain, kernels = toy_network
    losses = [network(drawn(3, 3, 24, 24), None).square().sum() for network in (plain, kernels)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-5)
    for loss in losses:
        loss.backward()
    weights = [dict(network.named_parameters()) for network in (plain, kernels)]
    assert list(weights[0]) == list(weights[1])
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name].grad, weight.grad, rtol=1e-3, atol=1e-4)


@pytest.fixture
def toy_network(fused: ModuleType) -> tuple[nn.Module, nn.Module]:
    """A network of 2015 with norms inside, and the same by the kernels."""
    import step_cases

    spec = step_cases.trial(step_cases.placed(), network=LecunSpec(sizes=(4, 5, 6)))
    networks = [build_network(spec, classes=4, seed=1) for _ in range(2)]
    choose_kernels(networks[1], nn.Identity(), ComputeOptions(fused_kernels=True))
    kinds = [type(layer).__name__ for layer in networks[1].modules()]
    assert "FusedMaxPool2d" in kinds
    return networks[0], networks[1]


def test_kernels_are_chosen_by_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on a CPU, not beside a compiler, not without Triton: each is an error, and nothing is on by itself."""
    toy_spec, asked = step_cases.trial(step_cases.placed()), ComputeOptions(fused_kernels=True)
    statistics = GlobalStatistics(mean=0.5, std=0.25)
    with pytest.raises(EngineError, match="fused_kernels are asked for, and the device is cpu"):
        build_model(toy_spec, statistics, classes=4, device=torch.device("cpu"), compute=asked)
    with pytest.raises(EngineError, match="fused_kernels and compile are asked for"):
        choose_kernels(nn.Identity(), nn.Identity(), ComputeOptions(fused_kernels=True, compile=True))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, NAME)
    with pytest.raises(EngineError, match="fused_kernels are asked for, and triton"):
        choose_kernels(nn.Identity(), nn.Identity(), asked)  # type: ignore[arg-type]
    model = build_model(toy_spec, statistics, classes=4, device=torch.device("cpu"))
    assert not [layer for layer in model.network.modules() if type(layer).__name__.startswith(("Fused", "Padded"))]
