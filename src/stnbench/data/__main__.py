"""``python -m stnbench.data``: see :mod:`stnbench.cli.data`."""

from stnbench.cli.main import script

if __name__ == "__main__":
    script("data")
