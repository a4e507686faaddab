"""``python -m stnbench.show``: see :mod:`stnbench.cli.show`."""

from stnbench.cli.show import main
from stnbench.core.command import run_command

if __name__ == "__main__":
    run_command(main)
