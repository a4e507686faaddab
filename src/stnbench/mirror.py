"""``python -m stnbench.mirror``: see :mod:`stnbench.cli.mirror`."""

from stnbench.cli.mirror import main
from stnbench.core.command import run_command

if __name__ == "__main__":
    run_command(main)
