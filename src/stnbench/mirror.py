"""``python -m stnbench.mirror``: see :mod:`stnbench.cli.mirror`."""

from stnbench.core import leave_at_ctrl_c

if __name__ == "__main__":
    leave_at_ctrl_c()
    from stnbench.cli.main import script

    script("mirror")
