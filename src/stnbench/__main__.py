"""``python -m stnbench``: see :mod:`stnbench.cli.main`."""

from stnbench.cli.main import script

if __name__ == "__main__":
    script()
