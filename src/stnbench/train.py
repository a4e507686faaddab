"""``python -m stnbench.train``: see :mod:`stnbench.cli.train`."""

from stnbench.cli.train import main
from stnbench.core.command import run_command

if __name__ == "__main__":
    run_command(main)
