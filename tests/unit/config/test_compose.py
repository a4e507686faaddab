"""The composed configuration is Hydra's."""

from typing import cast

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from stnbench.config.compose import ROOT, Composer
from stnbench.config.locate import conf_folder
from stnbench.spec.sweep import Override

COMPOSER = Composer(conf_folder())


@st.composite
def combinations(draw: st.DrawFn) -> list[Override]:
    """Choices of up to six groups."""
    groups = draw(st.lists(st.sampled_from(sorted(COMPOSER.defaults)), max_size=6, unique=True))
    return [Override(key=key, value=draw(st.sampled_from(COMPOSER.choices(key)))) for key in groups]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(chosen=combinations())
def test_sections_put_in_place_are_what_hydra_composes(chosen: list[Override]) -> None:
    """For any combination of group choices, the outcome is that of one composition by Hydra of the whole."""
    with initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"):
        whole = compose(config_name=ROOT, overrides=[str(choice) for choice in chosen])

    assert COMPOSER.compose(chosen) == cast("dict[str, object]", OmegaConf.to_container(whole, resolve=True))


def test_a_composed_configuration_may_be_changed() -> None:
    """What a caller does to the outcome is not seen by the next one."""
    first = COMPOSER.compose([Override(key="network", value="idsia")])
    first["network"] = {}
    first["dataset"]["image_size"] = 3  # type: ignore[index, call-overload]
    assert COMPOSER.compose([Override(key="network", value="idsia")])["network"]["kind"] == "idsia"  # type: ignore[index, call-overload]
    assert COMPOSER.compose([])["dataset"]["image_size"] != 3  # type: ignore[index, call-overload]
