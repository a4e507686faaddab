"""The checks that users run on their parts hold for ours."""

import pytest

from stnbench.spec.transformer import TRANSFORMERS
from stnbench.testing.transformers import TRANSFORMER_CHECKS, specification

CHECKS = [name for name in TRANSFORMER_CHECKS if name != "compiles as one graph"]
"""The shapes that tests check at every call cannot be traced; tests/support/layer_in_torch.py compiles every family."""


@pytest.mark.parametrize("family", [name for name in TRANSFORMERS.names() if TRANSFORMERS.source(name) is None])
@pytest.mark.parametrize("check", CHECKS)
def test_every_family_keeps_its_promises(family: str, check: str) -> None:
    """What ``stnbench check-part`` asks of a part of a user's own."""
    TRANSFORMER_CHECKS[check](specification(family))
