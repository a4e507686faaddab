"""The decisions of the slurm engine: which attempts are lost, how many jobs are asked for, who is told what."""

import pytest

from stnbench.engines.pool import (
    LAST_BACKOFF_S,
    AskForJobs,
    Decision,
    FailWaiting,
    ForgetHost,
    Job,
    Lose,
    Pool,
    Sight,
    Tell,
)
from stnbench.engines.spool import Hello, HostSeen, Queued, Silence, choose_claims


class World:
    """A pool and what it is shown; time passes in steps of a heartbeat, a second."""

    def __init__(self, *, jobs_max: int = 4, trials_per_job: int = 1) -> None:
        self.pool = Pool(heartbeat_s=1.0, lost_after_s=10.0)
        self.pool.resize(jobs_max=jobs_max, trials_per_job=trials_per_job)
        self.now_s = 1000.0
        self.queued: set[str] = set()
        self.claims: dict[str, str] = {}
        self.hosts: dict[str, HostSeen] = {}

    def offer(self, *tokens: str) -> None:
        """Submit attempts."""
        for token in tokens:
            self.pool.add(token)
            self.queued.add(token)

    def meet(self, host: str, job: str, *, refusal: str = "", has_left: bool = False) -> None:
        """A host introduces itself, and is just touched."""
        hello = Hello(job=job, node="node1", pid=1, refusal=refusal, has_left=has_left)
        self.hosts[host] = HostSeen(hello=hello, beat_s=self.now_s)

    def take(self, token: str, host: str) -> None:
        """A host claims an attempt."""
        self.queued.discard(token)
        self.claims[token] = host

    def look(self, jobs: list[Job] | None = None) -> list[Decision]:
        """What is decided now."""
        return self.pool.look(
            Sight(
                now_s=self.now_s,
                queued=frozenset(self.queued),
                claims=dict(self.claims),
                hosts=dict(self.hosts),
                jobs=jobs,
            )
        )

    def pass_time(self, duration_s: int, *, beating: tuple[str, ...] = ()) -> list[Decision]:
        """Look once a second; hosts that beat are touched meanwhile. What was decided in all."""
        decided: list[Decision] = []
        for _ in range(duration_s):
            self.now_s += 1.0
            for host in beating:
                self.hosts[host] = HostSeen(hello=self.hosts[host].hello, beat_s=self.now_s)
            decided += self.look()
        return decided


def running(*names: str) -> list[Job]:
    """Jobs as squeue lists them."""
    return [Job(name=name, state="RUNNING") for name in names]


def test_an_attempt_of_a_host_that_beats_is_never_lost() -> None:
    """An hour of work is no reason to give it up, with a scheduler that says nothing and one that lists no job."""
    world = World()
    world.offer("a")
    world.meet("h", "7_0")
    world.take("a", "h")
    world.look([])

    decided = world.pass_time(3600, beating=("h",))

    assert [item for item in decided if isinstance(item, Lose)] == []
    assert world.pool.host_of("a") == "h"


def test_an_attempt_of_a_silent_host_is_lost_once_it_has_been_silent_too_long() -> None:
    """Not before; the reason names the job and its node."""
    world = World()
    world.offer("a")
    world.meet("h", "7_0")
    world.take("a", "h")
    world.look(running("7_0"))

    assert not any(isinstance(item, Lose) for item in world.pass_time(10))
    (lost,) = (item for item in world.pass_time(1) if isinstance(item, Lose))
    assert (lost.token, "7_0 on node1" in lost.reason) == ("a", True)


def test_a_job_that_slurm_does_not_list_is_believed_dead_earlier_but_not_at_once() -> None:
    """Three silent heartbeats are enough then; with a beat in between none are."""
    world = World()
    world.offer("a")
    world.meet("h", "7_0")
    world.take("a", "h")
    world.look(running("7_0"))
    world.look([])

    assert not any(isinstance(item, Lose) for item in world.pass_time(3))
    assert any(isinstance(item, Lose) for item in world.pass_time(1))


def test_a_disk_whose_clock_jumps_makes_no_host_late() -> None:
    """An hour forward and an hour back count as one heartbeat at most."""
    world = World()
    world.offer("a")
    world.meet("h", "7_0")
    world.take("a", "h")
    world.look(running("7_0"))
    decided: list[Decision] = []
    for jump_s in (3600.0, -7200.0, 1e9):
        world.now_s += jump_s
        decided += world.look()

    assert not any(isinstance(item, Lose) for item in decided)


def test_an_attempt_that_nobody_knows_of_is_lost_after_a_while() -> None:
    """Whoever cleared the spool, or claimed it and died before a word, costs the attempt and not the sweep."""
    world = World()
    world.offer("cleared", "claimed")
    world.look()
    world.queued.clear()
    world.claims["claimed"] = "never-seen"

    assert not any(isinstance(item, Lose) for item in world.pass_time(10))
    lost = {item.token: item.reason for item in world.pass_time(2) if isinstance(item, Lose)}
    assert lost.keys() == {"cleared", "claimed"}
    assert "never-seen" in lost["claimed"]


def test_a_listing_that_is_late_loses_nothing() -> None:
    """An attempt is in neither listing of a network disk for a few seconds, and then in one."""
    world = World()
    world.offer("a")
    world.look()
    world.queued.clear()
    world.pass_time(8)
    world.meet("h", "7_0")
    world.claims["a"] = "h"

    assert not any(isinstance(item, Lose) for item in world.pass_time(60, beating=("h",)))


def test_jobs_are_asked_for_as_trials_need_them() -> None:
    """As many as the open attempts fill, at most ``jobs_max``, less those that are there, and none before a listing."""
    world = World(jobs_max=3, trials_per_job=2)
    world.offer(*"abcde")
    assert not any(isinstance(item, AskForJobs) for item in world.look())
    assert AskForJobs(count=3) in world.look([])
    world.pool.submitted(["7_0", "7_1", "7_2"])
    assert not any(isinstance(item, AskForJobs) for item in world.look())
    assert not any(isinstance(item, AskForJobs) for item in world.look(running("7_0", "7_1", "7_2")))
    for token in "abc":
        world.pool.end(token)
    assert not any(isinstance(item, AskForJobs) for item in world.look(running("7_1")))


def test_a_submission_without_an_answer_is_not_repeated_before_the_jobs_are_listed() -> None:
    """Whether sbatch has done it is seen in the next listing: no job is asked for twice."""
    world = World(jobs_max=2)
    world.offer("a", "b")
    assert AskForJobs(count=2) in world.look([])
    world.pool.unsure()

    assert not any(isinstance(item, AskForJobs) for item in world.pass_time(60))
    assert not any(isinstance(item, AskForJobs) for item in world.look(running("9_0", "9_1")))


def test_a_host_that_beats_counts_although_slurm_does_not_list_its_job() -> None:
    """A listing that is empty by mistake submits nothing in the place of a job that works."""
    world = World(jobs_max=1)
    world.offer("a")
    world.meet("h", "7_0")
    world.take("a", "h")

    assert not any(isinstance(item, AskForJobs) for item in world.look([]))


def test_a_job_on_a_dead_node_is_replaced_although_slurm_goes_on_listing_it() -> None:
    """Slurm may take minutes to notice; when the job is heard again, it counts again."""
    world = World(jobs_max=1)
    world.offer("a", "b")
    world.meet("h", "7_0")
    world.take("a", "h")
    world.look(running("7_0"))
    decided = world.pass_time(12)
    assert AskForJobs(count=1) in decided
    world.hosts.clear()  # the engine forgets the host
    assert AskForJobs(count=1) in world.look(running("7_0"))
    world.meet("h2", "7_0")
    assert not any(isinstance(item, AskForJobs) for item in world.look(running("7_0")))


@pytest.mark.parametrize("refusal", ["", "2 GPUs were asked for, and 0 can be seen"])
def test_jobs_that_cannot_start_are_asked_for_ever_more_slowly_and_waiting_attempts_hear_why(refusal: str) -> None:
    """After three in a row; what a job itself said is told, and the pauses grow up to five minutes."""
    world = World(jobs_max=1)
    world.offer("a")
    told: list[FailWaiting] = []
    pauses_s: list[float] = []
    for number in range(9):
        since_s = world.now_s
        decided = world.look([])
        while not any(isinstance(item, AskForJobs) for item in decided):
            world.now_s += 1.0
            decided = world.look([])
        pauses_s.append(world.now_s - since_s)
        world.pool.submitted([f"{number}_0"])
        if refusal:
            world.meet(f"h{number}", f"{number}_0", refusal=refusal, has_left=True)
        told += [item for item in world.look([]) if isinstance(item, FailWaiting)]

    assert pauses_s[1:5] == [5.0, 10.0, 20.0, 40.0]
    assert max(pauses_s) <= LAST_BACKOFF_S
    assert [item.job for item in told] == [f"{number}_0" for number in range(2, 9)]
    assert all((refusal or "before it could take a trial") in item.problem for item in told)


def test_a_job_that_works_ends_the_trouble() -> None:
    """Two that died at their start are forgotten when a third one takes trials."""
    world = World(jobs_max=1)
    world.offer("a")
    world.look([])
    for number in (1, 2):
        world.pool.submitted([f"{number}_0"])
        world.look([])
    world.pool.submitted(["3_0"])
    world.meet("h", "3_0")
    world.look(running("3_0"))
    world.hosts.clear()
    decided = world.look([])

    assert AskForJobs(count=1) in decided
    assert not any(isinstance(item, FailWaiting) for item in decided)


def test_why_all_jobs_wait_is_said_once() -> None:
    """A reason is told when it is new, and none is while a job runs."""
    world = World()
    world.offer("a", "b")
    waits = [Job(name="7_0", state="PENDING", reason="PartitionTimeLimit")]

    assert [item for item in world.look([*waits, *running("7_1")]) if isinstance(item, Tell)] == []
    (told,) = (item for item in world.look(waits) if isinstance(item, Tell))
    assert "PartitionTimeLimit" in told.message
    assert [item for item in world.look(waits) if isinstance(item, Tell)] == []


def test_a_host_is_forgotten_when_it_has_left_and_owes_nothing() -> None:
    """Not while an attempt of it has not ended."""
    world = World()
    world.offer("a")
    world.meet("h", "7_0", has_left=True)
    world.take("a", "h")

    assert ForgetHost(host="h") not in world.look()
    world.pool.end("a")
    assert ForgetHost(host="h") in world.look()


def test_silence_is_counted_by_looks() -> None:
    """A reader that was halted for an hour has heard nothing for one glance, not for an hour."""
    silence = Silence(glance_s=5.0)
    assert [silence.look(10.0, now_s) for now_s in (12.0, 15.0, 3700.0, 100.0, 104.0)] == [0.0, 3.0, 8.0, 8.0, 12.0]
    assert silence.look(11.0, 105.0) == 0.0


def test_a_device_takes_attempts_of_one_group_at_a_time() -> None:
    """The first of the queue decides for an idle device; others of its group follow, and the rest waits."""
    queued = {name: Queued(number, group, name) for number, (name, group) in enumerate([("a", 1), ("b", 2), ("c", 1)])}
    free = {"gpu0.0": "0", "gpu0.1": "0", "gpu1.0": "1"}

    chosen = [(item.token, slot) for item, slot in choose_claims(queued, free, {})]
    assert chosen == [("a", "gpu0.0"), ("c", "gpu0.1"), ("b", "gpu1.0")]
    assert choose_claims(queued, {"gpu0.1": "0"}, {"0": 3}) == []
