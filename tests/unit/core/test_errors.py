"""Errors name the thing, the value and the remedy."""

import inspect

from stnbench.core import errors
from stnbench.core.errors import ShapeError, StnbenchError, UnknownNameError


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
    """All exception classes of the module but warnings descend from StnbenchError and are drawn in its docstring."""
    exceptions = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, Exception)]
    classes = [item for item in exceptions if not issubclass(item, Warning)]

    assert len(classes) > 10
    for item in classes:
        assert issubclass(item, StnbenchError)
        assert item.__name__ in str(errors.__doc__)


def test_a_shape_error_carries_the_shapes() -> None:
    """Tests and tools read attributes, not texts."""
    error = ShapeError("theta", (2, 5), "(batch, 6)")

    assert (error.actual, error.expected) == ((2, 5), "(batch, 6)")
