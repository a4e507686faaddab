"""``python -m stnbench.data``: see :mod:`stnbench.cli.data`."""

from stnbench.core import leave_at_ctrl_c

if __name__ == "__main__":
    leave_at_ctrl_c()
    from stnbench.cli.main import script

    script("data")
