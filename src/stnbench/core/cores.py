"""How many CPU cores this process may use."""

import os


def available_cores() -> int:
    """Cores this process may run on, which containers and ``taskset`` make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
