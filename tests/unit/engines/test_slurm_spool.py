"""The files of a spool, what is submitted to Slurm and read of it, and a job's host, without a scheduler."""

import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fake_trials import Task, fake_spec

from stnbench.core.errors import EngineError, SpecError, StnbenchError
from stnbench.engines import (
    Engine,
    EngineEvent,
    Failed,
    Finished,
    Launch,
    Lost,
    Note,
    Pulse,
    Slot,
    Stopped,
    decode,
)
from stnbench.engines.pool import Job
from stnbench.engines.slurm_job import Habits, JobHost, allocated_slots, job_name
from stnbench.engines.slurm_submission import (
    Accepted,
    Listed,
    Refused,
    Scheduler,
    Silent,
    job_script,
    plan_slurm_slots,
    sbatch_options,
)
from stnbench.engines.spool import Hello, Lead, Order, Queued, Spool, begun_by, code_digest
from stnbench.spec.result import Failure, FailureKind
from stnbench.spec.slurm import SlurmOptions


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool."""
    spool = Spool(tmp_path / "spool")
    spool.make()
    return spool


def launch(token: str) -> Launch:
    """An attempt."""
    return Launch(spec=fake_spec(Task.FINISH), token=token, folder="/nowhere", data_root="/nowhere")


def offer(spool: Spool, token: str, *, number: int = 1, group: int = 0) -> Queued:
    """Offer an attempt."""
    queued = Queued(number, group, token)
    spool.submit(queued, launch(token))
    return queued


class TestSpool:
    """Files of both sides."""

    def test_of_many_hosts_one_claims_an_attempt(self, spool: Spool) -> None:
        """Renaming decides: each of 50 attempts goes to exactly one of eight hosts that all try."""
        queued = [offer(spool, f"s-{number}", number=number) for number in range(50)]
        won: dict[str, list[str]] = {f"host{index}": [] for index in range(8)}

        def claim_all(host: str) -> None:
            won[host] += [item.token for item in queued if spool.claim(item, host)]

        threads = [threading.Thread(target=claim_all, args=(host,)) for host in won]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(token for tokens in won.values() for token in tokens) == sorted(item.token for item in queued)
        assert spool.queued() == {}
        assert spool.claims() == {token: host for host, tokens in won.items() for token in tokens}

    def test_an_attempt_is_withdrawn_or_claimed_and_never_both(self, spool: Spool) -> None:
        """Whoever comes second is told so."""
        first, second = offer(spool, "a"), offer(spool, "b", number=2)
        assert spool.claim(first, "h")
        assert not spool.withdraw(first)
        assert spool.withdraw(second)
        assert not spool.claim(second, "h")
        assert spool.launch_of("a", "h") == launch("a")

    def test_a_revoked_attempt_can_report_nothing_more(self, spool: Spool) -> None:
        """Its host finds no file to write, and is told to end it; nothing is made again."""
        queued = offer(spool, "a")
        spool.claim(queued, "h")
        spool.append("a", b"x\n", 0)
        spool.revoke("a")

        with pytest.raises(FileNotFoundError):
            spool.append("a", b"y\n", 2)
        assert spool.ordered("a") == "revoked"
        assert spool.claims() == {}
        assert spool.launch_of("a", "h") is None
        assert list((spool.root / "attempts").iterdir()) == []

    def test_a_reader_sees_whole_lines_alone(self, spool: Spool) -> None:
        """Half a line is left for the next look."""
        offer(spool, "a")
        spool.append("a", b"one\ntw", 0)
        lines, offset = spool.events("a", 0)
        spool.append("a", b"two\n", 4)

        assert (lines, offset) == ([b"one"], 4)
        assert spool.events("a", offset) == ([b"two"], 8)

    @pytest.mark.parametrize("orders", [("stop",), ("kill",), ("stop", "kill")])
    def test_the_last_order_counts(self, spool: Spool, orders: tuple[Order, ...]) -> None:
        """An attempt that was asked to stop may be killed later; one that is gone is no error."""
        offer(spool, "a")
        assert spool.ordered("a") == ""
        for order in orders:
            spool.order("a", order)
        assert spool.ordered("a") == orders[-1]
        spool.order("gone", "stop")

    @pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "a b", "a\n", "a@b"])
    def test_names_that_lead_out_of_the_spool_are_refused(self, spool: Spool, name: str) -> None:
        """Tokens and hosts are parts of paths."""
        with pytest.raises(EngineError, match="cannot name a file"):
            spool.attempt(name)

    @pytest.mark.parametrize("name", [".000000001.0.a.tmp", "1.0.a", "000000001.x.a", "000000001.0.", "notes.txt"])
    def test_files_that_are_no_offers_are_left_alone(self, spool: Spool, name: str) -> None:
        """Half-written files, and what people leave."""
        (spool.root / "queue" / name).write_text("{")
        assert spool.queued() == {}

    def test_an_identity_is_drawn_once(self, spool: Spool) -> None:
        """Jobs are found by it; a damaged one is drawn again."""
        first = spool.identity()
        assert spool.identity() == first
        (spool.root / "identity").write_text("../../x")
        assert spool.identity() not in {first, "../../x"}

    def test_a_copy_of_a_spool_is_another_one(self, spool: Spool, tmp_path: Path) -> None:
        """The end of a sweep on a copied folder ends no job of the original's."""
        first = spool.identity()
        copied = Spool(Path(shutil.copytree(spool.root, tmp_path / "copy")))
        assert copied.identity() != first
        assert spool.identity() == first


class TestSubmission:
    """What is asked of Slurm."""

    def test_slots_of_jobs_with_gpus_share_devices(self) -> None:
        """Two jobs of two GPUs, three trials on each; those of one job come first: few trials fill few jobs."""
        slots = plan_slurm_slots(SlurmOptions(jobs=2, gres="gpu:a100:2", cpus=12), slots_per_gpu=3)
        assert len(slots) == 12
        assert [slot.device for slot in slots[:7]] == [*["job0:0"] * 3, *["job0:1"] * 3, "job1:0"]
        assert {slot.device for slot in slots} == {"job0:0", "job0:1", "job1:0", "job1:1"}
        assert {(slot.is_cuda, slot.threads) for slot in slots} == {(True, 2)}
        assert len({slot.name for slot in slots}) == 12

    @pytest.mark.parametrize("count", [1, 3, 4, 9])
    def test_slots_that_stay_keep_their_name_and_device(self, count: int) -> None:
        """However many there are, those of a smaller plan are part of a larger one."""
        options = SlurmOptions(jobs=2, trials_per_job=2)
        some, more = (plan_slurm_slots(options, slots=number) for number in (count, 12))
        assert len(some) == count
        assert {(slot.name, slot.device) for slot in some} <= {(slot.name, slot.device) for slot in more}

    @pytest.mark.parametrize(
        ("gres", "gpus"),
        [
            *(("", 0), ("gpu", 1), ("gpu:2", 2), ("gpu:a100", 1), ("gpu:a100:4", 4), ("gpu:1g.10gb:2", 2)),
            *(("gpu:2(S:0-1)", 2), ("shard:3", 0), ("nvme:1,gpu:2", 2), ("gpu:a:1,gpu:b:2", 3)),
        ],
    )
    def test_gpus_are_counted_as_sbatch_reads_gres(self, gres: str, gpus: int) -> None:
        """Types, numbers and sockets."""
        assert SlurmOptions(gres=gres).gpus == gpus

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"jobs": 0}, "jobs is 0"),
            ({"time_limit": "4"}, "has no unit"),
            ({"time_limit": "3m", "warning": "2m"}, "longer than it takes to save"),
            ({"heartbeat": "1m"}, "three heartbeats"),
            ({"sbatch": ("--array=3",)}, "sets 'array'"),
            ({"sbatch": ("-p x",)}, "sets 'p'"),
            ({"sbatch": ("exclude=n1",)}, "no option"),
        ],
    )
    def test_options_that_cannot_be_meant_are_refused(self, wrong: dict[str, object], told: str) -> None:
        """Before anything is submitted."""
        with pytest.raises(SpecError, match=told):
            SlurmOptions(**wrong)  # type: ignore[arg-type]

    def test_the_script_quotes_what_it_passes_on(self, tmp_path: Path) -> None:
        """Odd folders and variables reach the job as they are; a store's password does not."""
        spool = Spool(tmp_path / "it's 100% mine; rm -rf")
        environ = {"PYTHONPATH": "/a b:$HOME", "STNBENCH_STORE": "postgresql://me:secret@host/x"}
        options = SlurmOptions(setup=("module load cuda",), partitions=("a", "b"), gres="gpu:1", constraint="x|y")
        script = job_script(options, spool, slots_per_gpu=2, command=["python", "w.py"], environ=environ)
        given = sbatch_options(options, spool)

        assert "secret" not in script
        assert "export PYTHONPATH='/a b:$HOME'" in script
        assert script.index("module load") < script.index("exec ")
        assert {"--partition=a,b", "--gres=gpu:1", "--constraint=x|y", "--signal=B:USR1@120", "--time=240"} <= {*given}
        assert any(word.startswith("--output=") and "100%% mine" in word for word in given)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Make programs of Slurm that say something; all others are silent and end well."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    for name in ("sbatch", "squeue", "scancel"):
        make(name, "exit 0")
    return make


def answer_of(scheduler: Scheduler, ask: Callable[[], None]) -> object:
    """What a question is answered with."""
    ask()
    deadline = time.monotonic() + 20
    while (answer := scheduler.take()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return answer


class TestScheduler:
    """Reading Slurm strictly."""

    @pytest.mark.parametrize(
        ("script", "expected"),
        [
            ("exit 0", ()),
            (
                "echo '7_0|RUNNING|None'; echo '7_1|PENDING|QOS|odd'",
                (
                    Job(name="7_0", state="RUNNING", reason="None"),
                    Job(name="7_1", state="PENDING", reason="QOS|odd"),
                ),
            ),
            ("echo slurm_load_jobs error", None),
            ("echo '7_0|RUNNING|None'; echo '7_[1-3]|PENDING|x'", None),
            ("printf '\\000\\377|'", None),
            ("echo '7_0|RUNNING|None'; exit 1", None),
            ("kill -9 $$", None),
            ("sleep 60", None),
        ],
    )
    def test_a_listing_is_read_whole_or_is_no_answer(
        self, programs: Callable[[str, str], None], script: str, expected: tuple[Job, ...] | None
    ) -> None:
        """One line that cannot be read, an exit code or a hang: nothing is known."""
        programs("squeue", script)
        scheduler = Scheduler("x", answer_within_s=1.0, clock=time.monotonic)
        answer = answer_of(scheduler, scheduler.list_jobs)
        if expected is None:
            assert isinstance(answer, Silent)
        else:
            assert answer == Listed(jobs=expected)

    @pytest.mark.parametrize(
        ("script", "expected"),
        [
            ("echo 17", Accepted(names=("17_0", "17_1"))),
            ("echo '17;cluster'", Accepted(names=("17_0", "17_1"))),
            ("echo 'sbatch: lua: hello' >&2; echo 17", Accepted(names=("17_0", "17_1"))),
            ("echo 'sbatch: error: Invalid qos specification' >&2; exit 1", Refused),
            ("echo 'sbatch: error: Unable to contact slurm controller (connect failure)' >&2; exit 1", Silent),
            ("echo 'Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1", Silent),
            ("exit 0", Silent),
            ("echo Submitted", Silent),
            ("kill -9 $$", Silent),
        ],
    )
    def test_a_submission_is_accepted_refused_or_unknown(
        self, programs: Callable[[str, str], None], script: str, expected: object
    ) -> None:
        """Where the controller was not reached, or nobody said so, jobs may have been submitted all the same."""
        programs("sbatch", script)
        scheduler = Scheduler("x", answer_within_s=5.0, clock=time.monotonic)
        answer = answer_of(scheduler, lambda: scheduler.submit(2, [], "job.sh"))
        assert answer == expected if isinstance(expected, Accepted) else isinstance(answer, expected)  # type: ignore[arg-type]

    def test_the_orchestrators_own_job_says_nothing_of_new_ones(
        self, programs: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Variables of an allocation would hold for jobs that are submitted inside it; the configuration's stays."""
        monkeypatch.setenv("SLURM_MEM_PER_NODE", "17")
        monkeypatch.setenv("SLURM_CONF", "/etc/x")
        programs("sbatch", 'test -z "$SLURM_MEM_PER_NODE" && test "$SLURM_CONF" = /etc/x && echo 17')
        scheduler = Scheduler("x", answer_within_s=5.0, clock=time.monotonic)
        assert isinstance(answer_of(scheduler, lambda: scheduler.submit(1, [], "job.sh")), Accepted)

    def test_a_machine_without_slurm_is_told_at_once(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The programs that are missing are named."""
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(EngineError, match="sbatch, squeue, scancel"):
            Scheduler("x", answer_within_s=1.0, clock=time.monotonic)


class _Puppet(Engine):
    """An engine whose attempts do what a test says."""

    def __init__(self, *slots: Slot) -> None:
        self._slots = slots
        self.events: deque[EngineEvent] = deque()
        self.told: list[tuple[str, str]] = []

    @property
    def slots(self) -> Sequence[Slot]:
        return self._slots

    def submit(self, slot: Slot, launch: Launch) -> None:
        self.told.append(("submit", launch.token))

    def poll(self, timeout_s: float) -> Sequence[EngineEvent]:
        events = tuple(self.events)
        self.events.clear()
        return events

    def stop(self, token: str) -> None:
        self.told.append(("stop", token))

    def kill(self, token: str) -> None:
        self.told.append(("kill", token))

    def release(self, slot: Slot) -> None:
        self.told.append(("release", slot.name))

    def close(self) -> None:
        pass


class _Site:
    """A host on a spool, and what it may be told; its clock stands still unless a test moves it."""

    def __init__(self, spool: Spool, slots: int = 1) -> None:
        self.spool = spool
        self.engine = _Puppet(*(Slot(name=f"cpu{index}", device="cpu", threads=1) for index in range(slots)))
        self.reason = ""
        self.now_s = 0.0
        spool.lead(Lead(session="s", code=code_digest()))
        spool.orchestrator_beat.touch()
        spool.introduce("h", Hello(job="7_0", node="n", pid=1))
        self.host = JobHost(
            spool,
            self.engine,
            name="h",
            hello=Hello(job="7_0", node="n", pid=1),
            habits=Habits(heartbeat_s=1.0, idle_s=100.0, orphaned_after_s=50.0, save_s=10.0),
            told=lambda: self.reason,
            clock=lambda: self.now_s,
        )

    def reported(self, token: str) -> list[object]:
        """What the host has written of an attempt; its own name first."""
        lines, _ = self.spool.events(token, 0)
        return [begun_by(line) or decode(line) for line in lines]


class TestJobHost:
    """The host of one job, with an engine that does what it is told."""

    def test_what_happens_reaches_the_orchestrator_in_order(self, spool: Spool) -> None:
        """First who has begun it, then signs of life added up, then its end; then the claim is gone."""
        site = _Site(spool)
        offer(spool, "a")
        assert site.host.step()
        assert site.engine.told == [("submit", "a")]
        assert spool.claims() == {"a": "h"}
        site.engine.events += [Pulse(token="a", parts=2), Pulse(token="a", parts=3)]
        site.host.step()
        site.engine.events += [Finished(token="a")]
        site.host.step()

        assert site.reported("a") == ["h", Pulse(token="a", parts=5), Finished(token="a")]
        assert spool.claims() == {}

    @pytest.mark.parametrize("ended", [Stopped(token="a"), Lost(token="a", reason="signal SIGTERM")])
    def test_a_job_that_must_end_costs_its_trial_no_failure(self, spool: Spool, ended: EngineEvent) -> None:
        """Whether or not it stops in time, or Slurm's signal kills its worker first; the reason is told."""
        site = _Site(spool)
        offer(spool, "a")
        site.host.step()
        site.reason = "Slurm has sent SIGUSR1"
        site.host.step()
        assert site.engine.told[-1] == ("stop", "a")
        site.now_s = 11.0
        site.host.step()
        assert site.engine.told[-1] == ("kill", "a")
        site.engine.events.append(ended)

        assert not site.host.step()
        _, note, last = site.reported("a")
        assert isinstance(note, Note)
        assert "SIGUSR1" in note.message
        assert last == Stopped(token="a")

    def test_a_trial_that_fails_while_its_job_ends_has_failed(self, spool: Spool) -> None:
        """Only what the job's end does to it is excused."""
        site = _Site(spool)
        offer(spool, "a")
        site.host.step()
        site.reason = "Slurm has sent SIGTERM"
        failed = Failed(token="a", failure=Failure(kind=FailureKind.DIVERGED, message="nan"))
        site.engine.events.append(failed)
        site.host.step()
        assert site.reported("a")[-1] == failed

    def test_an_attempt_that_was_revoked_is_killed_and_forgotten(self, spool: Spool) -> None:
        """Its host frees the room, and reports nothing."""
        site = _Site(spool)
        offer(spool, "a")
        site.host.step()
        spool.revoke("a")
        site.host.step()
        assert site.engine.told[-1] == ("kill", "a")
        site.engine.events.append(Lost(token="a", reason="killed"))
        site.host.step()
        offer(spool, "b", number=2)
        site.host.step()

        assert site.engine.told[-1] == ("submit", "b")
        assert spool.tokens() == ["b"]

    def test_an_attempt_that_is_to_be_alone_gets_the_memory_of_idle_workers(self, spool: Spool) -> None:
        """It waits for an idle device; the workers of its other slots are ended first."""
        site = _Site(spool, slots=2)
        spool.submit(Queued(1, 0, "a"), launch("a"))
        spool.submit(Queued(2, 0, "b", alone=True), launch("b"))
        site.host.step()
        assert site.engine.told == [("submit", "a")]
        site.engine.events.append(Finished(token="a"))
        site.host.step()
        site.host.step()
        assert site.engine.told[1:] == [("release", "cpu1"), ("submit", "b")]

    def test_a_node_whose_gpu_torch_does_not_see_takes_nothing_more(self, spool: Spool) -> None:
        """It would fail one trial after the other. The trial that found out has failed; the host says why it ends."""
        site = _Site(spool)
        offer(spool, "a")
        site.host.step()
        offer(spool, "b", number=2)
        failed = Failed(token="a", failure=Failure(kind=FailureKind.NO_DEVICE, message="torch sees no GPU"))
        site.engine.events.append(failed)

        assert not site.host.step()
        assert site.reported("a")[-1] == failed
        assert site.host.refusal == "torch sees no GPU"
        assert spool.queued().keys() == {"b"}

    def test_orders_are_carried_out_once(self, spool: Spool) -> None:
        """A stop and then a kill reach the engine once each."""
        site = _Site(spool)
        offer(spool, "a")
        site.host.step()
        for order in ("stop", "stop", "kill"):
            spool.order("a", order)
            site.host.step()
            site.host.step()
        assert site.engine.told == [("submit", "a"), ("stop", "a"), ("kill", "a")]

    @pytest.mark.parametrize("lead", [Lead(session="s", code="other"), Lead(session="s", code="", is_closed=True)])
    def test_a_host_ends_where_the_code_is_other_or_the_sweep_is_over(self, spool: Spool, lead: Lead) -> None:
        """It takes nothing more: an attempt on offer stays on offer."""
        site = _Site(spool)
        spool.lead(lead)
        offer(spool, "a")
        assert not site.host.step()
        assert spool.queued().keys() == {"a"}

    def test_a_host_without_work_ends(self, spool: Spool) -> None:
        """So that an allocation is not held for nothing."""
        site = _Site(spool)
        assert site.host.step()
        site.now_s = 101.0
        assert not site.host.step()

    def test_a_full_disk_delays_what_is_reported_and_loses_nothing(
        self, spool: Spool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What could not be written comes with the next look, each event once."""
        site = _Site(spool)
        offer(spool, "a")
        site.host.step()
        whole = Spool.append

        def full(self: Spool, token: str, data: bytes, offset: int) -> None:
            whole(self, token, data[:5], offset)
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(Spool, "append", full)
            site.engine.events.append(Finished(token="a"))
            site.host.step()
            site.host.step()
        site.host.step()
        assert site.reported("a") == ["h", Finished(token="a")]


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "9"}, "7_2"),
        ({"SLURM_JOB_ID": "9"}, "9"),
    ],
)
def test_a_job_is_named_as_slurm_lists_it(environment: dict[str, str], name: str) -> None:
    """A task of an array by the array's number and its own."""
    assert job_name(environment) == name


def test_a_host_outside_a_job_says_so() -> None:
    """Whoever starts it by hand is told who does."""
    with pytest.raises(EngineError, match="no job of Slurm"):
        job_name({})


def test_an_allocation_without_its_gpus_is_refused() -> None:
    """What was asked for, what is there, and what to look at."""
    with pytest.raises(StnbenchError, match=r"2 GPUs were asked for, and 0 can be seen .*NoDevFiles.*engine\.gres"):
        allocated_slots({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, gpus=2, cpus=4, trials=1, slots_per_gpu=1)


def test_a_node_that_does_not_say_which_gpus_are_the_jobs_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Taking the first ones would take somebody else's."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(EngineError, match="does not say which 1 are this job's"):
        allocated_slots({}, gpus=1, cpus=4, trials=1, slots_per_gpu=1)


def test_slots_of_a_cpu_job_share_its_cores() -> None:
    """Threads are those that Slurm gives the job, divided."""
    slots = allocated_slots({"SLURM_CPUS_PER_TASK": "1"}, gpus=0, cpus=8, trials=2, slots_per_gpu=1)
    assert [(slot.name, slot.device, slot.threads) for slot in slots] == [("cpu0", "cpu", 1), ("cpu1", "cpu", 1)]


def test_the_digest_of_the_code_changes_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One byte of one module makes other code."""
    import stnbench

    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(stnbench, "__file__", str(tmp_path / "__init__.py"))
    before = code_digest()
    (tmp_path / "a.py").write_text("x = 2\n")
    assert code_digest() != before
    assert sys.modules["stnbench"] is stnbench
