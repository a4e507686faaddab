"""What the transformers are worth: the accuracy with their parameters replaced by constants."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor

from stnbench.data.resident import DeviceImages
from stnbench.diagnostics.health import Looks
from stnbench.models.learners import Key, learning_transformers, localization_networks
from stnbench.models.scored_network import Model
from stnbench.training.evaluate import Evaluation, accuracy


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplacedAccuracy:
    """Accuracies in [0, 1] with the parameters replaced of one transformer, and of all of them at once.

    ``mean`` and ``all_mean`` are None where no image has finite parameters.
    """

    identity: float
    mean: float | None
    all_identity: float
    all_mean: float | None


def replaced_accuracies(
    model: Model, images: DeviceImages, rows: Tensor, evaluation: Evaluation
) -> dict[Key, ReplacedAccuracy]:
    """The accuracies of a network whose localisation networks emit constants: the identity, and their means.

    The constants pass through the transformer as its own parameters do: composed over iterations, and under its scale
    guard, if it has one. It takes two passes over the images, with k > 1 transformers 2 k + 2.

    Args:
        model: the network with its preprocessing.
        images: the images.
        rows: int64 (m,), which of them.
        evaluation: of the same network on the same images.
    """
    identity, mean = _identities(model), evaluation.mean_parameters
    by_identity = _accuracies(model, images, rows, identity)
    by_mean = _accuracies(model, images, rows, {key: mean[key] for key in identity if key in mean})
    all_mean = by_mean.get(None) if len(by_mean) == len(by_identity) else None
    return {
        key: ReplacedAccuracy(
            identity=by_identity[key],
            mean=by_mean.get(key),
            all_identity=by_identity[None],
            all_mean=all_mean,
        )
        for key in identity
    }


@contextmanager
def emitting(model: Model, looks: Mapping[Key, Looks]) -> Iterator[None]:
    """While it lasts, the localisation networks of these transformers emit constants, one for each look."""
    networks = localization_networks(model.network)
    with ExitStack() as stack:
        for key, constants in looks.items():
            stack.callback(networks[key].register_forward_hook(_replace_by(constants)).remove)
        yield


def _replace_by(constants: Looks) -> Callable[[object, object, Tensor], Tensor]:
    """A hook of a localisation network; each pass over a batch begins with the first look."""
    looks = itertools.cycle(constants)

    def replace(_module: object, _arguments: object, emitted: Tensor) -> Tensor:
        return emitted.new_tensor(next(looks)).expand_as(emitted)

    return replace


def _identities(model: Model) -> dict[Key, Looks]:
    """The parameters of the identity, for every look of every transformer that learns."""
    return {
        key: (transformer.transformation.identity_parameters(),) * transformer.spec.iterations
        for key, transformer in learning_transformers(model.network).items()
    }


def _accuracies(
    model: Model, images: DeviceImages, rows: Tensor, looks: Mapping[Key, Looks]
) -> dict[Key | None, float]:
    """With each transformer replaced by itself and, as None, all at once."""
    found: dict[Key | None, float] = {}
    if not looks:
        return found
    with emitting(model, looks):
        found[None] = accuracy(model, images, rows)
    for key in looks:
        if len(looks) == 1:
            found[key] = found[None]
            continue
        with emitting(model, {key: looks[key]}):
            found[key] = accuracy(model, images, rows)
    return found
