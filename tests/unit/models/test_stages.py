"""Stages and heads: what they put out, what cannot be built, how they start and learn."""

import copy
import hashlib
import itertools

import pytest
import torch
from narrowed import only
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from stnbench.core.errors import InfeasibleError
from stnbench.models.classifiers import Head, Stage, build_head, build_stage
from stnbench.models.designs import design_network
from stnbench.nn.initialization import MapSize, clear_weights, draw_weights, part_generator
from stnbench.nn.layers import seed_dropout
from stnbench.spec.network import (
    CnnSpec,
    FcnSpec,
    IdsiaSpec,
    LecunSpec,
    ModernSpec,
    NetworkSpec,
    PoojahiraSpec,
)

SMALL = {
    "lecun": LecunSpec(sizes=(4, 6, 5)),
    "lecun_multi_scale": LecunSpec(sizes=(4, 6, 5), multi_scale=True),
    "idsia": IdsiaSpec(sizes=(4, 5, 6, 7)),
    "arcos_garcia": IdsiaSpec(sizes=(4, 5, 6, 7), contrastive_kernel="gaussian"),
    "fcn": FcnSpec(sizes=(8, 7)),
    "cnn": CnnSpec(sizes=(4, 6)),
    "poojahira": PoojahiraSpec(sizes=(4, 5, 6, 7)),
    "modern": ModernSpec(sizes=(4, 5, 6, 7), convs_per_stage=1, global_average=False),
    "modern_all": ModernSpec(sizes=(4, 6, 8), convs_per_stage=2, global_average=True, dropout=0.5),
}
every_network = pytest.mark.parametrize("network", SMALL.values(), ids=SMALL)
CLASSES = 5


def empty(network: NetworkSpec, size: MapSize) -> nn.Sequential:
    """Its stages and its head for 5 classes, their weights not drawn."""
    design = design_network(network)
    parts: list[nn.Module] = []
    for stage_design in design.stages:
        stage = build_stage(stage_design, size)
        parts.append(stage)
        size = stage.output_size
    return nn.Sequential(*parts, build_head(design, size, classes=CLASSES))


def drawn(network: NetworkSpec, size: MapSize, *, seed: int = 1) -> nn.Sequential:
    """The same with weights, part by part as a classifier draws them."""
    built = empty(network, size)
    *stages, head = built
    assert isinstance(head, Head)
    for place, stage in enumerate(stages, start=1):
        draw_weights(stage, part_generator(seed, f"stage{place}"))
    draw_weights(head.hidden, part_generator(seed, "hidden"))
    draw_weights(head.logits, part_generator(seed, "logits"))
    return built


def images(size: MapSize, batch: int = 4) -> Tensor:
    """Random images, the same ones every time."""
    return torch.rand(batch, size.channels, size.height, size.width, generator=torch.Generator().manual_seed(21))


@every_network
@pytest.mark.parametrize("size", [MapSize(1, 28, 28), MapSize(2, 42, 42), MapSize(3, 48, 48), MapSize(1, 60, 41)])
def test_every_stage_puts_out_what_it_says(network: NetworkSpec, size: MapSize) -> None:
    """Whatever the images' channels and shape, a stage's output has its ``output_size``, and logits come out."""
    *stages, head = drawn(network, size)
    maps = images(size)
    for stage in stages:
        assert isinstance(stage, Stage)
        maps = stage(maps)
        expected = stage.output_size
        assert maps.shape == (4, expected.channels, expected.height, expected.width)
    assert head(maps).shape == (4, CLASSES)


@pytest.mark.parametrize(
    ("network", "widths"),
    [
        (LecunSpec(), [24, 12]),
        (IdsiaSpec(), [23, 12, 6]),
        (FcnSpec(), [1]),
        (CnnSpec(), [20, 7]),
        (PoojahiraSpec(), [22, 10, 4]),
        (ModernSpec(), [24, 12, 6, 3]),
    ],
)
def test_maps_of_48_pixels_shrink_as_described(network: NetworkSpec, widths: list[int]) -> None:
    """Kernels, padding and pooling are those of the networks' descriptions."""
    with torch.device("meta"):
        *stages, _head = empty(network, MapSize(3, 48, 48))
    assert [only(Stage, stage).output_size.width for stage in stages] == widths


GOLDEN = {
    "lecun": (
        "ef4e708520b60dbe",
        [-0.1992153525352478, 0.41042637825012207, 0.160697340965271, -0.09775447845458984, -0.23968200385570526],
    ),
    "lecun_multi_scale": (
        "7a3dd9bf42c4fd9f",
        [-0.18422004580497742, 0.39317476749420166, 0.019719496369361877, -0.016728956252336502, -0.40036138892173767],
    ),
    "idsia": (
        "4bb31de2951986e6",
        [-0.1850452870130539, -0.21518123149871826, -0.34912586212158203, -0.2802511751651764, 0.08907372504472733],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_weights_of_the_networks_of_2015_are_those_of_the_first_version(name: str) -> None:
    """Bitwise, for 7 classes and seed 1; and the first five logits to 1e-5."""
    design, size = design_network(SMALL[name]), MapSize(3, 32, 32)
    maps, digest = images(size, batch=2), hashlib.sha256()
    for place, stage_design in enumerate(design.stages, start=1):
        stage = build_stage(stage_design, size)
        draw_weights(stage, part_generator(1, f"stage{place}"))
        maps, size = stage(maps), stage.output_size
        _add_bytes(digest, stage)
    head = build_head(design, size, classes=7)
    for part, weights in (("hidden", head.hidden), ("logits", head.logits)):
        draw_weights(weights, part_generator(1, part))
        _add_bytes(digest, weights)
    expected_digest, expected_logits = GOLDEN[name]
    assert digest.hexdigest()[:16] == expected_digest
    assert head(maps)[0, :5].tolist() == pytest.approx(expected_logits, abs=1e-5)


def _add_bytes(digest: "hashlib._Hash", part: nn.Module) -> None:
    for value in part.state_dict().values():
        digest.update(value.numpy().tobytes())


def test_names_of_weights_are_those_of_the_first_version() -> None:
    """Checkpoints keep their names: the first layer of a stage and of a head is number 0."""
    head = build_head(design_network(LecunSpec()), MapSize(2, 3, 3), classes=4)
    stage = build_stage(design_network(LecunSpec()).stages[0], MapSize(3, 48, 48))
    assert list(head.state_dict()) == ["hidden.0.weight", "hidden.0.bias", "logits.weight", "logits.bias"]
    assert list(stage.state_dict()) == ["layers.0.weight", "layers.0.bias"]


@pytest.mark.parametrize(
    ("network", "side", "problem"),
    [
        (CnnSpec(), 23, "pooling leaves nothing of a 64 x 1 x 1 map"),
        (CnnSpec(), 8, "a convolution of side 9 leaves nothing of a 1 x 8 x 8 map"),
        (CnnSpec(), 18, "a convolution of side 7 leaves nothing of a 32 x 5 x 5 map"),
        (PoojahiraSpec(), 23, "pooling leaves nothing of a 250 x 1 x 1 map"),
        (ModernSpec(), 15, "pooling leaves nothing of a 192 x 1 x 1 map"),
        (ModernSpec(sizes=(2, 3, 4, 5, 6)), 31, "pooling leaves nothing of a 6 x 1 x 1 map"),
        (LecunSpec(), 3, "pooling leaves nothing of a 200 x 1 x 1 map"),
    ],
)
def test_images_too_small_for_a_network_are_infeasible(network: NetworkSpec, side: int, problem: str) -> None:
    """The message says which layer leaves nothing of which map, and what to do."""
    with torch.device("meta"), pytest.raises(InfeasibleError) as caught:
        empty(network, MapSize(1, side, side))
    assert caught.value.problem == problem
    assert caught.value.remedy == "use larger images or a network of fewer stages"


@pytest.mark.parametrize(
    ("network", "side"),
    [
        (CnnSpec(), 24),
        (PoojahiraSpec(), 24),
        (ModernSpec(), 16),
        (ModernSpec(sizes=(2, 3, 4, 5, 6)), 32),
        (FcnSpec(), 1),
    ],
)
def test_the_smallest_images_that_are_enough(network: NetworkSpec, side: int) -> None:
    """A pixel a side above what is infeasible, the network runs."""
    with torch.device("meta"):
        built = empty(network, MapSize(1, side, side))
        assert built(torch.empty(2, 1, side, side)).shape == (2, CLASSES)


@every_network
def test_every_weight_has_a_finite_gradient_and_learns(network: NetworkSpec) -> None:
    """After one batch, every parameter has a gradient that is finite and not all zero."""
    size = MapSize(3, 32, 32)
    built = drawn(network, size)
    functional.cross_entropy(built(images(size, batch=10)), torch.arange(10) % CLASSES).backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_network
def test_channels_last_gives_the_same_logits(network: NetworkSpec) -> None:
    """Memory format changes speed, not meaning: logits agree to 1e-4."""
    size = MapSize(2, 32, 32)
    built = drawn(network, size).eval()
    with torch.no_grad():
        expected = built(images(size))
        last = built.to(memory_format=torch.channels_last)
        actual = last(images(size).contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@every_network
def test_the_seed_decides_everything(network: NetworkSpec) -> None:
    """Two networks of one seed are bitwise the same, running statistics included; another seed gives another one."""
    size = MapSize(3, 32, 32)
    first, again, other = (drawn(network, size, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@every_network
def test_a_cleared_network_loads_a_trained_one(network: NetworkSpec) -> None:
    """A state dict carries all that decides the logits, what batch norms remember included."""
    size = MapSize(3, 32, 32)
    trained, loaded = drawn(network, size), empty(network, size)
    with torch.no_grad():
        trained(images(size))
    clear_weights(loaded)
    assert all(value.isfinite().all() for value in loaded.state_dict().values())
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded.eval()(images(size)), trained.eval()(images(size)))


@every_network
def test_cost_is_measured_without_memory(network: NetworkSpec) -> None:
    """On the meta device a network of one image runs, its FLOPs are counted, and no random state is touched."""
    size, before = MapSize(3, 32, 32), torch.get_rng_state()
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        built = empty(network, size)
        clear_weights(built)
        logits = built(torch.empty(1, 3, 32, 32))
    assert logits.device.type == "meta"
    assert counter.get_total_flops() > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_batch_norm_remembers_while_training_only() -> None:
    """Training moves the running statistics and uses the batch's own; evaluation does neither."""
    size = MapSize(3, 32, 32)
    built = drawn(SMALL["modern"], size)
    state = copy.deepcopy(built.state_dict())
    built.eval()(images(size))
    assert all(torch.equal(value, state[name]) for name, value in built.state_dict().items())
    alone = built(images(size)[:1])
    torch.testing.assert_close(built(images(size))[:1], alone, rtol=0, atol=1e-5)
    built.train()(images(size))
    moved = {name for name, value in built.state_dict().items() if not torch.equal(value, state[name])}
    assert moved == {name for name in state if "running" in name or "num_batches" in name}
    assert len(moved) == 3 * 4


def test_a_network_with_dropout_repeats_an_epoch_after_seeding() -> None:
    """The same seed drops the same, and training without a new seed goes on to other channels."""
    size = MapSize(3, 32, 32)
    built = drawn(SMALL["poojahira"], size)

    def losses(seed: int) -> list[float]:
        seed_dropout(built, seed)
        return [float(built(images(size)).detach().square().sum()) for _step in range(2)]

    first, other, again = losses(1), losses(2), losses(1)
    assert first == again
    assert len({*first, *other}) == 4


def test_multi_scale_joins_the_pooled_input_behind_the_output() -> None:
    """The second stage's last channels are its input, pooled."""
    stage = build_stage(design_network(SMALL["lecun_multi_scale"]).stages[1], MapSize(4, 16, 16))
    draw_weights(stage, part_generator(1, "stage2"))
    maps = torch.rand(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    out = stage(maps)
    assert out.shape == (1, 10, 8, 8)
    assert torch.equal(out[:, 6:], functional.max_pool2d(maps, 2))


def test_modern_is_conv_pool_norm_activation() -> None:
    """One stage in training agrees to 1e-5 with the four operations written out."""
    stage = build_stage(design_network(SMALL["modern"]).stages[0], MapSize(3, 12, 12))
    draw_weights(stage, part_generator(1, "stage1"))
    maps = images(MapSize(3, 12, 12))
    weight = next(stage.parameters())
    pooled = functional.max_pool2d(functional.conv2d(maps, weight, padding=1), 2)
    mean = pooled.mean(dim=(0, 2, 3), keepdim=True)
    variance = pooled.var(dim=(0, 2, 3), keepdim=True, correction=0)
    expected = ((pooled - mean) / (variance + 1e-5).sqrt()).relu()
    torch.testing.assert_close(stage(maps), expected, rtol=0, atol=1e-5)


def test_global_average_makes_the_head_independent_of_the_image_size() -> None:
    """The logits have as many weights on 32 x 32 as on 64 x 64 images, and see each channel's mean."""
    design = design_network(ModernSpec(sizes=(4, 6), global_average=True))
    small, large = (build_head(design, MapSize(6, side, side), classes=3) for side in (8, 16))
    assert small.logits.weight.shape == large.logits.weight.shape == (3, 6)
    draw_weights(large, part_generator(1, "head"))
    maps = images(MapSize(6, 16, 16))
    expected = large.logits(maps.mean(dim=(2, 3)))
    torch.testing.assert_close(large(maps), expected, rtol=0, atol=1e-6)


def test_weight_layers_of_the_paper_are_three() -> None:
    """FCN and CNN have three layers with weights each, as Jaderberg et al. 2015 say."""
    for network, side in itertools.product((FcnSpec(), CnnSpec()), (28, 60)):
        with torch.device("meta"):
            built = empty(network, MapSize(1, side, side))
        assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in built.modules()) == 3
