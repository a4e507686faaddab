"""Two sweeps at once on one PostgreSQL store that share a trial, killed at random.

``SHARED_KILLS=200`` in the environment makes it the long version (``make chaos-shared``).
"""

import os
from pathlib import Path

import pytest
from postgres import database, needs_postgres
from shared_sweeps import KINDS, SharedChaos

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

KILLS = int(os.environ.get("SHARED_KILLS", "6"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
TIMEOUT_S = 120 + 15 * KILLS


@needs_postgres
@pytest.mark.timeout(2 * TIMEOUT_S)
def test_a_trial_of_two_sweeps_is_complete_exactly_once(tmp_path: Path) -> None:
    """Whoever is killed, the shared trial and all others are complete once, and no two attempts of one run at once.

    Orchestrators and workers are killed (kill -9) and connections to the server ended; the same command follows each
    end. A claim of a dead process is free again, and the sweep that waited for it goes on with the trial.
    """
    with database() as url:
        chaos = SharedChaos(url, tmp_path, SEED, pause_s=(0.1, 0.8))
        chaos.run(KILLS, timeout_s=TIMEOUT_S)
        print(f"\n{chaos.summary()}")
        assert chaos.faults.total() >= KILLS
        assert KILLS < 50 or chaos.faults.keys() == KINDS.keys()
