"""Parts of every kind from outside: in the configuration, in the identity, built, trained, and read where absent."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrowed import known
from own_parts import forget, write_part

from stnbench.config.axes import read_planner, read_pruner
from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder
from stnbench.config.resolve import parse_overrides, resolve_trial
from stnbench.core.errors import InfeasibleError, ShapeError, SpecError, UnknownNameError
from stnbench.core.identity import Json
from stnbench.data.augmentation import draw_augmentation
from stnbench.data.build import dataset_info, open_dataset
from stnbench.models.classifiers import build_network
from stnbench.models.scored_network import measure_cost
from stnbench.orchestration.plan import training_images
from stnbench.planning.build import build_planner
from stnbench.spec.codec import from_plain, from_stored, to_json
from stnbench.spec.data import DistortionSpec
from stnbench.spec.metrics import measure, metric
from stnbench.spec.parts import require_same_parts
from stnbench.spec.registry import REGISTRIES
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.training.loop import Hooks, Progress, train

pytestmark = pytest.mark.usefixtures("parts_forgotten")

SIGN = """
from dataclasses import dataclass
import stnbench, torch

@stnbench.register("optimizer", "sign")
class Sign(torch.optim.Optimizer):
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        learning_rate: float = 0.002
        shrink: float = 0.0

        def __post_init__(self):
            if self.shrink < 0:
                raise ValueError("at least 0")

    def __init__(self, groups, spec):
        super().__init__(groups, {"lr": spec.learning_rate})
        self.shrink = spec.shrink

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - self.shrink).add_(parameter.grad.sign(), alpha=-group["lr"])
"""

HALVING = """
from dataclasses import dataclass
import stnbench

@stnbench.register("schedule", "halving")
class Halving:
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        every_steps: int = 5

    def __init__(self, spec):
        self.every = spec.every_steps

    def factor(self, time):
        return 0.5 ** (time.step // self.every)
"""


POOLED = """
from dataclasses import dataclass
from torch import nn
import stnbench

@stnbench.register("network", "pooled")
class Pooled:
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        channels: int = 4
        stages = 2

    def __init__(self, spec):
        self.channels = spec.channels

    def stage(self, number, channels, height, width):
        layers = [nn.Conv2d(channels, self.channels, 3, padding=1), nn.PReLU(), nn.AvgPool2d(2), nn.Dropout(0.2)]
        return nn.Sequential(*layers, *([nn.Flatten()] if number == 2 else []))
"""


MEAN = """
from dataclasses import dataclass
from torch import nn
import stnbench

@stnbench.register("locnet", "mean")
class Mean:
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        units: int = 6

    def __init__(self, spec):
        self.units = spec.units

    def features(self, channels, height, width):
        return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, self.units), nn.GELU())
"""


STRIPES = """
from dataclasses import dataclass
import numpy as np
import stnbench
from stnbench.data import Dataset, ImageSet

@stnbench.register("dataset", "stripes")
class Stripes(Dataset):
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        image_size: int = 16
        widths: int = 3
        channels = 1
        training_half = (60, 3, 1)

    def __init__(self, spec, places):
        self.spec = spec

    @property
    def class_names(self):
        return [f"{width + 1} wide" for width in range(self.spec.widths)]

    def train(self):
        return self.half(20 * self.spec.widths)

    def test(self):
        return self.half(4 * self.spec.widths)

    def half(self, count):
        side, rows = self.spec.image_size, np.arange(count)
        labels = rows % self.spec.widths
        rows_of = np.arange(side) // (labels[:, None] + 1) % 2 * 200
        images = np.broadcast_to(rows_of[:, None, None], (count, 1, side, side))
        return ImageSet(
            images=images.astype(np.uint8),
            labels=labels,
            tracks=rows,
            frames=np.zeros_like(rows),
            roi=np.tile(np.array([-1, -1, 1, 1], np.float32), (count, 1)),
            original_size=np.full((count, 2), side),
            pose=None,
            digest=f"{count} stripes",
        )
"""


SPECKS = """
from dataclasses import dataclass
import stnbench
from stnbench.data.augmentation import Augmentation, draw_uniform

@stnbench.register("augmentation", "specks")
class Specks(Augmentation):
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        level: float = 20.0

    def __init__(self, spec):
        self.level = spec.level

    def draw(self, *, seed, epoch, count):
        return {"up": (draw_uniform("specks", seed, epoch, (count, 1, 4, 4)) > 0.5).float()}

    def apply(self, images, boxes, numbers):
        side = images.shape[-1] // 4
        up = numbers["up"].repeat_interleave(side, 2).repeat_interleave(side, 3)
        return (images.float() + self.level * up).clamp(0, 255), boxes
"""


def resolved(*arguments: str) -> TrialSpec:
    """The trial of a command line."""
    return resolve_trial(Composer(conf_folder()), parse_overrides(arguments)).spec


PARTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "optimizer": ("sign", SIGN, {"shrink": 0.1}),
    "schedule": ("halving", HALVING, {"every_steps": 3}),
    "network": ("pooled", POOLED, {"channels": 5}),
    "locnet": ("mean", MEAN, {"units": 3}),
    "dataset": ("stripes", STRIPES, {"widths": 4}),
    "augmentation": ("specks", SPECKS, {"level": 3.0}),
}
"""By kind: a part's name, its file, and a value of its own."""


def trial(kind: str, **keys: Json) -> TrialSpec:
    """A trial that uses the part of a kind."""
    name = PARTS[kind][0]
    if kind == "locnet":
        placed: Json = {"place": 1, "locnet": {"kind": name, **keys}}
        return from_plain(TrialSpec, {"transformers": [placed]}, where="a test")
    registry = REGISTRIES[kind]
    return from_plain(TrialSpec, {registry.section: {registry.discriminator: name, **keys}}, where="a test")


@pytest.mark.parametrize("kind", PARTS)
def test_its_source_is_in_the_identity_of_trials_that_use_it(kind: str, tmp_path: Path) -> None:
    """The file and a digest of its code; other trials know nothing of it."""
    name, text, own = PARTS[kind]
    write_part(tmp_path, name, text)
    (source,) = trial(kind).parts

    assert (source.kind, source.name, source.distribution) == (kind, name, f"{name}.py")
    assert trial(kind).trial_id != trial(kind, **own).trial_id
    assert TrialSpec().parts == ()
    require_same_parts(trial(kind).parts)


@pytest.mark.parametrize("kind", PARTS)
def test_a_trial_is_read_where_the_part_is_absent(kind: str, tmp_path: Path) -> None:
    """It is listed with every key and its identity; nothing can be built from it."""
    name, text, own = PARTS[kind]
    write_part(tmp_path, name, text)
    stored, identity = to_json(trial(kind, **own)), trial(kind, **own).trial_id
    usual, usual_id = to_json(trial(kind)), trial(kind).trial_id
    forget(kind, name)
    again = from_stored(TrialSpec, stored, where="the store")

    assert again.trial_id == identity
    assert json.loads(to_json(again)) == json.loads(stored)
    assert from_stored(TrialSpec, usual, where="the store").trial_id == usual_id
    with pytest.raises(SpecError, match=f"{kind} {name} of this trial .* is not here"):
        require_same_parts(again.parts)


@pytest.mark.parametrize("kind", PARTS)
def test_a_one_line_choice_fills_the_rest(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``conf/optimizer/sign.yaml`` names the part; every key of its specification can be set on the command line."""
    name, text, own = PARTS[kind]
    write_part(tmp_path, name, text)
    folder = REGISTRIES[kind].section
    (tmp_path / "conf" / folder).mkdir(parents=True)
    (tmp_path / "conf" / folder / f"{name}.yaml").write_text(f"kind: {name}\n")
    monkeypatch.chdir(tmp_path)
    ((key, value),) = own.items()
    group, section = ("locnet@locnet1", "locnet1") if kind == "locnet" else (folder, folder)
    found = resolved(f"{group}={name}", f"{section}.{key}={value}")
    spec = found.transformers[0].locnet if kind == "locnet" else getattr(found, folder)

    assert (known(spec).kind, getattr(spec, key)) == (name, value)
    with pytest.raises(UnknownNameError, match=f"unknown {group} '{name}x'.*{name}"):
        resolved(f"{group}={name}x")


@pytest.mark.slow
def test_an_optimiser_and_a_schedule_of_ones_own_train(
    tmp_path: Path,
    make_run: Any,
    toy_spec: TrialSpec,
) -> None:
    """Their rates are the schedule's, and the loss falls; the rate that the part has by default is its own."""
    write_part(tmp_path, "sign", SIGN)
    write_part(tmp_path, "halving", HALVING)
    spec = dataclasses.replace(
        toy_spec, optimizer=trial("optimizer").optimizer, schedule=trial("schedule", every_steps=10).schedule
    )
    hooks = Hooks(save=lambda _: None, report=lambda _: None, should_stop=lambda: False)
    records = train(make_run(spec), hooks, Progress()).progress.records

    assert spec.optimizer.learning_rate == 0.002
    assert [record.learning_rate for record in records] == [0.002, 0.001, 0.0005]
    assert records[-1].train_loss < records[0].train_loss


@pytest.mark.slow
def test_a_network_of_ones_own_trains_and_goes_on(tmp_path: Path, make_run: Any, toy_spec: TrialSpec) -> None:
    """Transformers stand before both of its stages; weights and dropout derive from the seed, across a break too."""
    write_part(tmp_path, "pooled", POOLED)
    placed: Json = [{"place": place, "locnet": {"kind": "dense", "sizes": [4]}} for place in (1, 2)]
    asked = from_plain(TrialSpec, {"network": {"kind": "pooled"}, "transformers": placed}, where="a test")
    spec = dataclasses.replace(toy_spec, network=asked.network, transformers=asked.transformers)
    whole, first, second = make_run(spec), make_run(spec), make_run(spec)
    expected = train(whole, Hooks(save=lambda _: None, report=lambda _: None, should_stop=lambda: False), Progress())
    asked_before_steps = iter(range(100))
    stop = Hooks(save=lambda _: None, report=lambda _: None, should_stop=lambda: next(asked_before_steps) >= 10)
    begun = train(first, stop, Progress()).progress
    second.model.network.load_state_dict(first.model.network.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    found = train(second, dataclasses.replace(stop, should_stop=lambda: False), begun)

    losses = [record.train_loss for record in expected.progress.records]
    assert begun.epochs == 1
    assert [record.train_loss for record in found.progress.records] == losses
    assert len(set(losses)) == 3


@pytest.mark.slow
def test_a_localisation_network_of_ones_own_trains(tmp_path: Path, make_run: Any, toy_spec: TrialSpec) -> None:
    """The transformer starts as the identity, and its parameters and features learn."""
    write_part(tmp_path, "mean", MEAN)
    spec = dataclasses.replace(toy_spec, transformers=trial("locnet").transformers)
    run = make_run(spec)
    (transformer,) = run.model.network.transformers["1"].transformers()
    before = {name: weight.clone() for name, weight in transformer.named_parameters()}
    assert transformer.locate(torch.rand(2, 3, 16, 16)).tolist() == [[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]] * 2
    records = train(run, Hooks(save=lambda _: None, report=lambda _: None, should_stop=lambda: False), Progress())

    assert records.progress.records[-1].train_loss < records.progress.records[0].train_loss
    assert [name for name, weight in transformer.named_parameters() if torch.equal(weight, before[name])] == []
    assert measure_cost(spec, classes=4).parameters == sum(item.numel() for item in run.model.network.parameters())


@pytest.mark.slow
def test_a_data_set_of_ones_own_is_trained_on(tmp_path: Path) -> None:
    """A whole trial reads it, by its name in a configuration alone; it can be distorted as well."""
    write_part(tmp_path, "stripes", STRIPES)
    plain: Json = {"kind": "stripes"}
    spec = from_plain(
        TrialSpec,
        {
            "dataset": plain,
            "network": {"kind": "cnn", "sizes": [2, 3]},
            "training": {"epochs": 1, "batch_size": 10},
            "split": {"kind": "tracks", "tracks_per_class": 4},
        },
        where="a test",
    )
    info = dataset_info(spec.dataset)
    turned = dataclasses.replace(spec.dataset, distortion=DistortionSpec(rotation_deg=90))

    assert (info.class_names, info.image_shape) == (["1 wide", "2 wide", "3 wide"], (1, 16, 16))
    assert training_images(spec) == 48
    assert len(open_dataset(spec.dataset, root=tmp_path, workers=1).train()) == 60
    warped = open_dataset(turned, root=tmp_path, workers=1).train()
    assert warped.pose is not None
    assert warped.images.shape == (60, 1, 16, 16)


def test_an_augmentation_of_ones_own_is_trained_with(tmp_path: Path, make_run: Any, toy_spec: TrialSpec) -> None:
    """Its numbers are drawn anew for every epoch, the same in a second run, and a break in between changes nothing."""
    write_part(tmp_path, "specks", SPECKS)
    spec = dataclasses.replace(toy_spec, augment=trial("augmentation").augment)
    goes_on = Hooks(save=lambda _: None, report=lambda _: None, should_stop=lambda: False)
    expected = train(make_run(spec), goes_on, Progress()).progress.records
    asked_before_steps = iter(range(100))
    first, second = make_run(spec), make_run(spec)
    begun = train(
        first, dataclasses.replace(goes_on, should_stop=lambda: next(asked_before_steps) >= 10), Progress()
    ).progress
    second.model.network.load_state_dict(first.model.network.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    found = train(second, goes_on, begun).progress.records
    (bare,) = {record.train_loss for record in train(make_run(toy_spec), goes_on, Progress()).progress.records[:1]}

    assert [record.train_loss for record in found] == [record.train_loss for record in expected]
    assert bare != expected[0].train_loss
    drawn = [draw_augmentation(known(spec.augment), seed=1, epoch=epoch, count=5).numbers["up"] for epoch in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("class Specks(Augmentation)", "class Specks"), "the augmentation specks is Specks"),
        (("(count, 1, 4, 4)", "(1, 1, 4, 4)"), r"the augmentation specks draws up as shape \(1, 1, 4, 4\)"),
        (("(images.float() +", "(images.float()[:, :, 1:] +"), "images of an augmentation"),
    ],
)
def test_an_augmentation_that_cannot_be_used_is_refused(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    """One of another class, one with numbers for other images, and one that changes the size of images."""
    text = SPECKS.replace(*change)
    text = text.replace("self.level * up", "self.level") if "images" in change[0] else text
    write_part(tmp_path, "specks", text)
    spec, images, boxes = known(trial("augmentation").augment), torch.zeros(3, 1, 8, 8), torch.zeros(3, 4)
    with pytest.raises((SpecError, ShapeError), match=message):
        draw_augmentation(spec, seed=1, epoch=0, count=3).apply(images, boxes)


def test_weights_of_a_module_of_ones_own_derive_from_the_seed_alone(tmp_path: Path, toy_spec: TrialSpec) -> None:
    """Two networks of a seed are equal, of another seed they differ, and torch's own generator stays where it was."""
    write_part(tmp_path, "pooled", POOLED)
    spec = dataclasses.replace(toy_spec, network=trial("network").network)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, same, other = (build_network(spec, classes=3, seed=seed) for seed in (1, 1, 2))

    assert torch.equal(before, torch.random.get_rng_state())
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name]), name
    first, second = (made.get_parameter("stages.0.layers.0.made.0.weight") for made in (one, other))
    assert not torch.equal(first, second)
    assert measure_cost(spec, classes=3).parameters == sum(weight.numel() for weight in one.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("nn.AvgPool2d(2)", "nn.AvgPool2d(99)"), "stage 1 of the network pooled cannot take 3 x 16 x 16 maps"),
        (("nn.Flatten()", "nn.Flatten(2)"), r"stage 2 of the network pooled returns \(1, 4, 16\)"),
    ],
)
def test_a_network_that_cannot_be_built_is_infeasible(
    change: tuple[str, str], message: str, tmp_path: Path, toy_spec: TrialSpec
) -> None:
    """The stage and the maps are named, in a plan as in a training."""
    write_part(tmp_path, "pooled", POOLED.replace(*change))
    spec = dataclasses.replace(toy_spec, network=trial("network").network)
    for build in (measure_cost, lambda asked, classes: build_network(asked, classes=classes, seed=1)):
        with pytest.raises(InfeasibleError, match=message):
            build(spec, classes=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("class Sign(torch.optim.Optimizer)", "class Sign"), "the optimizer sign is Sign"),
        (
            ("super().__init__(groups, {", "super().__init__([g['params'][0] for g in groups], {"),
            "has no learning_rate",
        ),
    ],
)
def test_an_optimiser_that_cannot_be_used_is_refused(
    change: tuple[str, str],
    message: str,
    tmp_path: Path,
    make_run: Any,
    toy_spec: TrialSpec,
) -> None:
    """One that is none of torch's, or that forgets the groups."""
    text = SIGN.replace(*change)
    text = text.replace("super().__init__(groups, {", "print(groups, {") if "class" in change[0] else text
    write_part(tmp_path, "sign", text)
    with pytest.raises(SpecError, match=message):
        make_run(dataclasses.replace(toy_spec, optimizer=trial("optimizer").optimizer))


def test_a_schedule_without_a_sense_is_refused(tmp_path: Path, make_run: Any, toy_spec: TrialSpec) -> None:
    """A factor that is no number is the part's fault, and said to be."""
    write_part(tmp_path, "halving", HALVING.replace("0.5 **", "float('nan') *"))
    run = make_run(dataclasses.replace(toy_spec, schedule=trial("schedule").schedule))
    with pytest.raises(SpecError, match="the schedule halving gives the factor nan at step 1"):
        run.learning_rate(0)


def test_registries_refuse_what_they_do_not_have() -> None:
    """At building as well, where a specification came past the decoder."""
    for found in REGISTRIES.values():
        with pytest.raises(UnknownNameError, match=f"unknown {found.kind} 'unheard'"):
            found.implementation("unheard")


BACKWARDS = """
from dataclasses import dataclass
import stnbench
from stnbench.planning import Planner
from stnbench.planning import grid_configurations, with_seeds

@stnbench.register("planner", "backwards")
class Backwards(Planner):
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        most: int = 3

    def __init__(self, sweep, spec, compose, slots):
        self.left = with_seeds(grid_configurations(sweep, compose), sweep.seeds)[::-1][: spec.most]

    def ask(self):
        asked, self.left = self.left, []
        return asked

    def tell(self, observation):
        pass

    @property
    def is_exhausted(self):
        return not self.left
"""


def test_a_planner_of_ones_own_proposes_trials(tmp_path: Path) -> None:
    """Named in a sweep with a key of its own; where it is absent, the stored sweep is still read."""
    write_part(tmp_path, "backwards", BACKWARDS)
    planner = read_planner({"kind": "backwards", "most": 2}, "a test")
    sweep = SweepSpec(name="x", question="?", planner=planner, seeds=(1, 2, 3), baselines=False)
    built = build_planner(sweep, lambda _: TrialSpec())
    stored = to_json(sweep)

    assert [trial.spec.seed for trial in built.ask()] == [3, 2]
    assert built.is_exhausted
    forget("planner", "backwards")
    again = from_stored(SweepSpec, stored, where="the store")
    assert (again.planner.kind, json.loads(to_json(again))) == ("backwards", json.loads(stored))


FUNCTIONS = """
import dataclasses
import stnbench, torch
from stnbench.planning.build import GridPlanner

@stnbench.register("planner", "first_seed")
def first_seed(sweep, spec, compose, slots):
    return GridPlanner(dataclasses.replace(sweep, seeds=sweep.seeds[:1]), compose)

@stnbench.register("optimizer", "heavy")
def heavy(groups, spec):
    return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=0.8)

@stnbench.register("metric", "least_sure", better="higher")
def least_sure(probabilities, labels):
    "Smallest probability of a true class"
    return probabilities[range(len(labels)), labels].min()
"""


def test_a_planner_an_optimiser_and_a_metric_are_one_function_each(
    tmp_path: Path, make_run: Any, toy_spec: TrialSpec
) -> None:
    """The planner proposes, the optimiser trains, and the metric may be a column; a class is not needed."""
    write_part(tmp_path, "functions", FUNCTIONS)
    sweep = SweepSpec(
        name="x", question="?", planner=read_planner("first_seed", "a test"), seeds=(4, 2), baselines=False
    )
    asked = build_planner(sweep, lambda _: TrialSpec()).ask()
    heavy = from_plain(TrialSpec, {"optimizer": {"kind": "heavy", "learning_rate": 0.05}}, where="a test").optimizer
    run = make_run(dataclasses.replace(toy_spec, optimizer=heavy))
    records = train(run, Hooks(save=lambda _: None, report=lambda _: None, should_stop=lambda: False), Progress())
    known = metric("least_sure")
    found = measure(
        np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1]), warn=pytest.fail, only={"least_sure": known}
    )

    assert [trial.spec.seed for trial in asked] == [4]
    assert run.optimizer.param_groups[0]["momentum"] == 0.8
    assert records.progress.records[-1].train_loss < records.progress.records[0].train_loss
    assert found == {known.key: 0.5}
    assert (known.heading, known.text) == ("least_sure", "Smallest probability of a true class")


@pytest.mark.parametrize(("read", "kind", "meant"), [(read_planner, "gird", "grid"), (read_pruner, "ahsa", "asha")])
def test_an_unknown_planner_or_pruner_is_refused(read: Any, kind: str, meant: str) -> None:
    """An unknown sampler ran random search once, and an unknown pruner pruned nothing."""
    with pytest.raises(UnknownNameError, match=f"unknown .*'{kind}'.*did you mean {meant}"):
        read(kind, "a test")
