"""Mass benchmarking of spatial transformer networks.

The program ``stnbench`` runs sweeps of trials and reports them; this package offers the same to Python. The names below
are imported on first use: ``import stnbench`` loads neither torch nor any other library.
"""

from typing import TYPE_CHECKING

from stnbench.core import lazy_names

if TYPE_CHECKING:
    from stnbench.analysis.comparison import compare
    from stnbench.analysis.frames import read_sweep as read_results
    from stnbench.api import export, load_pretrained, load_sweep, load_trial, plan, run_sweep
    from stnbench.spec.parts import register

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "compare",
    "export",
    "load_pretrained",
    "load_sweep",
    "load_trial",
    "plan",
    "read_results",
    "register",
    "run_sweep",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "compare": "stnbench.analysis.comparison",
        "export": "stnbench.api",
        "load_pretrained": "stnbench.api",
        "load_sweep": "stnbench.api",
        "load_trial": "stnbench.api",
        "plan": "stnbench.api",
        "run_sweep": "stnbench.api",
        "read_results": "stnbench.analysis.frames:read_sweep",
        "register": "stnbench.spec.parts",
    },
)
