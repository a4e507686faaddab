"""Identity by content: canonical JSON, its digest, and seeds derived by purpose."""

import hashlib
import json

from stnbench.core.errors import SpecError

# Seeds are derived by purpose, never by trial, so that all configurations of one seed are paired.


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2**63) for one purpose of a seed, for example ``derive_seed(3, "order", epoch)``.

    Different purposes give independent streams; equal arguments give equal seeds.
    """
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


RESULTS_VERSION = 2
"""Version of results; increased by hand when training code changes its meaning, which makes every specification a new
trial.

2: equivalent trials have one identity, whichever idle keys they name; the configurations of 2015 drop the last batch
of an epoch even if it is full, and their momentum is dampened as in torch7; theta error and health are measured
differently.
"""

DIGEST_LENGTH = 16
"""Number of hexadecimal digits: 64 bits, for which a collision among a million trials has a probability below 1e-7."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def canonical_json(value: Json) -> str:
    """Return JSON text with sorted keys and without white space, so that equal values give equal text.

    Raises:
        SpecError: if a float is not finite, which JSON cannot represent.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise SpecError(f"a value is not a finite number ({error})", remedy="use a number, or leave it out") from error


def digest(value: Json) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:DIGEST_LENGTH]
