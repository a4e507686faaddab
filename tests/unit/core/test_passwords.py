"""Passwords are hidden wherever an address is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnbench.core.text import hide_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("http://me:se@cr/et@host", "http://me:***@host"),
        ("at https://a:b@c/d failed: x", "at https://a:***@c/d failed: x"),
        ("postgresql://host/db?password=secret&sslmode=require", "postgresql://host/db?password=***&sslmode=require"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:my secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me: @host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:a/b c@d e@host/db cannot be reached", "postgresql://me:***@host/db cannot be reached"),
        ("postgresql://host/db?sslpassword=my secret&x=1", "postgresql://host/db?sslpassword=***&x=1"),
        ("the store postgresql://h/db?password=*** is away", "the store postgresql://h/db?password=*** is away"),
        ("postgresql://me:00000# 0@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:1/2 3@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("HTTPS://me:a b@host", "HTTPS://me:***@host"),
        ("http://127.0.0.1:5000/ and me@home", "http://127.0.0.1:5000/ and me@home"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
    ],
)
def test_only_the_password_is_hidden(text: str, shown: str) -> None:
    """User, host and everything else stay, and an address without a password stays whole."""
    assert hide_passwords(text) == shown


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), min_size=8))
def test_no_password_is_left(password: str) -> None:
    """Whatever it is made of, nothing of it is shown."""
    shown = hide_passwords(f"postgresql://me:{password}@host/db")
    assert shown == "postgresql://me:***@host/db"
    assert hide_passwords(shown) == shown
