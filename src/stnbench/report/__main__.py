"""Entry point of ``python -m stnbench.report``; see :mod:`stnbench.cli.report`."""

from stnbench.cli.main import script

if __name__ == "__main__":
    script("report")
