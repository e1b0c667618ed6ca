"""A rank that dies costs the others at most the step that they were in; what all end with is the same to the bit."""

import os
import signal
from dataclasses import dataclass, field

import pytest
import ray

from distributed_dd.backends.deepspeed.engine import DeepSpeedRanks
from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.backends.local.tracker import NoTracker
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.backends.ray.gang import Gang
from distributed_dd.backends.ray.salvage import GROUP
from distributed_dd.outer.judging import Judging
from distributed_dd.outer.loop import Distillation, Subject
from distributed_dd.outer.run_folder import RunFolder
from tests.references import small_job

NUM_STEPS, CHECKPOINT_EVERY = 18, 9
SIZES = "sizes"
"""An event that harms nobody: ranks are asked what they hold."""


@pytest.fixture(scope="module")
def cluster(gangs):
    """The Ray of the gangs of this package, which stop first: theirs are the cores."""
    gangs.stop()
    return RayCluster(num_cpus=8)


def pid_of(rank):
    return os.getpid()


def bytes_of(rank):
    """What a rank holds in all, and what its own last two steps are."""
    return rank.spares.num_bytes, sum(spare.num_bytes for spare in rank.spares.held[rank.rank].values())


@dataclass
class Story:
    """A distillation in which ranks die or hang when the driver has heard of certain outer steps.

    Attributes:
        events: outer steps -> (signal, ranks). begun: outer steps that each gang began from.
    """

    folder: RunFolder
    cluster: RayCluster
    settings: DeepSpeedRanks
    events: dict = field(default_factory=dict)
    begun: list = field(default_factory=list)
    said: list = field(default_factory=list)
    counted: list = field(default_factory=list)
    sizes: list = field(default_factory=list)

    def run(self):
        """Distil to the end; the digests of the last checkpoint's files."""
        job = small_job.job(self.folder.checkpoints)
        self.gang = Gang(job=job, cluster=self.cluster, settings=self.settings, logs=None)
        self._watch_starts()
        loop = Distillation(
            num_outer_steps=NUM_STEPS,
            judging=Judging.every(NUM_STEPS, NUM_STEPS, 0),
            checkpoint_every=CHECKPOINT_EVERY,
            subject=Subject(
                starting=small_job.starting,
                read=lambda saved: saved.full_set(),
                show=lambda *_: None,
                count=self._count,
                no_facts={"losses": []},
            ),
            workers=self.gang,
            folder=self.folder,
            tracker=NoTracker(),
            progress=self,
            max_restarts=5,
        )
        _, _, facts = loop.run()
        record = self.folder.checkpoints.load()
        lines = self.folder.metrics.path.read_text().splitlines()
        return [shard.sha256 for shard in record["newest"]], facts["losses"], lines

    def _watch_starts(self):
        start = self.gang.start

        def watched():
            start()
            self.begun.append(self.folder.checkpoints.load()["step"])
            self.pids = self.gang.call(pid_of)

        self.gang.start = watched

    def _count(self, step, metrics, facts):
        facts["losses"].append(metrics["matching_loss"])
        self.counted.append(step)
        for number, ranks in self.events.pop(step, ()):
            for rank in ranks:
                if number == SIZES:
                    beside = self.gang.actors[rank].call.options(concurrency_group=GROUP)
                    self.sizes.append(beside.remote(bytes_of))
                else:
                    os.kill(self.pids[rank], number)
        return iter(())

    def say(self, text):
        self.said.append(text)

    def bar(self, *arguments):
        from distributed_dd.backends.local.console import ConsoleProgress

        return ConsoleProgress().bar(*arguments)


@pytest.fixture
def story(tmp_path, cluster):
    def begun(name, num_ranks=2, events=(), **settings):
        folder = RunFolder(tmp_path / name, "config")
        folder.path.mkdir()
        every = {"spare_every": 1, **settings}
        ranks = DeepSpeedRanks(num_ranks=num_ranks, timeout=120.0, zero=Zero(3), **every)
        return Story(folder, cluster, ranks, dict(events))

    return begun


def test_whichever_rank_dies_the_others_go_on_from_the_step_before(story):
    """The first dies, which tells of the steps, later the other; all bytes, facts and metrics are as if none had.

    What they hold of each other meanwhile is bounded: two steps of their own, two of the peer.
    """
    calm = story("calm", events={8: [(SIZES, [0, 1])]})  # the last before a checkpoint
    undisturbed = calm.run()
    held = ray.get(calm.sizes)
    largest = max(own for _, own in held)
    assert len(held) == 2 and all(0 < own < total <= 2 * largest for total, own in held), held
    killed = story("killed", events={4: [(signal.SIGKILL, [0])], 13: [(signal.SIGKILL, [1])]})
    assert killed.run() == undisturbed
    assert calm.begun == [0] and killed.begun[0] == 0 and len(killed.begun) == 3
    for event, begun in zip((4, 13), killed.begun[1:], strict=True):
        assert begun >= event - 1, f"a death in step {event + 1} or before brought all back to {begun}"
    assert any("kept in memory" in line for line in killed.said)
    assert [step for step in killed.counted if killed.counted.count(step) > 2] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "settings", "least"),
    [
        ({6: [(signal.SIGKILL, [1]), (signal.SIGSTOP, [2])]}, {}, 5),
        ({6: [(signal.SIGKILL, [1, 3])]}, {}, 0),
        ({6: [(signal.SIGKILL, [2])]}, {"spare_every": 0}, 0),
        ({7: [(signal.SIGKILL, [2])]}, {"spare_every": 3}, 3),
    ],
    ids=["one survivor hangs", "a rank and its peer", "never", "every third"],
)
def test_four_ranks_in_harder_cases(story, events, settings, least):
    """Where nobody holds a dead rank's part any more, all go on from the checkpoint on disk."""
    undisturbed = story("calm", 4).run()
    killed = story("killed", 4, events, **settings)
    assert killed.run() == undisturbed
    assert len(killed.begun) == 2
    assert least <= killed.begun[1] <= max(events) + 1
    assert (killed.begun[1] == 0) == (least == 0)
