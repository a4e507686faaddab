"""The composed configuration is Hydra's."""

import shutil
from pathlib import Path
from typing import cast

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from stnbench.config.compose import EXPERIMENT, ROOT, Composer
from stnbench.config.locate import conf_folder
from stnbench.config.overrides import parse_overrides
from stnbench.config.sections import Node, fill_defaults
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.sweep import Override

COMPOSER = Composer(conf_folder())


@st.composite
def combinations(draw: st.DrawFn) -> list[Override]:
    """Choices of up to six groups; an experiment gives way to them, which Hydra's does not."""
    groups = draw(st.lists(st.sampled_from(sorted(set(COMPOSER.defaults) - {EXPERIMENT})), max_size=6, unique=True))
    return [Override(key=key, value=draw(st.sampled_from(COMPOSER.choices(key)))) for key in groups]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(chosen=combinations())
def test_sections_put_in_place_are_what_hydra_composes(chosen: list[Override]) -> None:
    """For any combination of group choices, the outcome is that of one composition by Hydra of the whole."""
    assert COMPOSER.compose(chosen) == as_hydra(conf_folder(), chosen)


def as_hydra(folder: Path, choices: list[Override]) -> Node:
    """One composition of the whole by Hydra."""
    with initialize_config_dir(config_dir=str(folder), version_base="1.3"):
        whole = compose(config_name=ROOT, overrides=[str(choice) for choice in choices])
    node = cast("Node", OmegaConf.to_container(whole, resolve=True))
    fill_defaults(node)
    return node


def test_a_composed_configuration_may_be_changed() -> None:
    """What a caller does to the outcome is not seen by the next one."""
    first = COMPOSER.compose([Override(key="network", value="idsia")])
    first["network"] = {}
    first["dataset"]["image_size"] = 3  # type: ignore[index, call-overload]
    assert COMPOSER.compose([Override(key="network", value="idsia")])["network"]["kind"] == "idsia"  # type: ignore[index, call-overload]
    assert COMPOSER.compose([])["dataset"]["image_size"] != 3  # type: ignore[index, call-overload]


@pytest.mark.slow
def test_an_experiment_is_what_hydra_composes() -> None:
    """Alone, every shipped experiment is Hydra's."""
    for name in COMPOSER.choices(EXPERIMENT):
        said = [Override(key=EXPERIMENT, value=name)]
        assert COMPOSER.compose(said) == as_hydra(conf_folder(), said), name


SEARCH = """# @package _global_
defaults:
  - override /network: idsia
  - override /preprocess: global
  - override /augment: idsia
  - override /locnet@locnet3: conv
  - override /scale: paper
  - _self_
network:
  sizes: [4, 5, 6, 7]
augment:
  rotation_deg: 3.0
locnet3:
  sizes: [1, 2, 3]
dataset:
  image_size: 36
training:
  epochs: 14
"""

SEARCH_VIEWS = """# @package _global_
defaults:
  - search
  - override /views: nine
  - override /preprocess: none
  - _self_
training:
  epochs: 15
"""


@pytest.fixture(scope="module")
def searching(tmp_path_factory: pytest.TempPathFactory) -> Composer:
    """The shipped groups and two experiments, the second built on the first."""
    folder = tmp_path_factory.mktemp("conf") / "conf"
    shutil.copytree(conf_folder(), folder)
    (folder / "experiment" / "search.yaml").write_text(SEARCH)
    (folder / "experiment" / "search_views.yaml").write_text(SEARCH_VIEWS)
    (folder / "experiment" / "broken.yaml").write_text("# @package _global_\ndefaults: [override /netwrk: idsia]\n")
    return Composer(folder)


def composed(composer: Composer, *overrides: str) -> dict[str, dict[str, object]]:
    """The configuration of some overrides, as on a command line."""
    return cast("dict[str, dict[str, object]]", composer.compose(parse_overrides(overrides)))


@pytest.mark.parametrize("name", ["search", "search_views"])
def test_an_experiment_chooses_groups_and_sets_keys(searching: Composer, name: str) -> None:
    """As Hydra composes it, also one that builds on another; saying its own choices aloud changes nothing."""
    said = [Override(key=EXPERIMENT, value=name)]
    own = ["network=idsia", "scale=paper", "dataset=signs", "locnet@locnet3=conv"]

    assert searching.compose(said) == as_hydra(searching.folder, said)
    assert composed(searching, f"experiment={name}", *own) == searching.compose(said)
    assert searching.usual(name)["network"] == "idsia"


def test_what_the_user_chooses_wins_over_an_experiment(searching: Composer) -> None:
    """A file that the user chooses, be it the default, stands as it is; the rest of the experiment stays."""
    plain = composed(searching)
    experiment = composed(searching, "experiment=search")
    for section, choice in {
        "preprocess": "preprocess=contrastive",
        "augment": "augment=none",
        "network": "network=lecun",
        "locnet3": "locnet@locnet3=none",
    }.items():
        changed = composed(searching, "experiment=search", choice)
        assert changed == experiment | {section: plain[section]}, choice
    assert composed(searching, "experiment=search", "augment=strong")["augment"] != experiment["augment"]
    assert composed(searching, "experiment=search", "network=lecun", "network.sizes=[1,2,3]")["network"]["sizes"] == [
        1,
        2,
        3,
    ]


def test_the_users_scale_wins_over_an_experiment(searching: Composer) -> None:
    """What the scale says it says last; what it is silent about stays the experiment's."""
    node = composed(searching, "experiment=search", "scale=smoke")
    smoke = composed(searching, "scale=smoke")

    assert (node["training"], node["width"]) == (smoke["training"], smoke["width"])
    assert node["dataset"]["image_size"] == smoke["dataset"]["image_size"] == 32
    assert node["network"]["sizes"] == [4, 5, 6, 7]
    assert composed(searching, "experiment=search", "scale=quick")["training"]["epochs"] == 4
    assert composed(searching, "experiment=search", "scale=paper")["training"]["epochs"] == 14


def test_an_experiment_that_cannot_be_composed_is_named(searching: Composer) -> None:
    """Hydra's words in one error; a misspelt one with the nearest name."""
    with pytest.raises(SpecError, match=r"experiment=broken cannot be composed.*netwrk"):
        searching.compose(parse_overrides(["experiment=broken"]))
    with pytest.raises(UnknownNameError, match="did you mean search"):
        searching.compose(parse_overrides(["experiment=serch"]))


def test_a_message_names_the_experiment_that_changed_a_file(searching: Composer) -> None:
    """The value may stand in either."""
    said = {item.key: item for item in parse_overrides(["experiment=search"])}

    assert searching.file_of("network", said).endswith("search.yaml")
    assert "network/idsia.yaml as changed by" in searching.file_of("network", said)
