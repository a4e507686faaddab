"""Bad input gets one clear line on standard error and exit code 2, before anything runs."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands import Workplace

pytestmark = pytest.mark.slow


def assert_refused(workplace: Workplace, *texts: str, command: tuple[str, ...]) -> None:
    """The command says one line with these texts and exits 2."""
    done = workplace.run(*command)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for text in texts:
        assert text in lines[0]


def test_an_unknown_sweep(workplace: Workplace) -> None:
    """The nearest name is offered."""
    assert_refused(workplace, "'locnet_size'", "locnet_sizes", command=("sweep", "locnet_size"))


@pytest.mark.thorough
def test_an_unknown_key(workplace: Workplace) -> None:
    """The key, its file and the nearest key are named; nothing is written."""
    command = ("sweep", "tiny", "network.sizs=[1,2,3]")
    assert_refused(workplace, "network.sizs", "conf/network/lecun.yaml", "network.sizes", command=command)
    assert not workplace.runs.exists()


@pytest.mark.thorough
def test_an_unknown_choice_of_a_trial(workplace: Workplace) -> None:
    """``train`` answers like ``sweep``."""
    assert_refused(workplace, "'idsa'", "idsia", command=("train", "network=idsa"))


@pytest.mark.thorough
def test_a_locnet_too_deep_for_its_input(workplace: Workplace) -> None:
    """The localisation network and the maps it pools to nothing are named."""
    deep = ("locnet@locnet2=conv", "scale=smoke", "dataset.image_size=12")
    assert_refused(workplace, "localisation network", "6 x 6", command=("train", *deep))


@pytest.mark.thorough
def test_a_sweep_of_which_nothing_can_be_built(workplace: Workplace) -> None:
    """Where every configuration is infeasible the sweep cannot start."""
    (workplace.folder / "sweeps" / "deep.yaml").write_text(
        "question: Too deep?\nbaselines: false\nseeds: [1]\nbase:\n  scale: smoke\n  locnet@locnet2: conv\n"
        "  dataset.tracks_per_class: 2\n  dataset.test_tracks_per_class: 1\n  split.tracks_per_class: 1\n"
        "  dataset.image_size: 12\naxes:\n  transformer: [affine, scale]\n"
    )
    done = workplace.run("sweep", "deep", "--no-mlflow")
    assert done.returncode == 2, done.stderr
    assert "error: no configuration of deep can be built" in done.stderr.splitlines()[-1]


@pytest.fixture
def tree(fake_gtsrb: Any, tmp_path: Path) -> Path:
    """A small tree in GTSRB's official layout."""
    fake_gtsrb.write_train(tmp_path / "gtsrb")
    return tmp_path / "gtsrb"


@pytest.mark.thorough
def test_a_truncated_image(workplace: Workplace, tree: Path, tmp_path: Path) -> None:
    """The file is named."""
    image = min(tree.rglob("*.ppm"))
    image.write_bytes(image.read_bytes()[:-7])
    own = Workplace(tmp_path, tmp_path / "data")
    assert_refused(own, image.name, command=("sweep", "locnet_sizes", "dataset=gtsrb", f"dataset.root={tree}"))


@pytest.mark.thorough
def test_a_table_row_without_its_image(workplace: Workplace, tree: Path, tmp_path: Path) -> None:
    """The row's image is named."""
    image = min(tree.rglob("*.ppm"))
    image.unlink()
    own = Workplace(tmp_path, tmp_path / "data")
    assert_refused(own, image.name, command=("data", "prepare", "gtsrb", "--root", str(tree)))


@pytest.mark.thorough
def test_no_data_at_all(workplace: Workplace, tmp_path: Path) -> None:
    """The remedy is a command."""
    own = Workplace(workplace.folder, tmp_path / "data")
    assert_refused(own, "stnbench.data prepare gtsrb", command=("train", "dataset=gtsrb"))


@pytest.mark.thorough
def test_a_corrupt_cache(workplace: Workplace, tree: Path, tmp_path: Path) -> None:
    """The cache's file and the remedy are named."""
    own = Workplace(workplace.folder, tmp_path / "data")
    assert own.run("data", "prepare", "gtsrb", "--root", str(tree)).returncode == 0
    images = next((tmp_path / "data" / "cache").glob("gtsrb-train-*/images.npy"))
    images.write_bytes(images.read_bytes()[:1000])
    assert_refused(
        own, "images.npy", "delete", command=("train", "dataset=gtsrb", f"dataset.root={tree}", "dataset.image_size=48")
    )


@pytest.mark.thorough
def test_a_runs_folder_that_cannot_be_written(workplace: Workplace) -> None:
    """The folder and the variable that moves it are named."""
    workplace.runs.write_text("a file where the folder should be")
    assert_refused(workplace, str(workplace.runs), "STNBENCH_RUNS", command=("sweep", "tiny"))


@pytest.mark.thorough
def test_a_store_from_a_newer_version(workplace: Workplace) -> None:
    """Both revisions are named, and the store stays as it is."""
    assert workplace.run("sweep", "tiny", "--budget", "0.01s", "--no-mlflow").returncode == 1
    with closing(sqlite3.connect(workplace.runs / "stnbench.db")) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
        connection.commit()
    assert_refused(workplace, "9999", "newer", command=("sweep", "tiny"))
    assert_refused(workplace, "9999", command=("report",))


@pytest.mark.thorough
def test_no_store_to_report_on(workplace: Workplace) -> None:
    """Nothing has run yet: the line says what to type."""
    assert_refused(workplace, "stnbench.sweep", command=("report",))
    assert_refused(workplace, "stnbench.sweep", command=("status",))
