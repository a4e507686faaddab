"""``python -m stnbench.data``: see :mod:`stnbench.cli.data`."""

from stnbench.cli.data import main
from stnbench.core.command import run_command

if __name__ == "__main__":
    run_command(main)
