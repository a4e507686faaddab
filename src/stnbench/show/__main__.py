"""``python -m stnbench.show``: see :mod:`stnbench.cli.show`."""

from stnbench.cli.main import script

if __name__ == "__main__":
    script("show")
