"""The shipped sweeps against the 242 results that were published in 2015."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from stnbench.config.compose import Composer, parse_overrides
from stnbench.config.locate import conf_folder, find_sweep
from stnbench.config.points import PointComposer
from stnbench.config.sweeps import read_sweep
from stnbench.networks.cost import measure_cost
from stnbench.planning.grid import GridPlanner
from stnbench.spec.data import CLASSES, GtsrbSpec, PreprocessSpec
from stnbench.spec.network import IdsiaSpec, LecunSpec, NetworkSpec
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import SgdSpec, TrainingSpec, TrialSpec
from stnbench.store.records import PlannedTrial

TABLE = Path(__file__).parents[3] / "reports" / "published" / "moodstocks_2015.csv"

PUBLISHED = [
    "baseline",
    "locnet_sizes",
    "locnet_large",
    "multiple_st",
    "idsia_st",
    "idsia_multiple_st",
    "normalisation",
    "training_images",
]
"""The sweeps that are the tables of 2015 together."""

CELLS_AND_TWINS = {
    "baseline": (36, 0),
    "locnet_sizes": (16, 1),
    "locnet_large": (12, 1),
    "multiple_st": (15, 0),
    "idsia_st": (12, 3),
    "idsia_multiple_st": (54, 0),
    "normalisation": (64, 4),
    "training_images": (2, 2),
    "headline": (2, 2),
    "committee": (5, 0),
}
"""How many cells each has, and how many twins that are not cells themselves."""


@pytest.fixture(scope="module")
def composer() -> Composer:
    """The shipped groups."""
    return Composer(conf_folder())


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """The published results."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def plan(composer: Composer, name: str, *overrides: str) -> Sequence[PlannedTrial]:
    """What a shipped sweep asks for with its first seed."""
    sweep = read_sweep(find_sweep(name, Path("/nowhere")), composer, parse_overrides([*overrides, "seeds=[1]"]))
    return GridPlanner(sweep, PointComposer(sweep, composer)).ask()


def published_cell(row: Mapping[str, str]) -> TrialSpec:
    """The trial that a published row means, written down without the configuration.

    The rows with all 39,209 images become all images that are not held out: stnbench always holds out whole tracks.
    """
    family = {"affine": "affine", "scale_translation": "scale_translation", "none": None}[row["transformer"]]
    placed = tuple(
        PlacedTransformerSpec(
            place=place,
            transformer=TransformerSpec(family=family),
            locnet=ConvLocnetSpec(sizes=sizes_of(row[f"locnet{place}"])),
        )
        for place in (1, 2, 3)
        if row[f"locnet{place}"]
    )
    everything = row["train_images"] == "39209"
    return TrialSpec(
        dataset=GtsrbSpec(image_size=48),
        preprocess=PreprocessSpec(global_norm=True, contrastive_norm=row["local_norm"] == "1", kernel_size=7),
        network=published_network(row),
        transformers=placed,
        optimizer=SgdSpec(learning_rate=0.01, momentum=float(row["momentum"])),
        training=TrainingSpec(
            epochs=int(row["epochs"]), batch_size=50, train_images=None if everything else int(row["train_images"])
        ),
    )


def published_network(row: Mapping[str, str]) -> NetworkSpec:
    """The classifier of a published row."""
    contrastive_norm = row["contrastive_norm"] == "1"
    if row["network"] == "idsia":
        return IdsiaSpec(sizes=sizes_of(row["cnn"]), contrastive_norm=contrastive_norm)
    return LecunSpec(
        sizes=sizes_of(row["cnn"]), contrastive_norm=contrastive_norm, multi_scale=row["multi_scale"] == "1"
    )


def sizes_of(text: str) -> tuple[int, ...]:
    """``a,b,c`` as numbers."""
    return tuple(int(size) for size in text.split(","))


def test_the_table_has_the_242_results_of_2015(rows: list[dict[str, str]]) -> None:
    """35 networks without a transformer, 151 with, 56 of them again on held-out images; 185 configurations."""
    assert Counter(row["table"] for row in rows) == {"baseline": 35, "baseline_st": 151, "baseline_st_val": 56}
    assert {row["split"] for row in rows if row["table"] != "baseline_st_val"} == {"test"}
    assert len({published_cell(row).cell_id for row in rows}) == 185


def test_the_sweeps_run_what_2015_ran_and_nothing_else(composer: Composer, rows: list[dict[str, str]]) -> None:
    """Every published row has its cell at the scale of 2015, and every cell and twin of these sweeps its row."""
    published = {published_cell(row).cell_id: row for row in rows}
    asked = {
        trial.spec.cell_id: f"{name}: {trial.label}"
        for name in PUBLISHED
        for trial in plan(composer, name, "scale=paper", "dataset=gtsrb")
    }

    assert [row for cell, row in published.items() if cell not in asked] == []
    assert [label for cell, label in asked.items() if cell not in published] == []


@pytest.mark.parametrize("name", CELLS_AND_TWINS)
def test_a_sweep_has_so_many_cells(composer: Composer, name: str) -> None:
    """Each of them with a label of its own."""
    asked = plan(composer, name, "scale=paper", "dataset=gtsrb")
    twins = sum(trial.is_twin for trial in asked)

    assert (len(asked) - twins, twins) == CELLS_AND_TWINS[name]
    assert len({trial.spec.cell_id for trial in asked}) == len(asked)
    assert len({trial.label for trial in asked}) == len(asked)


def test_the_headline_has_the_parameters_that_its_code_gives(composer: Composer) -> None:
    """10,271,405, of which its two transformers have 3,676,906 and 1,336,356; 14 epochs on all images not held out."""
    twin, cell = plan(composer, "headline", "scale=paper", "dataset=gtsrb", "training.epochs=14")

    assert measure_cost(cell.spec, classes=CLASSES).parameters == 10_271_405
    assert measure_cost(twin.spec, classes=CLASSES).parameters == 10_271_405 - 3_676_906 - 1_336_356
    assert (cell.spec.training.epochs, cell.spec.training.train_images) == (14, None)


def test_the_committee_is_25_networks(composer: Composer) -> None:
    """Five preprocessings with five seeds each, as Ciresan et al. 2012 had them; 3,568,443 parameters each."""
    sweep = read_sweep(
        find_sweep("committee", Path("/nowhere")), composer, parse_overrides(["scale=paper", "dataset=gtsrb"])
    )
    asked = GridPlanner(sweep, PointComposer(sweep, composer)).ask()

    assert len({trial.spec.trial_id for trial in asked}) == 25
    assert {trial.spec.augment for trial in asked} - {None} == {asked[0].spec.augment}
    assert measure_cost(asked[0].spec, classes=CLASSES).parameters == 3_568_443
