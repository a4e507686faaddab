"""``python -m stnbench.sweep``: run a sweep, or print its plan."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import get_args

from stnbench.api import Question, plan_question, read_question, run_question
from stnbench.cli.mirror import show_pictures
from stnbench.cli.parser import CommandParser, above_zero, add_json, duration_s, whole
from stnbench.config.locate import sweep_files
from stnbench.config.resolve import SLURM
from stnbench.config.sweeps import DECIDED
from stnbench.core.command import DONE, SOME_FAILED, tell_doing
from stnbench.core.errors import InfeasibleError, SpecError, StnbenchError
from stnbench.core.files import RunsLayout, data_root
from stnbench.core.process import available_cores
from stnbench.core.text import Price, counted, hide_passwords
from stnbench.engines.local import LocalEngine
from stnbench.engines.slots import visible_gpus
from stnbench.engines.worker import InlineEngine
from stnbench.orchestration import verify
from stnbench.orchestration.asking import Budget, RunOptions, RunSummary
from stnbench.orchestration.messages import Patience
from stnbench.orchestration.plan import plan_json, plan_lines
from stnbench.orchestration.session import (
    EngineName,
    Session,
    SessionOptions,
    local_tracking_uri,
    open_session,
    prepare_datasets,
    remembered_slots,
    tracking_uri,
)
from stnbench.planning import Planner
from stnbench.planning.study import require_storage, storage_url, write_study
from stnbench.report.board import Leaderboard, configuration_views
from stnbench.report.output import (
    REPORTS,
    ReportRefresher,
    print_summary,
    read_report,
    report_json,
    write_now,
    write_report,
)
from stnbench.report.scored import Networks, fill_metrics
from stnbench.spec.metrics import describe
from stnbench.spec.result import FailureKind, TrialState
from stnbench.spec.sweep import SweepSpec
from stnbench.store.queries import StoreReader
from stnbench.store.store import Store
from stnbench.tracking import ConfigurationView

AUTO = "auto"


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code.

    The code is 0 if every trial is complete, 1 if some are not, 2 if no configuration can be built.

    Raises:
        StnbenchError: if the sweep cannot start.
    """
    options = make_parser().parse_intermixed_args(arguments)
    if options.measure and not options.plan:
        raise SpecError("--measure without --plan", remedy="add --plan: the times are those of a plan")
    if options.measure and options.engine not in ("local", "inline"):
        raise SpecError(f"--measure with --engine {options.engine}", remedy="it times steps on this machine alone")
    question = read_question(
        options.sweep, options.overrides, engine=options.engine, only=options.only, until=options.until
    )
    is_auto = options.slots == AUTO and options.engine != SLURM
    count = remembered_slots(RunsLayout.from_environment()) if is_auto else _number(options.slots)
    places = question.places(options.engine, count, per_gpu=options.slots_per_gpu)
    planner = question.planner(len(places))
    if options.plan:
        measure_in = places[0] if options.measure else None
        plan = plan_question(question, planner, RunsLayout.from_environment(), slots=len(places), measure_in=measure_in)
        price = Price.from_environment()
        lines = [*plan_lines(plan, price), *_further(question.sweep)]
        print(json.dumps(plan_json(plan, price)) if options.json else "\n".join(lines))
        return DONE
    if options.verify is not None:
        return _verify(question, options)
    return _run(question, planner, options)


def _verify(question: Question, options: argparse.Namespace) -> int:
    """Train complete trials again and compare the results; the store is only read."""
    layout, name = RunsLayout.from_environment(), question.sweep.name
    if options.engine not in ("local", "inline"):
        raise SpecError(f"--verify with --engine {options.engine}", remedy="it runs on this machine: local or inline")
    with Store.open(layout.store, writable=False) as store:
        recorded, foreign = verify.read_recorded(store, name, layout)
    verify.require_some(recorded, foreign, name)
    chosen = verify.choose(recorded, options.verify, seed=options.verify_seed)
    prepare_datasets((item.record.spec.dataset for item in chosen), data_root=data_root(), source=question.source)
    with tempfile.TemporaryDirectory(prefix="stnbench-verify-") as folder:
        scratch = Path(folder)
        trained = verify.train_again(
            chosen,
            open_engine=lambda slots: (
                InlineEngine(slots[0]) if options.engine == "inline" else LocalEngine(slots, scratch / "logs")
            ),
            gpus=visible_gpus(),
            cores=available_cores(),
            scratch=scratch,
            data_root=data_root(),
            source=question.source,
        )
        checks = []
        for item, again in trained:
            place = verify.scratch_folder(scratch, item.record.trial_id)
            checks.append(verify.check(item, again, place, tolerance_pp=options.tolerance))
            print(f"{checks[-1].status}: {checks[-1].name}", file=sys.stderr)
    checks.sort(key=lambda check: check.recorded.record.position)
    facts = {"of": len(recorded), "seed": options.verify_seed, "foreign": foreign}
    plain = verify.report_json(name, checks, **facts)
    print(json.dumps(plain) if options.json else "\n".join(verify.report_lines(name, checks, **facts)))
    return DONE if plain["reproduced"] else SOME_FAILED


def _further(sweep: SweepSpec) -> list[str]:
    """Return lines about the trials that depend on results and are not in the plan."""
    further = sweep.planner.further(len(sweep.seeds))
    return [further] if further else []


def _run(question: Question, planner: Planner, options: argparse.Namespace) -> int:
    layout = RunsLayout.from_environment()
    uri = None if options.no_mlflow else tracking_uri(layout)
    run_options = RunOptions(
        data_root=data_root(),
        retry_failed=options.retry_failed,
        budget=Budget(
            wall_s=options.budget,
            device_hours=options.device_hours,
            max_trials=options.max_trials,
        ),
        keep_checkpoints=options.keep_checkpoints,
        trial_timeout_s=options.trial_timeout,
        patience=options.hang_timeout,
    )
    tell_doing("composing configurations")
    # Composed before anything is written, so that an invalid sweep leaves no trace.
    trials = question.trials()
    session_options = SessionOptions(
        engine=options.engine,
        slots=_number(options.slots),
        measure_slots_with=trials[-1] if options.slots == AUTO and trials else None,  # the first ones are baselines
        slots_per_gpu=options.slots_per_gpu,
        mps=options.mps,
        slurm=question.slurm,
        tracking_uri=uri,
        sweep=question.sweep.name,
    )
    with open_session(layout, session_options) as session, _served(question.sweep.name, options.serve):
        study = _Study(layout, question.sweep, options.optuna_storage)
        refresher = ReportRefresher(layout, question.sweep.name, _warn, write=study.write_report)
        try:
            summary = run_question(session, question, trials, planner, run_options, [refresher])
        finally:
            refresher.close()
            study.write(session.store)
        if not summary.stop_reason:
            _fill_columns(session, question)
        board, is_shown = _report(session, question.sweep, uri, as_json=options.json)
        infeasible = _infeasible(session.store, question.sweep.name)
    if summary.trials and len(infeasible) == summary.trials:
        raise InfeasibleError(f"no configuration of {question.sweep.name} can be built: {infeasible[0]}")
    _say_end(summary, board, layout, uri if is_shown else None)
    return DONE if summary.complete + summary.pruned == summary.trials else SOME_FAILED


class _Study:
    """The study of a sweep in an Optuna storage, written with every report; without a storage, the report alone.

    Raises:
        SpecError: if the storage cannot be used.
    """

    def __init__(self, layout: RunsLayout, sweep: SweepSpec, storage: str | None) -> None:
        self._sweep = sweep
        self._has_failed = False
        self._url = None if storage is None else storage_url(storage, layout.optuna_store)
        if self._url is not None:
            require_storage(self._url, sweep.name)

    def write(self, store: StoreReader) -> None:
        """Write the study; a failure is a warning, because it can be written again from the store."""
        if self._url is None:
            return
        try:
            written = write_study(store, self._sweep, self._url)
        except StnbenchError as error:
            _warn(f"{error}; the same command writes the study again")
        else:
            said = f"Optuna: {counted(written, 'configuration')}, optuna-dashboard {hide_passwords(self._url)}"
            print(said, file=sys.stderr, flush=True)

    def write_report(self, layout: RunsLayout, sweep: str, out: Path) -> None:
        """Write the report while the sweep runs, and the study."""
        write_now(layout, sweep, out)
        if self._url is None or self._has_failed:
            return
        try:
            with Store.open(layout.store, writable=False) as store:
                write_study(store, self._sweep, self._url)
        except StnbenchError as error:
            self._has_failed = True
            _warn(f"{error}; it is tried again when the sweep ends")


def _served(sweep: str, port: int | None) -> AbstractContextManager[None]:
    """Return a context that serves the live page of a sweep; it does nothing without a port, and 0 is any free port."""
    if port is None:
        return nullcontext()
    from stnbench.serve.server import beside  # imports a web server

    return beside(sweep, port or None)


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


def _slots(text: str) -> int | str:
    """Parse ``--slots``: a whole number, or ``auto``."""
    return AUTO if text == AUTO else whole()(text)


def _patience(text: str) -> Patience:
    """Parse ``--hang-timeout``: a duration, ``auto`` or ``off``."""
    if text == AUTO:
        return Patience()
    return Patience.fixed(None if text == "off" else duration_s(text))


def _number(slots: int | str | None) -> int | None:
    """Return ``--slots`` as a number, or None for the default and for ``auto``."""
    return slots if isinstance(slots, int) else None


def _fill_columns(session: Session, question: Question) -> None:
    """Compute the metrics of the sweep's columns that need the trained networks, where they are missing."""
    if all(describe(name).needs == "probabilities" for name in question.sweep.columns):
        return
    networks = Networks(
        data_root=data_root(),
        source=question.source,
        device="cuda:0" if visible_gpus() else "cpu",
        threads=available_cores(),
    )
    fill_metrics(session.store, session.layout, question.sweep.name, warn=_warn, networks=networks, begins=tell_doing)


def _report(session: Session, sweep: SweepSpec, uri: str | None, *, as_json: bool) -> tuple[Leaderboard, bool]:
    """Print and write the leaderboard, and return it with whether MLflow received everything."""
    report = read_report(session.store, sweep.name)
    board = report.board
    if as_json:
        print(json.dumps(report_json(board)))
    else:
        print_summary(board)
    write_report(report)
    configs = configuration_views(board)
    is_shown = session.sync_tracker(sweep, configs)
    if is_shown and uri is not None:
        _show_pictures(session, configs, uri)
    return board, is_shown


def _show_pictures(session: Session, configs: Sequence[ConfigurationView], uri: str) -> None:
    """Show pictures of the best configurations in MLflow; a failure is a warning, because nothing depends on it."""
    try:
        show_pictures(session.store, session.layout, uri, configs)
    except Exception as error:  # noqa: BLE001 - a tracker may fail in any way
        said = hide_passwords((str(error).splitlines() or [""])[0][:300])
        _warn(f"MLflow has no pictures ({type(error).__name__}: {said}); python -m stnbench.mirror shows them")


def _infeasible(store: Store, sweep: str) -> list[str]:
    """Return why trials of the sweep could not be built."""
    ends = (trial.last_attempt for trial in store.sweep_trials(sweep) if trial.state is TrialState.FAILED)
    failures = (attempt.failure for attempt in ends if attempt is not None)
    return [failure.message for failure in failures if failure and failure.kind is FailureKind.INVALID]


def _say_end(summary: RunSummary, board: Leaderboard, layout: RunsLayout, uri: str | None) -> None:
    """Print the next steps to standard error, so that standard output holds the leaderboard only."""
    lines = []
    if summary.adopted or summary.lost:
        lines.append(f"after the last run ended early: {summary.adopted} results adopted, {summary.lost} attempts lost")
    if summary.stop_reason:
        left = summary.trials - summary.complete - summary.failed - summary.pruned
        lines.append(f"stopped with {counted(left, 'trial')} to go ({summary.stop_reason}); the same command goes on")
    if summary.failed:
        lines.append(f"{counted(summary.failed, 'trial')} failed: python -m stnbench.status {board.sweep}")
    lines.append(f"page: {REPORTS / board.sweep / 'index.html'}")
    if uri == local_tracking_uri(layout):
        # An installed stnbench has no Makefile, which is found beside a checkout alone.
        lines.append(f"MLflow: {'make ui' if Path('Makefile').is_file() else 'stnbench mirror --serve'}")
    elif uri is not None:
        lines.append(f"MLflow: {hide_passwords(uri)}")
    print("\n".join(lines), file=sys.stderr)


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    names = ", ".join(sorted(sweep_files(Path.cwd())))
    parser = CommandParser(
        prog="stnbench sweep",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Runs every trial of a sweep that is not complete yet, and prints its leaderboard.",
        epilog=f"sweeps: {names}\n"
        "Overrides hold for all configurations: scale=paper dataset=gtsrb seeds=5 training.epochs=3; that of an axis\n"
        "narrows it: transformer=affine, or transformer=[affine,scale].\n"
        "Exit codes: 0 every trial is complete, 1 some failed or are left, 2 cannot start, 130 stopped at once.",
    )
    parser.add_argument("sweep", help="a sweep's name, or the path of its file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, in Hydra's grammar")
    only = "only these values of an axis: --only transformer=affine,scale (for more axes, again)"
    parser.add_argument("--only", action="append", default=[], metavar="AXIS=VALUES", help=only)
    parser.add_argument(
        "--until", choices=(DECIDED,), help="add seeds, first where a verdict costs least, until all are in"
    )
    parser.add_argument(
        "--plan", action="store_true", help="list configurations, cost and expected time; train nothing"
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="with --plan: time a few steps of each configuration, for the expected time of a first run",
    )
    _add_verification(parser)
    add_json(parser)
    _add_places(parser)
    parser.add_argument("--retry-failed", action="store_true", help="try failed trials again")
    _add_limits(parser)
    _add_views(parser)
    return parser


def _add_views(parser: CommandParser) -> None:
    """Add the options for where a sweep is shown."""
    parser.add_argument(
        "--serve",
        type=whole(0, 65_535),
        nargs="?",
        const=0,
        metavar="PORT",
        help="show the sweep live on a page of this machine, with controls (default port: one that is free)",
    )
    parser.add_argument(
        "--optuna-storage",
        nargs="?",
        const="",
        metavar="FILE|URL",
        help="write the configurations as a study that optuna-dashboard opens (default: runs/optuna.db)",
    )
    parser.add_argument("--no-mlflow", action="store_true", help="show nothing in MLflow; `stnbench.mirror` can later")


def _add_places(parser: CommandParser) -> None:
    """Add the options for where and how many at once trials run."""
    parser.add_argument("--engine", choices=get_args(EngineName), default="local", help="where attempts run")
    parser.add_argument(
        "--slots",
        type=_slots,
        metavar="N",
        help="how many trials run at once (default: one a GPU, or one a core; auto: measure once)",
    )
    parser.add_argument("--slots-per-gpu", type=whole(), default=1, help="trials on one GPU (default: %(default)s)")
    parser.add_argument("--mps", action="store_true", help="trials that share a GPU run at once, by NVIDIA MPS")


def _add_verification(parser: CommandParser) -> None:
    """Add the options for training complete trials again."""
    parser.add_argument(
        "--verify",
        type=whole(),
        metavar="N",
        help="train N complete trials again and compare bit for bit; exit code 1 on a difference",
    )
    parser.add_argument(
        "--verify-seed", type=whole(0), default=0, metavar="SEED", help="which trials are chosen (default: %(default)s)"
    )
    parser.add_argument(
        "--tolerance",
        type=above_zero,
        metavar="PP",
        help="largest allowed difference of accuracies in pp (default: 2 where bits do not repeat, as on another "
        "device; none elsewhere)",
    )


def _add_limits(parser: CommandParser) -> None:
    """Add the options that end a sweep or a trial early, or free disk space."""
    parser.add_argument("--budget", type=duration_s, metavar="2h", help="stop after this long (90s, 30m, 2h, 1h30m)")
    parser.add_argument("--device-hours", type=above_zero, help="stop when all slots together have worked so long")
    parser.add_argument("--max-trials", type=whole(0), help="stop when this number of trials has ended in this run")
    parser.add_argument(
        "--keep-checkpoints", type=whole(0), metavar="K", help="keep those of the K best configurations alone"
    )
    parser.add_argument("--trial-timeout", type=duration_s, metavar="30m", help="end a trial that takes longer")
    parser.add_argument(
        "--hang-timeout",
        type=_patience,
        metavar="5m",
        default=AUTO,
        help="kill a trial that has not got on for so long and try it again (auto: by its usual pace; off)",
    )
