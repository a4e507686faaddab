"""Fixtures of the end-to-end tests: data are drawn once."""

import os
from pathlib import Path

import pytest
from commands import TINY, Workplace


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder for all end-to-end tests, of all processes that run them, filled by the first that needs it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "data"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, shared_data: Path) -> Workplace:
    """A user's folder with the sweep ``tiny``."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "tiny.yaml").write_text(TINY)
    return Workplace(tmp_path, shared_data)
