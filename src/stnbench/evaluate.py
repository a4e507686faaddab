"""``python -m stnbench.evaluate``: see :mod:`stnbench.cli.evaluate`."""

from stnbench.cli.main import script

if __name__ == "__main__":
    script("evaluate")
