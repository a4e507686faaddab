"""Transformers side by side at one place."""

from typing import Any

import pytest
import torch

from stnbench.core.errors import InfeasibleError
from stnbench.nn.initialization import MapSize
from stnbench.nn.spatial_transformer import ParallelTransformers
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec

SIZE = MapSize(2, 12, 10)


def place(**settings: Any) -> ParallelTransformers:
    """The transformers of a small place."""
    spec = PlacedTransformerSpec(
        place=1, transformer=TransformerSpec(**settings), locnet=ConvLocnetSpec(sizes=(3, 4, 5))
    )
    module = ParallelTransformers(spec, SIZE, SIZE)
    module.initialize(7)
    return module


def images() -> torch.Tensor:
    """Random images."""
    return torch.rand(3, 2, 12, 10, generator=torch.Generator().manual_seed(9))


def test_branches_join_their_outputs_by_channel() -> None:
    """Two new branches give the image twice, and the stated size is the size of what comes out."""
    module = place(branches=2)
    out = module(images()).maps
    assert (module.output_size.channels, module.output_size.height, module.output_size.width) == out.shape[1:]
    torch.testing.assert_close(out, images().repeat(1, 2, 1, 1), rtol=0, atol=1e-5)


def test_branches_do_not_share_their_random_numbers() -> None:
    """Each branch has weights of its own; the first one's are those of a place with one branch."""
    one, two = place().state_dict(), place(branches=2).state_dict()
    name = "localization.features.1.weight"
    assert torch.equal(one[f"branches.0.{name}"], two[f"branches.0.{name}"])
    assert not torch.equal(two[f"branches.0.{name}"], two[f"branches.1.{name}"])


def test_output_pooling_averages() -> None:
    """Pooling by two gives means of 2 x 2 pixels and half the size."""
    module = place(output_pooling=2)
    out = module(images()).maps
    assert (module.output_size.height, module.output_size.width) == (6, 5)
    torch.testing.assert_close(out, torch.nn.functional.avg_pool2d(images(), 2), rtol=0, atol=1e-5)


def test_pooling_a_map_to_nothing_is_infeasible() -> None:
    """The message names the place and the size."""
    with pytest.raises(InfeasibleError, match="at place 1, output_pooling 16 leaves nothing of a 2 x 12 x 10 map"):
        place(output_pooling=16)


def test_the_output_may_be_of_another_size_than_the_input() -> None:
    """A new transformer with an output of 6 pixels a side reads the image at 6 x 6 evenly spread places."""
    module = place(output_size=6)
    out = module(images()).maps
    assert (module.output_size.height, module.output_size.width) == (6, 6)
    wanted = torch.nn.functional.interpolate(images(), size=(6, 6), mode="bilinear", align_corners=True)
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-5)


def test_iterations_look_again_at_maps_as_large_as_the_input() -> None:
    """With two iterations the second look is at 12 x 10 pixels, and the output has the size asked for."""
    module = place(output_size=6, iterations=2)
    seen: list[torch.Size] = []
    localization = module.transformers()[0].localization
    assert localization is not None
    localization.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0].shape[-2:]))
    assert module(images()).maps.shape[-2:] == (6, 6)
    assert seen == [(12, 10), (12, 10)]
