"""Contract checks for parts, run by ``stnbench check-part``, by the tests of stnbench and by tests of external parts.

::

    from stnbench.testing import check_transformer

    def test_my_family():
        check_transformer("wobble")
"""

from stnbench.core.lazy import lazy_names

__all__ = ["TRANSFORMER_CHECKS", "check_transformer"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "TRANSFORMER_CHECKS": "stnbench.testing.transformers",
        "check_transformer": "stnbench.testing.transformers",
    },
)
