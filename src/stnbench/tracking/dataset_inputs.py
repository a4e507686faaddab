"""The halves of its data set that an attempt saw, as MLflow's data sets. Pure; no MLflow here."""

from dataclasses import dataclass

from stnbench.spec.codec import to_json
from stnbench.spec.states import AttemptState
from stnbench.tracking.base import AttemptView

DIGEST_LIMIT = 36
_CONTEXTS = {"train": "training", "test": "testing"}


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInput:
    """One half: its name, the digest of its images, how it is made (JSON), and what it was used for."""

    name: str
    digest: str
    source: str
    context: str


def dataset_inputs(view: AttemptView) -> list[DatasetInput]:
    """The halves by which an attempt was trained and scored, once they are known; the test half once it has ended."""
    if view.environment is None:
        return []
    source = to_json(view.spec.dataset)
    kind = view.spec.dataset.kind + (" distorted" if view.spec.dataset.distortion else "")
    halves = view.environment.digests
    ended = view.state is not AttemptState.RUNNING
    return [
        DatasetInput(name=f"{kind} {half}", digest=digest[:DIGEST_LIMIT], source=source, context=_CONTEXTS[half])
        for half, digest in halves.items()
        if half == "train" or ended
    ]
