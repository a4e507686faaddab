"""Mass benchmarking of spatial transformer networks.

Nothing happens at import: the commands are the modules ``stnbench.sweep``, ``train``, ``report``, ``status``,
``evaluate``, ``mirror`` and ``data``, each run with ``python -m``.
"""

__version__ = "0.1.0"
