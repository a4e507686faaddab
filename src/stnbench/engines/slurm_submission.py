"""What is submitted to Slurm: how many slots its jobs have, the options of sbatch, and the script. Decisions alone."""

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from stnbench.engines.base import Slot
from stnbench.engines.spool import Spool
from stnbench.spec.compute import COMPUTE_VARIABLE
from stnbench.spec.slurm import SlurmOptions

PASSED_ON: Final = ("PYTHONPATH", COMPUTE_VARIABLE, "STNBENCH_PARTS")
"""Variables that a job needs also where the site passes none on (``SBATCH_EXPORT=NONE``)."""

SAVE_SHARE: Final = 0.75
"""The part of the warning before the end in which trials may save; in the rest the job ends itself."""


def plan_slurm_slots(options: SlurmOptions, *, slots: int | None = None, slots_per_gpu: int = 1) -> tuple[Slot, ...]:
    """Return a slot for each trial that can run at once; ``slots`` sets their number.

    The name of a device is that of a job and a GPU of it, so that trials whose slots share a device share a GPU when
    they run, whichever that is. The slots of one job follow each other, so that few trials fill few jobs.
    """
    per_job = options.trials_at_once(slots_per_gpu)
    count = slots or options.jobs * per_job
    jobs = math.ceil(count / per_job)
    threads = max(1, options.cpus // per_job)
    places = [
        (f"job{job}", str(index // slots_per_gpu) if options.gpus else "cpu", index)
        for job in range(jobs)
        for index in range(per_job)
    ]
    return tuple(
        Slot(name=f"{job}-{index}", device=f"{job}:{device}", threads=threads) for job, device, index in places[:count]
    )


def sbatch_options(options: SlurmOptions, spool: Spool) -> list[str]:
    """Return the options of sbatch for one job, but for its name and the array."""
    log = str(spool.logs).replace("%", "%%")
    said = {
        "partition": ",".join(options.partitions),
        "account": options.account,
        "qos": options.qos,
        "gres": options.gres,
        "constraint": options.constraint,
        "mem": options.memory,
    }
    return [
        *(f"--{name}={value}" for name, value in said.items() if value),
        "--ntasks=1",
        f"--cpus-per-task={options.cpus}",
        f"--time={math.ceil(options.time_limit_s / 60)}",
        f"--signal=B:USR1@{math.ceil(options.warning_s)}",
        "--requeue",
        "--open-mode=append",
        f"--output={log}/%A_%a.log",
        *options.sbatch,
    ]


def job_script(
    options: SlurmOptions, spool: Spool, *, slots_per_gpu: int, command: Sequence[str], environ: Mapping[str, str]
) -> str:
    """Return what a job runs: the user's setup, then this package's own module in the place of the shell.

    Args:
        options: of the jobs.
        spool: that the job works for.
        slots_per_gpu: how many attempts share a GPU.
        command: of a worker.
        environ: variables, of which those in ``PASSED_ON`` are set.
    """
    arguments = {
        "spool": str(spool.root),
        "gpus": options.gpus,
        "trials": options.trials_per_job,
        "slots-per-gpu": slots_per_gpu,
        "cpus": options.cpus,
        "heartbeat-s": options.heartbeat_s,
        "idle-s": options.idle_s,
        "orphaned-after-s": options.orphaned_after_s,
        "save-s": options.warning_s * SAVE_SHARE,
        "worker": json.dumps(list(command)),
    }
    words = [options.python or sys.executable, "-m", "stnbench.engines.slurm_job"]
    words += [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    lines = [
        "#!/bin/bash",
        *(f"export {name}={shlex.quote(environ[name])}" for name in PASSED_ON if name in environ),
        *options.setup,
        f"exec {shlex.join(words)}",
    ]
    return "\n".join(lines) + "\n"
