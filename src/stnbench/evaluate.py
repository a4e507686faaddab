"""``python -m stnbench.evaluate``: see :mod:`stnbench.cli.evaluate`."""

from stnbench.cli.evaluate import main
from stnbench.core.command import run_command

if __name__ == "__main__":
    run_command(main)
