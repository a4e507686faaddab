"""``python -m stnbench.status``: see :mod:`stnbench.cli.status`, whose main names this module exports too."""

from stnbench.core import lazy_names, leave_at_ctrl_c

__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(("is_gone", "read_status"), "stnbench.cli.status"))

if __name__ == "__main__":
    leave_at_ctrl_c()
    from stnbench.cli.main import script

    script("status")
