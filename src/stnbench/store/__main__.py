"""``python -m stnbench.store``: see :mod:`stnbench.cli.store`."""

from stnbench.cli.store import main
from stnbench.core.command import run_command

if __name__ == "__main__":
    run_command(main)
