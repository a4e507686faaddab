"""Published results, and the configurations of a sweep that they belong to.

A sweep names them with ``published: moodstocks_2015``. Its configurations may have any size: each is matched by the
values of its axes, composed at the scale of the published runs.
"""

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from stnbench.config.axes import PointComposer
from stnbench.config.compose import Composer
from stnbench.config.locate import published_folder, shown
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.identity import Json
from stnbench.spec.codec import from_plain
from stnbench.spec.data import GtsrbSpec, PreprocessSpec
from stnbench.spec.network import IdsiaSpec, LecunSpec, NetworkSpec
from stnbench.spec.optimizer import SgdSpec
from stnbench.spec.planner import SamplerSpec
from stnbench.spec.sweep import Override, PublishedConfiguration, PublishedResult, PublishedTable, SweepSpec
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec

TEST_IMAGES = 12_630
"""Number of official test images of GTSRB, to which the accuracies refer."""

ALL_IMAGES = 39_209
"""Number of official training images of GTSRB."""

_AS_PUBLISHED = (Override(key="scale", value="paper"), Override(key="dataset", value="gtsrb"))

_OF_SIZE = ("scale", "width", "seed", "dataset", "distortion", "split", "training", "synthetic_train_images")
"""Groups and keys with which a sweep's base or the command line changes the size or the data of its trials."""

_SPLITS = {"test": "test", "val": "validation"}


def read_published(name: str) -> list[PublishedResult]:
    """Read the published results of a table in ``reports/published/``, in its order.

    Raises:
        UnknownNameError: if the table does not exist.
        SpecError: if a line cannot be read; the message names it.
    """
    folder = published_folder()
    path = folder / f"{name}.csv"
    if not path.exists() or path.parent != folder:
        known = [file.stem for file in folder.glob("*.csv")]
        raise UnknownNameError("table of published results", name, known, where=shown(folder))
    return list(_read(path))


def published_trial(result: PublishedResult) -> TrialSpec:
    """Return the trial of a published result.

    Training on all 39,209 images becomes training on all images that the split does not hold out.
    """
    placed = tuple(
        PlacedTransformerSpec(
            place=place, transformer=TransformerSpec(family=result.transformer), locnet=ConvLocnetSpec(sizes=sizes)
        )
        for place, sizes in result.locnets
        if result.transformer != "none"
    )
    return TrialSpec(
        dataset=GtsrbSpec(image_size=48),
        preprocess=PreprocessSpec(global_norm=True, contrastive_norm=result.local_norm, kernel_size=7),
        network=_network(result),
        transformers=placed,
        optimizer=SgdSpec(learning_rate=0.01, momentum=result.momentum, dampening=result.momentum),  # torch7's default
        training=TrainingSpec(
            epochs=result.epochs,
            batch_size=50,
            drop_last="always",
            train_images=None if result.train_images == ALL_IMAGES else result.train_images,
        ),
    )


def match_published(sweep: SweepSpec, composer: Composer, name: str) -> PublishedTable:
    """Return the configurations of a sweep, and their baselines, that have a test result in the table.

    Values of the base and the command line for size and data (``scale``, ``width``, ``training.*``, ``dataset``,
    ``split``) are ignored, since they only make the runs smaller. Everything else must agree, and all values of axes.

    Args:
        sweep: the sweep.
        composer: composer of its configurations.
        name: name of the table of published results.

    Raises:
        SpecError: if the configurations of the sweep are not known before it runs.
        UnknownNameError: if the table does not exist.
    """
    if isinstance(sweep.planner, SamplerSpec):
        raise SpecError(
            f"sweep {sweep.name} compares with {name}, and planner: {sweep.planner.kind} draws its configurations",
            remedy="use planner: grid or racing, or leave out published:",
        )
    results = {published_trial(item).config_id: item for item in read_published(name) if item.split == "test"}
    matched: dict[str, PublishedConfiguration] = {}
    for config_id, full_size_id in _configs(sweep, composer):
        if full_size_id in results:
            matched.setdefault(config_id, PublishedConfiguration(config_id=config_id, result=results[full_size_id]))
    return PublishedTable(name=name, images=TEST_IMAGES, configs=tuple(matched.values()))


def _configs(sweep: SweepSpec, composer: Composer) -> Iterator[tuple[str, str]]:
    """Yield the identity of every configuration and baseline, and its identity at the size of the published runs."""
    base = tuple(said for said in sweep.base if said.key.partition(".")[0] not in _OF_SIZE)
    full_size = dataclasses.replace(sweep, base=(*_AS_PUBLISHED, *base))
    compose, compose_full_size = PointComposer(sweep, composer), PointComposer(full_size, composer)
    for point in sweep.points():
        own, full = compose(point), compose_full_size(point)
        yield own.config_id, full.config_id
        yield own.baseline().config_id, full.baseline().config_id


def _read(path: Path) -> Iterator[PublishedResult]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            where = f"{shown(path)}, line {list(row.values())}"
            try:
                plain: dict[str, Json] = {
                    **row,
                    **{key: _sizes(row[key]) for key in ("cnn", "locnet1", "locnet2", "locnet3")},
                    **{key: bool(int(row[key])) for key in ("multi_scale", "local_norm", "contrastive_norm")},
                    **{key: int(row[key]) for key in ("train_images", "epochs")},
                    **{key: float(row[key]) for key in ("momentum", "accuracy")},
                    "split": _SPLITS[row["split"]],
                }
            except (KeyError, TypeError, ValueError) as error:
                raise SpecError(f"{where}: {error}", remedy="write it as reports/published/README.md says") from error
            yield from_plain(PublishedResult, plain, where=where)


def _sizes(text: str) -> Json:
    return [int(size) for size in text.split(",")] if text else None


def _network(result: PublishedResult) -> NetworkSpec:
    if len(result.cnn) == 4:  # idsia has four sizes, lecun three
        return IdsiaSpec(sizes=result.cnn, contrastive_norm=result.contrastive_norm)
    return LecunSpec(sizes=result.cnn, contrastive_norm=result.contrastive_norm, multi_scale=result.multi_scale)
