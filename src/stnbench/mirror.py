"""``python -m stnbench.mirror``: see :mod:`stnbench.cli.mirror`."""

from stnbench.cli.main import script

if __name__ == "__main__":
    script("mirror")
