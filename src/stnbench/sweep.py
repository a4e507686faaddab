"""``python -m stnbench.sweep``: see :mod:`stnbench.cli.sweep`."""

from stnbench.cli.main import script

if __name__ == "__main__":
    script("sweep")
