"""``python -m stnbench.train``: see :mod:`stnbench.cli.train`."""

from stnbench.cli.main import script

if __name__ == "__main__":
    script("train")
