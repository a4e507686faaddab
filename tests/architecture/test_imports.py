"""Nothing happens at import, and the light commands stay light."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

HEAVY = ("torch", "torchvision", "mlflow", "optuna", "ray", "hydra", "sqlalchemy", "pandas", "matplotlib", "scipy")


def loaded(module: str) -> set[str]:
    """Which heavy libraries are loaded after importing a module in a fresh interpreter."""
    script = f"import json, sys, {module}; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("stnbench", set()),
        ("stnbench.spec.trial", set()),
        ("stnbench.orchestration.machine", set()),
        ("stnbench.status", {"sqlalchemy"}),
        ("stnbench.cli.report", {"sqlalchemy"}),
        ("stnbench.cli.show", {"sqlalchemy"}),
        ("stnbench.cli.store", {"scipy", "sqlalchemy"}),
        ("stnbench.sweep", {"hydra", "sqlalchemy"}),
        ("stnbench.train", {"hydra", "sqlalchemy"}),
        ("stnbench.engines.worker", set()),
        ("stnbench.tracking.mlflow", set()),
    ],
)
def test_a_command_loads_only_what_it_needs_to_start(module: str, allowed: set[str]) -> None:
    """Torch is imported by workers, pandas when a leaderboard is made, MLflow when something is shown."""
    assert loaded(module) <= allowed
