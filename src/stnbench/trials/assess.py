"""What a trial's network costs, and whether it can be built at all: before anything runs, on no device."""

from stnbench.data.build import dataset_info
from stnbench.models.cost import measure_cost
from stnbench.spec.result import Cost
from stnbench.spec.trial import TrialSpec


def assess_cost(spec: TrialSpec) -> Cost:
    """The cost of the trial's network.

    Raises: InfeasibleError where no network can be built from the specification.
    """
    return measure_cost(spec, classes=len(dataset_info(spec.dataset).class_names))
