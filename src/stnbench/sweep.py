"""``python -m stnbench.sweep``: see :mod:`stnbench.cli.sweep`."""

from stnbench.cli.sweep import main
from stnbench.core.command import run_command

if __name__ == "__main__":
    run_command(main)
