"""``python -m stnbench.report``: see :mod:`stnbench.cli.report`."""

from stnbench.cli.report import main
from stnbench.core.command import run_command

if __name__ == "__main__":
    run_command(main)
