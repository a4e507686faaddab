"""``python -m stnbench.data.signs PLAN SHARE WORKERS``: draw a share of a half to standard output."""

import json
import sys

from stnbench.data.signs import HalfPlan, share_of


def main(arguments: list[str]) -> None:
    """Write the records of a share of the tracks of a half to standard output, one track after the other.

    Args:
        arguments: the half's plan as JSON, the share and the number of workers.
    """
    plan, share, workers = arguments
    for records in share_of(HalfPlan(**json.loads(plan)), int(share), int(workers)):
        sys.stdout.buffer.write(records.tobytes())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
