"""The contracts of networks and data sets, with one check for each property, and all menus by kind of part."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stnbench.core.errors import SpecError, StnbenchError, UnknownNameError
from stnbench.core.identity import derive_seed
from stnbench.data import Dataset, ImageSet, split_tracks
from stnbench.data.build import dataset_info, open_dataset
from stnbench.models.classifiers import StnClassifier, build_network
from stnbench.models.scored_network import measure_cost
from stnbench.spec.codec import from_json, from_plain, to_json
from stnbench.spec.data import DATASETS, AnyDataset, DatasetSpec, OneTrackSplitSpec, SignsSpec, TrackSplitSpec
from stnbench.spec.metrics import KIND as METRIC
from stnbench.spec.metrics import Metric, metric, metrics
from stnbench.spec.network import NETWORKS, AnyNetwork, NetworkSpec
from stnbench.spec.optimizer import AUGMENTATIONS, OPTIMIZERS, SCHEDULES
from stnbench.spec.planner import PLANNERS, PRUNERS
from stnbench.spec.registry import Registry
from stnbench.spec.transformer import LOCNETS, TRANSFORMERS, DenseLocnetSpec, PlacedTransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.testing.recipe import (
    AUGMENTATION_CHECKS,
    LOCNET_CHECKS,
    METRIC_CHECKS,
    OPTIMIZER_CHECKS,
    SCHEDULE_CHECKS,
)
from stnbench.testing.search import PLANNER_CHECKS, PRUNER_CHECKS
from stnbench.testing.transformers import TRANSFORMER_CHECKS, require, require_close

CLASSES: Final = 7
SIDE: Final = 48
"""Side of the images that networks are checked with, in pixels; 48 is the default of data sets."""

LEARNING_STEPS: Final = 30


# Networks.


def weights_of_the_seed(spec: NetworkSpec) -> None:
    """Check that weights are decided by the seed alone, and torch's own generator is not used."""
    state = torch.random.get_rng_state()
    one, same, other = (_weights(_network(spec, seed=seed)) for seed in (1, 1, 2))
    require(torch.equal(state, torch.random.get_rng_state()), "weights are drawn from torch's global generator")
    require(all(torch.equal(one[name], same[name]) for name in one), "two networks of one seed have other weights")
    require(any(not torch.equal(one[name], other[name]) for name in one), "two seeds give the same weights")


def logits_of_a_batch(spec: NetworkSpec) -> None:
    """Check that logits are (batch, classes), finite, for one image and for several."""
    network = _network(spec)
    for batch in (1, 3):
        logits = network(_pictures(batch))
        require(tuple(logits.shape) == (batch, CLASSES), f"{batch} images give logits {tuple(logits.shape)}")
        require(bool(logits.isfinite().all()), "logits are not finite")


def pictures_alone(spec: NetworkSpec) -> None:
    """Check that in scoring, an image has the same logits alone and in a batch."""
    network, pictures = _network(spec), _pictures(3)
    alone = torch.cat([network(picture[None]) for picture in pictures])
    require_close(network(pictures), alone, 1e-4, "an image has other logits in a batch than alone")


def repeated(spec: NetworkSpec) -> None:
    """Check that in scoring, logits are the same at a second call."""
    network, pictures = _network(spec), _pictures(2)
    require(torch.equal(network(pictures), network(pictures)), "two calls differ")


def transformers_before_stages(spec: NetworkSpec) -> None:
    """Check that a transformer can stand before each stage, and is the identity there at first."""
    bare, pictures = _network(spec), _pictures(2)
    for place in range(1, spec.stages + 1):
        placed = PlacedTransformerSpec(place=place, locnet=DenseLocnetSpec(sizes=(4,)))
        try:
            network = build_network(replace(_trial(spec), transformers=(placed,)), classes=CLASSES, seed=1).eval()
        except StnbenchError as error:
            raise AssertionError(f"no transformer can stand before stage {place}: {error}") from error
        difference = f"a new transformer before stage {place} changes the logits"
        require_close(network(pictures), bare(pictures), 1e-3, difference)


def cost_on_the_meta_device(spec: NetworkSpec) -> None:
    """Check that shapes and parameters on the meta device, where cost is measured, are those of the network."""
    cost, network = measure_cost(_trial(spec), classes=CLASSES), _network(spec)
    parameters = sum(weight.numel() for weight in network.parameters())
    require(cost.parameters == parameters, f"{cost.parameters} parameters on the meta device, {parameters} on the CPU")
    with torch.device("meta"):
        logits = _network(spec, seed=None)(torch.empty(2, 3, SIDE, SIDE))
    require(tuple(logits.shape) == (2, CLASSES), f"logits are {tuple(logits.shape)} on the meta device")


def gradients_everywhere(spec: NetworkSpec) -> None:
    """Check that every parameter has a finite gradient after a backward pass over four images."""
    network = _network(spec).train()
    functional.cross_entropy(network(_pictures(4)), _labels(4)).backward()  # torch
    for name, weight in network.named_parameters():
        require(weight.grad is not None, f"{name} has no gradient: it has no part in the logits")
        require(bool(cast("Tensor", weight.grad).isfinite().all()), f"the gradient of {name} is not finite")


def learns(spec: NetworkSpec) -> None:
    """Check that the loss falls in a few steps on a few images."""
    torch.manual_seed(derive_seed(1, "check"))
    network, pictures, labels = _network(spec).train(), _pictures(8), _labels(8)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(LEARNING_STEPS):
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(pictures), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    first, last = losses[0], min(losses[-5:])
    require(last < first, f"the loss is {first:.3g} at first, and {last:.3g} after {LEARNING_STEPS} steps")


def low_precision(spec: NetworkSpec) -> None:
    """Check that logits are finite under autocast to bfloat16, as with ``training.precision=bfloat16``."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = _network(spec)(_pictures(2))
    require(bool(logits.isfinite().all()), "logits are not finite in bfloat16")


def stored_network(spec: NetworkSpec) -> None:
    """Check that the specification is unchanged after serialisation to JSON and back."""
    again = from_json(cast("Any", AnyNetwork), to_json(spec), where="the part")
    require(again == spec, f"{spec} comes back from JSON as {again}")


NETWORK_CHECKS: Final[Mapping[str, Callable[[NetworkSpec], None]]] = {
    "weights of the seed": weights_of_the_seed,
    "logits, batch of one": logits_of_a_batch,
    "images alone and together": pictures_alone,
    "determinism": repeated,
    "transformers before every stage": transformers_before_stages,
    "meta device": cost_on_the_meta_device,
    "gradients everywhere": gradients_everywhere,
    "learns": learns,
    "half precision": low_precision,
    "specification in JSON": stored_network,
}
"""Every check of a network, by the property that it checks."""


def _trial(spec: NetworkSpec) -> TrialSpec:
    return TrialSpec(dataset=SignsSpec(image_size=SIDE), network=spec)


def _network(spec: NetworkSpec, *, seed: int | None = 1) -> StnClassifier:
    return build_network(_trial(spec), classes=CLASSES, seed=seed).eval()


def _weights(network: StnClassifier) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in network.named_parameters()}


def _pictures(batch: int) -> Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(batch))


def _labels(batch: int) -> Tensor:
    return torch.arange(batch) % CLASSES


# Data sets. A check gets a data set that is opened, and its specification.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Opened:
    """A data set under check.

    Attributes:
        spec: its specification.
        dataset: the data set.
        again: opens it anew.
    """

    spec: DatasetSpec
    dataset: Dataset
    again: Callable[[], Dataset]

    @property
    def halves(self) -> Sequence[tuple[str, ImageSet]]:
        """Return both halves with their names."""
        return (("training", self.dataset.train()), ("test", self.dataset.test()))


def rows_of_arrays(opened: Opened) -> None:
    """Check that every array has a row for each image, and the type of the contract."""
    shape = dataset_info(opened.spec).image_shape
    for name, half in opened.halves:
        n = len(half)
        require(n > 0, f"the {name} half is empty")
        wanted: dict[str, tuple[type, tuple[int, ...]]] = {
            "images": (np.uint8, (n, *shape)),
            "labels": (np.int64, (n,)),
            "tracks": (np.int64, (n,)),
            "frames": (np.int64, (n,)),
            "roi": (np.float32, (n, 4)),
            "original_size": (np.int64, (n, 2)),
        }
        wanted |= {"pose": (np.float32, (n, 3, 3))} if half.pose is not None else {}
        wanted |= {"control_points": (np.float32, (n, 16, 2))} if half.control_points is not None else {}
        for key, (kind, size) in wanted.items():
            array = getattr(half, key)
            found = f"{array.dtype} {array.shape}"
            expected = f"{np.dtype(kind)} {size}"
            require(found == expected, f"{key} of the {name} half is {found}, and not {expected}")
        require(half.control_points is None or half.pose is not None, "control_points are given without pose")


def labels_name_classes(opened: Opened) -> None:
    """Check that each label has a readable and unique name, known before the set is opened."""
    names = list(opened.dataset.class_names)
    require(names == list(dataset_info(opened.spec).class_names), "class_names differ before and after opening")
    require(len(names) >= 2, f"there are {len(names)} classes")
    require(all(isinstance(name, str) and name for name in names), "a class has no readable name")
    require(len(set(names)) == len(names), "two classes have the same name")
    for name, half in opened.halves:
        low, high = int(half.labels.min()), int(half.labels.max())
        require(0 <= low <= high < len(names), f"labels of the {name} half are {low} to {high}, for {len(names)} names")


def every_class_to_train_on(opened: Opened) -> None:
    """Check that each class has training images."""
    names = opened.dataset.class_names
    missing = set(range(len(names))) - set(opened.dataset.train().labels.tolist())
    require(not missing, f"no training image is of class {names[min(missing, default=0)]}")


def boxes_and_poses(opened: Opened) -> None:
    """Check that boxes are normalised, not empty and ordered, and the middle of the pose lies in the box."""
    for name, half in opened.halves:
        roi = half.roi
        require(bool((np.abs(roi) <= 1).all()), f"a box of the {name} half leaves the image: roi is in [-1, 1]")
        require(bool((roi[:, :2] < roi[:, 2:]).all()), f"a box of the {name} half is empty: roi is x1, y1, x2, y2")
        require(bool((half.original_size >= 1).all()), f"an original_size of the {name} half is below 1")
        if half.pose is None:
            continue
        require(bool(np.allclose(half.pose[:, 2, 2], 1)), f"the last element of a pose of the {name} half is not 1")
        middle = half.pose[:, :2, 2]
        inside = (roi[:, :2] <= middle).all() and (middle <= roi[:, 2:]).all()
        require(bool(inside), f"the middle of a pose of the {name} half lies outside its box")


def tracks_of_one_class(opened: Opened) -> None:
    """Check that a track is of one class, with frames 0, 1, ... each once; unknown tracks are -1 throughout."""
    for name, half in opened.halves:
        if half.tracks.min() < 0:
            unknown = set(half.tracks.tolist()) == set(half.frames.tolist()) == {-1}
            require(unknown, f"some tracks of the {name} half are known and some are not")
            continue
        order = np.lexsort((half.frames, half.tracks))
        tracks, frames, labels = half.tracks[order], half.frames[order], half.labels[order]
        starts = np.flatnonzero(np.r_[True, tracks[1:] != tracks[:-1]])
        places = np.arange(len(tracks)) - np.repeat(starts, np.diff(np.r_[starts, len(tracks)]))
        require(bool((frames == places).all()), f"frames of a track of the {name} half are not 0, 1, 2, ...")
        same = (labels == labels[starts].repeat(np.diff(np.r_[starts, len(tracks)]))).all()
        require(bool(same), f"a track of the {name} half has images of two classes")


def can_be_split(opened: Opened) -> None:
    """Check that tracks of the training half can be held out, and every class keeps images to train on."""
    train = opened.dataset.train()
    held_out = TrackSplitSpec(tracks_per_class=type(opened.spec).held_out_tracks(""))
    for split in (held_out, OneTrackSplitSpec()):
        try:
            rows = split_tracks(split, train.labels, train.tracks)
        except StnbenchError as error:
            raise AssertionError(f"the split {split.kind} is not possible: {error}") from error
        require(len(rows.train) + len(rows.validation) == len(train), f"the split {split.kind} loses images")


def halves_apart(opened: Opened) -> None:
    """Check that no image is in both halves."""
    (_, train), (_, test) = opened.halves
    known = {image.tobytes() for image in train.images}
    shared = sum(image.tobytes() in known for image in test.images)
    require(shared == 0, f"{shared} test images are training images as well")


def announced_size(opened: Opened) -> None:
    """Check that the size announced for estimates of time is that of the training half."""
    announced, train = opened.spec.training_half, opened.dataset.train()
    if announced is None:
        return
    images, classes = announced[0], announced[1]
    found = (len(train), len(opened.dataset.class_names))
    require((images, classes) == found, f"training_half says {images} images of {classes} classes, there are {found}")


def opened_again(opened: Opened) -> None:
    """Check that reading or opening the set again gives the same images and digest."""
    other = opened.again()
    for name, first, second in (
        ("training", opened.dataset.train(), other.train()),
        ("test", opened.dataset.test(), other.test()),
    ):
        require(first.digest == second.digest, f"the {name} half has another digest when it is opened again")
        same = np.array_equal(first.images, second.images) and np.array_equal(first.labels, second.labels)
        require(same, f"the {name} half has other images when it is opened again: derive them from the specification")


def stored_dataset(opened: Opened) -> None:
    """Check that the specification is unchanged after serialisation to JSON and back."""
    again = from_json(cast("Any", AnyDataset), to_json(opened.spec), where="the part")
    require(again == opened.spec, f"{opened.spec} comes back from JSON as {again}")


DATASET_CHECKS: Final[Mapping[str, Callable[[Opened], None]]] = {
    "a row for each image": rows_of_arrays,
    "labels name classes": labels_name_classes,
    "every class to train on": every_class_to_train_on,
    "boxes and poses": boxes_and_poses,
    "tracks of one class": tracks_of_one_class,
    "can be split": can_be_split,
    "halves are apart": halves_apart,
    "announced size": announced_size,
    "the same when opened again": opened_again,
    "specification in JSON": stored_dataset,
}
"""Every check of a data set, by the property that it checks."""


def opened_dataset(spec: DatasetSpec, root: Path) -> Opened:
    """Open a data set for its checks; caches lie in ``root``."""

    def again() -> Dataset:
        return open_dataset(spec, root=root, workers=1)

    return Opened(spec=spec, dataset=again(), again=again)


# All menus.


@dataclass(frozen=True, kw_only=True, slots=True)
class Menu:
    """The checks of a kind of part.

    Attributes:
        kind: the kind.
        checks: every check, by the property that it checks.
        names: returns the names of the parts of the kind.
        specify: returns the specification of a name with some keys.
        subject: returns the argument of the checks for a specification, given a folder for files.
    """

    kind: str
    checks: Mapping[str, Callable[[Any], None]]
    names: Callable[[], Iterable[str]]
    specify: Callable[[str, Mapping[str, object]], Any]
    subject: Callable[[Any, Path], Any] = lambda spec, _: spec


def _menu(registry: Registry, checks: Mapping[str, Callable[[Any], None]]) -> Menu:
    def specify(name: str, options: Mapping[str, object]) -> Any:  # noqa: ANN401 - of any kind
        form: Any = Annotated[registry.base, registry]
        return from_plain(form, cast("Any", {registry.discriminator: name, **options}), where="the part")

    return Menu(kind=registry.kind, checks=checks, names=registry.names, specify=specify)


def _computed_metrics() -> Mapping[str, Metric]:
    return {name: item for name, item in metrics().items() if item.needs != "meter"}


def _metric(name: str, options: Mapping[str, object]) -> Metric:
    if options:
        raise SpecError(f"a metric has no key {next(iter(options))}", remedy="name the metric alone")
    return metric(name)


MENUS: Final[Mapping[str, Menu]] = {
    menu.kind: menu
    for menu in (
        _menu(TRANSFORMERS, TRANSFORMER_CHECKS),
        _menu(LOCNETS, LOCNET_CHECKS),
        _menu(NETWORKS, NETWORK_CHECKS),
        replace(_menu(DATASETS, DATASET_CHECKS), subject=opened_dataset),
        _menu(AUGMENTATIONS, AUGMENTATION_CHECKS),
        _menu(OPTIMIZERS, OPTIMIZER_CHECKS),
        _menu(SCHEDULES, SCHEDULE_CHECKS),
        _menu(PLANNERS, PLANNER_CHECKS),
        _menu(PRUNERS, PRUNER_CHECKS),
        Menu(kind=METRIC, checks=METRIC_CHECKS, names=_computed_metrics, specify=_metric),
    )
}
"""The menus, by kind of part: one for every kind that ``stnbench.register`` knows."""


def menu_of(name: str, kind: str = "") -> Menu:
    """Return the menu for the part of a name.

    Args:
        name: the name of the part.
        kind: its kind; needed where parts of several kinds have the name.

    Raises:
        UnknownNameError: if no part has the name.
        SpecError: if parts of several kinds have it.
    """
    if kind and kind not in MENUS:
        raise UnknownNameError("kind of part", kind, MENUS)
    known = {menu.kind: set(menu.names()) for menu in MENUS.values() if kind in ("", menu.kind)}
    found = [one for one, names in known.items() if name in names]
    if not found:
        raise UnknownNameError(kind or "part", name, sorted(set().union(*known.values())))
    if len(found) > 1:
        raise SpecError(f"{name} is a {' and a '.join(found)}", remedy=f"say which: --kind {found[0]}")
    return MENUS[found[0]]


def run_checks(menu: Menu, spec: Any, told: Callable[[str, str], None]) -> dict[str, str]:  # noqa: ANN401 - of any kind
    """Run every check of a menu and return the message of each, empty where it passes.

    Args:
        menu: the menu.
        spec: the specification of the part.
        told: called with each check and its message, when it is done.
    """
    results: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        subject: Any = None
        for name, check in menu.checks.items():
            try:
                subject = menu.subject(spec, Path(folder)) if subject is None else subject
                check(subject)
                results[name] = ""
            except Exception as error:  # noqa: BLE001 - whatever the user's code raises is what the check found
                is_said = isinstance(error, AssertionError | StnbenchError)
                results[name] = str(error) if is_said else f"{type(error).__name__}: {error}".partition("\n")[0]
            told(name, results[name])
    return results


def check_part(kind: str, name: str, **options: object) -> None:
    """Run every check on a part, in a test of it.

    Args:
        kind: kind of the part, as in ``stnbench.register``.
        name: name of the part.
        **options: keys of its specification.

    Raises:
        AssertionError: if properties are violated; the message names them.
        UnknownNameError: if the part is not registered.
    """
    menu = menu_of(name, kind)
    results = run_checks(menu, menu.specify(name, options), lambda _name, _found: None)
    failed = [f"{check}: {found}" for check, found in results.items() if found]
    require(not failed, f"the {kind} {name} breaks its contract: " + "; ".join(failed))
