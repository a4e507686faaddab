"""stnbench's local engine, its store and its MLflow mirror, with workers that train nothing.

Everything is what ``python -m stnbench.sweep`` uses, but the workers' command; after the last trial MLflow is brought
up to date, as at the end of every sweep.
"""

import sys
import tempfile
import time
from pathlib import Path

from stnbench.core.files import RunsLayout
from stnbench.engines import Engine
from stnbench.engines.local import LocalEngine
from stnbench.engines.slots import plan_slots
from stnbench.orchestration.asking import RunOptions
from stnbench.orchestration.claims import ProcessIdentity, orchestrator_lock
from stnbench.orchestration.patience import PatientStore
from stnbench.orchestration.session import Session, SessionOptions, local_tracking_uri
from stnbench.planning.build import GridPlanner
from stnbench.spec.sweep import SweepSpec
from stnbench.spec.trial import TrainingSpec, TrialSpec

WORKER = (sys.executable, str(Path(__file__).parent / "stnbench_worker.py"))


class BenchSession(Session):
    """A session whose workers train nothing."""

    slots: int = 2

    def _open_engine(self, data_root: Path) -> Engine:
        del data_root
        return LocalEngine(plan_slots((), self.slots, slots=self.slots), self.layout.logs, command=WORKER)


def main(trials: int, duration_s: float, slots: int) -> None:
    """One configuration with so many seeds; how long MLflow takes to catch up goes to standard output, in seconds."""
    layout = RunsLayout(Path(tempfile.mkdtemp(prefix="bench-stnbench-")))
    sweep = SweepSpec(name="bench", question="How fast?", seeds=tuple(range(trials)), baselines=False)
    spec = TrialSpec(training=TrainingSpec(epochs=4, batch_size=1, train_images=1 + round(1000 * duration_s)))
    options = SessionOptions(slots=slots, tracking_uri=local_tracking_uri(layout))
    identity = ProcessIdentity.current()
    with (
        orchestrator_lock(layout, identity) as lock,
        PatientStore.open(layout.store, writable=True) as store,
    ):
        session = BenchSession(layout, store, identity, options, lock)
        session.slots = slots
        session.run(sweep, GridPlanner(sweep, lambda _: spec), RunOptions(data_root=layout.root))
        started_s = time.time()
        session.sync_tracker(sweep, [])
        print(time.time() - started_s)
        session.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
