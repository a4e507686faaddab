"""Fixtures of the end-to-end tests: data are drawn once."""

from pathlib import Path

import pytest
from commands import TINY, Workplace


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder for all end-to-end tests, filled by the first that needs it."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def workplace(tmp_path: Path, shared_data: Path) -> Workplace:
    """A user's folder with the sweep ``tiny``."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "tiny.yaml").write_text(TINY)
    return Workplace(tmp_path, shared_data)
