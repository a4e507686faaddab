"""``python -m stnbench.data.signs.worker PLAN SHARE WORKERS``: draws a share of a half to standard output.

The tracks are written as the bytes of their records, one after the other; ``source`` starts it and reads them.
"""

import json
import sys

from stnbench.data.signs.source import HalfPlan, share_of


def main(arguments: list[str]) -> None:
    """Draw the share of tracks and write it to standard output."""
    plan, share, workers = arguments
    for records in share_of(HalfPlan(**json.loads(plan)), int(share), int(workers)):
        sys.stdout.buffer.write(records.tobytes())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
