"""Paths are paths: whatever characters they have, wherever they are written."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.errors import SpecError
from stnbench.core.files import RunsLayout, data_root, sqlite_path, sqlite_uri, user_path

names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=30)
AWKWARD = [
    "feature%20x",
    "50%",
    "a#b",
    "a?b=c",
    "j\xf6rg",
    "GTSRB (1)",
    "a&b;c",
    "a b",
    "a'b\"c",
    "a%3Fb",
    "a\\b",
    "a@b:c",
]


@given(names)
def test_the_address_of_a_sqlite_file_is_that_of_the_file(name: str) -> None:
    """For SQLAlchemy, which MLflow asks, and back; an ordinary path stands in it as it is."""
    path = Path("/somewhere") / name / "mlflow.db"
    uri = sqlite_uri(path)

    assert sqlite_path(uri) == path
    assert sa.make_url(uri).database == str(path)
    if name.isalnum():
        assert uri == f"sqlite:///{path}"


@pytest.mark.parametrize("name", AWKWARD)
def test_an_awkward_folder_is_opened_by_its_address(name: str, tmp_path: Path) -> None:
    """The database lies in the folder, and nowhere else."""
    folder = tmp_path / name
    folder.mkdir()
    with sa.create_engine(sqlite_uri(folder / "x.db")).connect() as connection:
        connection.execute(sa.text("create table t (x int)"))
    connection.engine.dispose()

    assert [item.name for item in folder.iterdir()] == ["x.db"]
    assert [item.name for item in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("variable", ["STNBENCH_RUNS", "STNBENCH_DATA"])
def test_a_folder_whose_name_is_no_text_here_is_refused(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the store nor MLflow could name it; also where it is the working folder."""
    folder = tmp_path / os.fsdecode(b"j\xe4rg")
    folder.mkdir()
    read = RunsLayout.from_environment if variable == "STNBENCH_RUNS" else data_root
    monkeypatch.setenv(variable, str(folder))
    with pytest.raises(SpecError, match=rf"{variable} is .*no text.*: use a UTF-8 locale"):
        read()
    monkeypatch.delenv(variable)
    monkeypatch.chdir(folder)
    with pytest.raises(SpecError, match="use a UTF-8 locale"):
        read()


@pytest.mark.parametrize("variable", ["STNBENCH_RUNS", "STNBENCH_DATA"])
def test_a_tilde_in_a_variable_is_the_home_folder(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder that is called ``~``; one that begins so is another name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = {}
    for text in ("~/x", "~", "a/~/x", "./~x", ""):
        monkeypatch.setenv(variable, text)
        found[text] = RunsLayout.from_environment().root if variable == "STNBENCH_RUNS" else data_root()

    default = tmp_path / ("runs" if variable == "STNBENCH_RUNS" else "data")
    assert list(found.values()) == [tmp_path / "x", tmp_path, tmp_path / "a/~/x", tmp_path / "~x", default]


@pytest.mark.parametrize("text", ["~nobody-of-that-name/x", "a\0b"])
def test_what_is_no_path_is_refused_with_its_variable(text: str) -> None:
    """One line instead of a folder in the wrong place."""
    with pytest.raises(SpecError, match="STNBENCH_RUNS"):
        user_path(text, "STNBENCH_RUNS")
