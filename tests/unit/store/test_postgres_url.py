"""What is wrong with the URL of a PostgreSQL store is told without a server."""

import pytest

from stnbench.core.errors import StoreError
from stnbench.store.store import Store

pytest.importorskip("psycopg")


@pytest.mark.parametrize("parameter", ["foo=1", "sslmode=require&colour=red", "Password2=x"])
def test_an_unknown_parameter_is_one_line(parameter: str) -> None:
    """The parameter is named, the password is not, and nothing is asked of any server."""
    with pytest.raises(StoreError, match="invalid connection option") as caught:
        Store.open(f"postgresql://me:secret@a-host-that-is-not-there/db?{parameter}", writable=False)
    assert "secret" not in str(caught.value)
    assert "behind its ?" in caught.value.remedy
