"""``python -m stnbench.status``: see :mod:`stnbench.cli.status`."""

from stnbench.cli.status import main
from stnbench.core.command import run_command

if __name__ == "__main__":
    run_command(main)
