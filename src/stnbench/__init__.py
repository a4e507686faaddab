"""Mass benchmarking of spatial transformer networks.

``stnbench.compare`` makes a leaderboard of anybody's results. Nothing else happens at import, and nothing heavy is
imported before it is asked for: the commands are those of ``stnbench --help``.
"""

from collections.abc import Callable
from typing import Any

from stnbench.core.lazy import lazy_names

__version__ = "0.1.0"

compare: Callable[..., Any]
"""See :func:`stnbench.analysis.compare_frame.compare`."""

__getattr__, __dir__ = lazy_names(__name__, {"compare": "stnbench.analysis.compare_frame"})
