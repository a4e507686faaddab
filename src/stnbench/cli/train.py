"""``python -m stnbench.train``: run one trial, described by Hydra overrides."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import yaml
from typing_extensions import override

from stnbench.cli.parser import CommandParser, add_json
from stnbench.config.axes import require_effect
from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder, take_dataset_root
from stnbench.config.resolve import parse_overrides, resolve_trial, take_engine_options
from stnbench.core.command import DONE, SOME_FAILED
from stnbench.core.files import AttemptLayout, RunsLayout, data_root
from stnbench.orchestration.asking import RunOptions, RunSummary
from stnbench.orchestration.session import EngineName, SessionOptions, open_session, prepare_datasets, tracking_uri
from stnbench.planning import Observation, Planner
from stnbench.spec.codec import to_plain
from stnbench.spec.data import NO_SCORE
from stnbench.spec.sweep import Override, Point, SweepSpec
from stnbench.spec.trial import TrialSpec
from stnbench.store.store import Store
from stnbench.store.tables import PlannedTrial


class OneTrial(Planner):
    """A planner that proposes one trial."""

    def __init__(self, spec: TrialSpec, label: str) -> None:
        self._trial = PlannedTrial(spec=spec, point=Point(labels=()), label=label)
        self._asked = False

    @override
    def ask(self) -> Sequence[PlannedTrial]:
        asked, self._asked = () if self._asked else (self._trial,), True
        return asked

    @override
    def tell(self, observation: Observation) -> None:
        del observation

    @property
    @override
    def is_exhausted(self) -> bool:
        return self._asked


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code: 0 for a complete trial, 1 for a failed one.

    Raises:
        StnbenchError: if the trial cannot start.
    """
    composer = Composer(conf_folder())
    options = make_parser(composer).parse_intermixed_args(arguments)
    source, overrides = take_dataset_root(parse_overrides(options.overrides))
    slurm, overrides = take_engine_options(overrides, options.engine, composer.folder)
    if options.cfg:
        print(yaml.safe_dump(composer.compose(overrides), sort_keys=False), end="")
        return DONE
    resolved = resolve_trial(composer, overrides)
    for override_ in overrides:
        require_effect(override_, overrides, composer)
    for note in resolved.notes:
        print(f"note: {note}", file=sys.stderr)
    spec = resolved.spec
    _require_feasible(spec)
    uri = tracking_uri(RunsLayout.from_environment())
    name = f"train-{spec.trial_id}"
    engine = SessionOptions(engine=options.engine, slots=1, slurm=slurm, tracking_uri=uri, sweep=name)
    return _train(spec, overrides, engine, options, source)


def _train(
    spec: TrialSpec,
    overrides: tuple[Override, ...],
    engine: SessionOptions,
    options: argparse.Namespace,
    source: Path | None,
) -> int:
    label = ", ".join(str(item) for item in overrides if item.key != "seed") or "the default trial"
    layout = RunsLayout.from_environment()
    sweep = SweepSpec(name=engine.sweep, question=label, seeds=(spec.seed,), baselines=False, overrides=overrides)
    with open_session(layout, engine) as session:
        began_s = time.perf_counter()
        digests = prepare_datasets([spec.dataset], data_root=data_root(), source=source)
        data_s = time.perf_counter() - began_s
        run_options = RunOptions(
            data_root=data_root(), source=source, digests=digests, retry_failed=options.retry_failed
        )
        summary = session.run(sweep, OneTrial(spec, label), run_options)
        session.sync_tracker(sweep, ())
        _print_outcome(session.store, layout, spec, summary, data_s=data_s, as_json=options.json)
    return DONE if summary.complete else SOME_FAILED


def _durations_s(store: Store, trial_id: str, attempt: int, data_s: float) -> dict[str, float]:
    """Return the seconds of each part of a training: the data of this command, then the parts of the attempt.

    ``other`` is the time of the attempt outside its epochs: opening the data, scoring the test half, writing.
    """
    epochs = [epoch.record for epoch in store.epochs_of_trial(trial_id) if epoch.attempt == attempt]
    train, evaluate = (
        sum(record.train_duration_s for record in epochs),
        sum(record.evaluate_duration_s for record in epochs),
    )
    whole = next((one.duration_s for one in store.attempts_of_trial(trial_id) if one.number == attempt), None)
    other = max(0.0, (whole or 0.0) - train - evaluate)
    return {"data": data_s, "train": train, "evaluate": evaluate, "other": other}


def _print_outcome(
    store: Store, layout: RunsLayout, spec: TrialSpec, summary: RunSummary, *, data_s: float, as_json: bool
) -> None:
    outcome = store.outcome(spec.trial_id)
    if outcome is None:
        state = store.trial_states([spec.trial_id])[spec.trial_id]
        why = f": {summary.stop_reason}" if summary.stop_reason else ""
        print(f"trial {spec.trial_id} is {state}{why}", file=sys.stderr)
        return
    attempt = AttemptLayout(layout.attempt(spec.trial_id, outcome.attempt))
    durations_s = _durations_s(store, spec.trial_id, outcome.attempt, data_s)
    if as_json:
        validation = outcome.validation.accuracy if spec.has_held_out_images else None
        scores = {"validation": validation, "test": outcome.test.accuracy if outcome.test else None}
        where = {"folder": str(attempt.folder), "durations_s": durations_s}
        print(json.dumps({"trial": spec.trial_id, **scores, **where, "spec": to_plain(spec)}))
        return
    for score in (outcome.validation, outcome.test):
        if score is not None:
            wrong = score.images - score.correct
            print(f"{score.split}: {100 * score.accuracy:.2f} % of {score.images:,} images ({wrong} errors), one run")
    if not spec.has_held_out_images:
        print(NO_SCORE)
    print(f"{outcome.cost.parameters:,} parameters, trained in {outcome.train_duration_s:.1f} s")
    parts = {"the data": "data", "scoring the epochs": "evaluate", "the rest of the attempt": "other"}
    print("also took " + ", ".join(f"{part} {durations_s[name]:.1f} s" for part, name in parts.items()))
    print(f"trial {spec.trial_id} in {attempt.folder}")


def _require_feasible(spec: TrialSpec) -> None:
    """Raise InfeasibleError if no network can be built, before anything is prepared or written."""
    from stnbench.models.scored_network import assess_cost

    assess_cost(spec)


def make_parser(composer: Composer | None = None) -> CommandParser:
    """Return the parser of the command, whose help names the choices there are."""
    composer = composer or Composer(conf_folder())
    groups = "\n".join(f"  {group}: {', '.join(composer.choices(group))}" for group in composer.defaults)
    parser = CommandParser(
        prog="stnbench train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Trains one trial; one that is complete is not trained again.",
        epilog=f"Groups and their choices (defaults: --cfg job shows all keys):\n{groups}\n"
        "Any key can be set as well: training.epochs=3 locnet1.sizes=[20,20,20] dataset.root=/where/GTSRB/lies\n"
        "Exit codes: 0 done, 1 the trial failed, 2 cannot start.",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    parser.add_argument("--cfg", nargs="?", const="job", choices=["job"], help="print the configuration and leave")
    engines = "where it runs: a worker process, or this one, for debuggers (no progress then)"
    parser.add_argument("--engine", choices=get_args(EngineName), default="local", help=engines)
    parser.add_argument("--retry-failed", action="store_true", help="try again where the trial has failed")
    add_json(parser)
    return parser
