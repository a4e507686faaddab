"""The composed configuration is Hydra's."""

import shutil
from pathlib import Path
from typing import cast

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from own_parts import write_part

from stnbench.config.compose import EXPERIMENT, ROOT, Composer, Node, fill_defaults
from stnbench.config.locate import conf_folder
from stnbench.config.resolve import parse_overrides
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.spec.sweep import Override

pytestmark = pytest.mark.slow

COMPOSER = Composer(conf_folder())


@st.composite
def combinations(draw: st.DrawFn) -> list[Override]:
    """Choices of up to six groups; an experiment, and a scale that chooses, give way to them, which Hydra's do not."""
    groups = draw(st.lists(st.sampled_from(sorted(set(COMPOSER.defaults) - {EXPERIMENT})), max_size=6, unique=True))
    groups = [*groups, "scale"] if "scale" not in groups else groups
    chosen = [Override(key=key, value=draw(st.sampled_from(COMPOSER.choices(key)))) for key in groups]
    is_quick = Override(key="scale", value="quick") in chosen
    return [choice for choice in chosen if not (is_quick and choice.key in {"optimizer", "schedule", "preprocess"})]


@pytest.mark.thorough
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


@pytest.mark.thorough
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
  - override /tta: nine
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
    assert searching.usual(said)["network"] == "idsia"


def test_what_the_user_chooses_wins_over_an_experiment(searching: Composer) -> None:
    """A file that the user chooses, be it the default, stands as it is; the rest of the experiment stays."""
    plain = composed(searching, "scale=paper")
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
    assert composed(searching, "experiment=search", "scale=quick")["training"]["epochs"] == 3
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


WIDE = """# @package _global_
defaults:
  - {base}
  - override /preprocess: global
  - override /schedule: one_cycle
  - override /locnet@locnet2: conv
  - _self_
dataset:
  image_size: 24
schedule:
  warmup_share: 0.1
"""


@pytest.fixture(scope="module")
def scaling(tmp_path_factory: pytest.TempPathFactory) -> Composer:
    """The shipped groups with a scale that builds on another and chooses from groups, and an experiment against it."""
    folder = tmp_path_factory.mktemp("conf") / "conf"
    shutil.copytree(conf_folder(), folder)
    (folder / "scale" / "wide.yaml").write_text(WIDE.format(base="paper"))
    (folder / "scale" / "wider.yaml").write_text(WIDE.format(base="wide").replace("0.1", "0.2"))
    (folder / "experiment" / "search.yaml").write_text(SEARCH)
    return Composer(folder)


@pytest.mark.parametrize("name", ["wide", "wider", "quick"])
def test_a_scale_chooses_groups_and_sets_keys(scaling: Composer, name: str) -> None:
    """As Hydra composes it, alone and beside choices of the groups that it chooses from and sets keys of."""
    said = [Override(key="scale", value=name)]
    assert scaling.compose(said) == as_hydra(scaling.folder, said)
    for choice in ("preprocess=contrastive", "dataset=gtsrb", "dataset=digits", "network=idsia"):
        both = [*said, *parse_overrides([choice])]
        assert scaling.compose(both) == as_hydra(scaling.folder, both), choice


def test_what_the_user_chooses_wins_over_a_scale(scaling: Composer) -> None:
    """The file that a scale chooses is a default, and its keys for it go with it; its other keys hold for any file."""
    node = composed(scaling, "scale=wider")

    assert (node["preprocess"]["contrastive_norm"], node["schedule"]["warmup_share"]) == (False, 0.2)
    assert node["dataset"]["image_size"] == 24
    assert node["training"]["epochs"] == 10
    assert composed(scaling, "scale=wider", "preprocess=contrastive")["preprocess"]["contrastive_norm"] is True
    assert composed(scaling, "scale=wider", "dataset=gtsrb")["dataset"]["image_size"] == 24
    assert composed(scaling, "scale=wider", "schedule=one_cycle")["schedule"]["warmup_share"] == 0.2
    plain = composed(scaling, "scale=paper", "optimizer=sgd", "schedule=constant")
    for said in (["scale=quick"], []):
        node = composed(scaling, *said, "optimizer=sgd", "schedule=constant")
        assert (node["optimizer"], node["schedule"]) == (plain["optimizer"], plain["schedule"])
        assert node["dataset"]["image_size"] == 32


def test_an_experiment_chooses_before_a_scale(scaling: Composer) -> None:
    """Of a group that both choose from, the experiment's choice counts; of others, the scale's."""
    said = parse_overrides(["experiment=search", "scale=wide"])
    usual = scaling.usual(said)

    assert (usual["augment"], usual["schedule"], usual["locnet@locnet3"]) == ("idsia", "one_cycle", "conv")
    assert scaling.compose(said)["dataset"]["image_size"] == 24  # type: ignore[index, call-overload]


PART = """
from dataclasses import dataclass
import stnbench

@stnbench.register("{kind}", "{name}")
class Made:
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        bound: float = 0.5
"""


@pytest.mark.usefixtures("parts_forgotten")
@pytest.mark.parametrize(
    ("kind", "group", "section", "key"),
    [
        ("transformer", "transformer", "transformer", "family"),
        ("optimizer", "optimizer", "optimizer", "kind"),
        ("locnet", "locnet@locnet2", "locnet2", "kind"),
    ],
)
def test_a_part_from_outside_needs_no_file_in_conf(
    kind: str, group: str, section: str, key: str, tmp_path: Path
) -> None:
    """An installed part is chosen by its name, with its keys; a misspelt one is told the name."""
    write_part(tmp_path, "mine", PART.format(kind=kind, name="mine"))
    composer = Composer(conf_folder())
    assert "mine" in composer.choices(group)
    node = composer.compose([Override(key=group, value="mine"), Override(key=f"{section}.bound", value=0.25)])
    chosen = cast("dict[str, object]", node[section])
    assert (chosen[key], chosen["bound"]) == ("mine", 0.25)
    with pytest.raises(UnknownNameError, match="did you mean mine"):
        composer.compose([Override(key=group, value="mime")])
    with pytest.raises(UnknownNameError, match=r"bond.*the part mine"):
        composer.compose([Override(key=group, value="mine"), Override(key=f"{section}.bond", value=1)])


@pytest.mark.usefixtures("parts_forgotten")
def test_a_file_in_conf_decides_about_a_part_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys are other defaults."""
    write_part(tmp_path, "mine", PART.format(kind="transformer", name="mine"))
    (tmp_path / "conf" / "transformer").mkdir(parents=True)
    (tmp_path / "conf" / "transformer" / "mine.yaml").write_text("family: mine\nbound: 2.0\n")
    monkeypatch.chdir(tmp_path)
    node = Composer(conf_folder()).compose([Override(key="transformer", value="mine")])
    assert cast("dict[str, object]", node["transformer"])["bound"] == 2.0
