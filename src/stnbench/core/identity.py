"""Identity by content: canonical JSON and its digest."""

import hashlib
import json

from stnbench.core.errors import SpecError

# Seeds derived by purpose, never by trial, so that all cells of one seed are paired.


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed below 2**63 for one purpose of one seed, for example ``derive_seed(3, "order", epoch)``.

    Different purposes give independent streams; the same arguments always give the same number.
    """
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


RESULTS_VERSION = 2
"""Raised by hand when training code changes meaning: the same specification then becomes a new trial.

2: trials that mean the same have one identity, whatever idle keys they name; rows of 2015 drop the last batch of an
epoch even when it is full, and their momentum is dampened as torch7's was; theta error and health are measured anew.
"""

DIGEST_LENGTH = 16
"""Hexadecimal digits kept: 64 bits, a collision among a million trials has a chance below 1e-7."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def canonical_json(value: Json) -> str:
    """JSON with sorted keys and no white space: equal values give equal text.

    Raises: SpecError for a float that is not finite, which JSON cannot say.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise SpecError(f"a value is not a finite number ({error})", remedy="use a number, or leave it out") from error


def digest(value: Json) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:DIGEST_LENGTH]
