"""Contract checks for parts, run by ``stnbench check-part``, by the tests of stnbench and by tests of external parts.

::

    from stnbench.testing import check_part

    def test_my_family():
        check_part("transformer", "wobble")
"""

from stnbench.core import lazy_names

__all__ = ["DATASET_CHECKS", "MENUS", "NETWORK_CHECKS", "TRANSFORMER_CHECKS", "check_part", "check_transformer"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DATASET_CHECKS": "stnbench.testing.parts",
        "MENUS": "stnbench.testing.parts",
        "NETWORK_CHECKS": "stnbench.testing.parts",
        "TRANSFORMER_CHECKS": "stnbench.testing.transformers",
        "check_part": "stnbench.testing.parts",
        "check_transformer": "stnbench.testing.transformers",
    },
)
