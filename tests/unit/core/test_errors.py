"""Errors name the thing, the value and the remedy."""

import inspect

import pytest

from stnbench.core import errors
from stnbench.core.command import run_command
from stnbench.core.errors import DataMissingError, ShapeError, StnbenchError, UnknownNameError


def test_an_unknown_name_offers_the_nearest() -> None:
    """A typo is answered with what was meant."""
    error = UnknownNameError("network", "lecn", ["idsia", "lecun"], where="conf/network/")

    assert str(error) == "unknown network 'lecn' in conf/network/: did you mean lecun"


def test_an_unknown_name_without_neighbours_lists_what_there_is() -> None:
    """A name like no other is answered with all of them, or the first twelve."""
    few = UnknownNameError("sweep", "zzz", ["a", "b"])
    many = UnknownNameError("sweep", "zzz", [f"name{number:02d}" for number in range(20)])

    assert str(few) == "unknown sweep 'zzz': there are a, b"
    assert str(many).endswith("name11, and 8 more")


def test_every_error_is_one_of_the_tree() -> None:
    """All exception classes of the module descend from StnbenchError and are drawn in its docstring."""
    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, Exception)]

    assert len(classes) > 10
    for item in classes:
        assert issubclass(item, StnbenchError)
        assert item.__name__ in str(errors.__doc__)


def test_a_shape_error_carries_the_shapes() -> None:
    """Tests and tools read attributes, not texts."""
    error = ShapeError("theta", (2, 5), "(batch, 6)")

    assert (error.actual, error.expected) == ((2, 5), "(batch, 6)")


def test_a_command_turns_our_errors_into_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback for what was foreseen, and no line break in its message."""

    def main(_arguments: object) -> int:
        raise DataMissingError("GTSRB is\nnot there", remedy="download it")

    with pytest.raises(SystemExit) as caught:
        run_command(main, [])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: GTSRB is not there: download it\n"


def test_a_command_keeps_the_traceback_of_a_bug() -> None:
    """What was not foreseen is not hidden."""

    def main(_arguments: object) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(main, [])
