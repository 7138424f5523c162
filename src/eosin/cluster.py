"""Ray as engine: an address's blocks are tasks of actors, one a GPU, and scoring is tasks. Results only ever lie in the store
and in records. Ray places and watches the actors; claims settle who has which block, so that one may be offered twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from .embed import Engine, Job, Progress, Worker, heartbeat
from .errors import EosinError, MissingError, ModelError, said
from .places import Places
from .plan import Plan, Task
from .run import Outcome, Runner
from .tally import Tally
from .tiles import BrokenTile

TRIES = 3  # losses after which a block is given up; times the number of actors, how many are replaced
LONGEST = 8  # blocks a task: inside a task reading goes on ahead


@dataclass(frozen=True)
class Cluster(Engine):
    """An engine of one actor a GPU of the cluster; where it has none, of `workers` actors with a CPU each (default: all CPUs).

    Attributes:
        address: of a running cluster; "" for RAY_ADDRESS, else a Ray of this machine alone. say: told of what is lost.
    """

    address: str = ""
    say: Callable[[str], None] = print

    def ray(self) -> Any:
        """The library, connected."""
        try:
            import ray
        except ImportError as error:
            raise MissingError("--engine ray needs Ray, which is not installed: pip install 'eosin[ray]'.") from error
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
            there = self.address or os.environ.get("RAY_ADDRESS")
            own: dict[str, Any] = {} if there else {"num_cpus": self.workers or None, "include_dashboard": False}
            try:
                _knock(there or "")
                ray.init(there or "local", logging_level=logging.ERROR, log_to_driver=False, **own)
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                text = str(error).removesuffix(".")
                raise ModelError(
                    f"No Ray cluster at {there or 'this machine'}: {text}. `ray status` shows it; one with a token needs "
                    "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here, too."
                ) from error
        return ray

    def leave(self) -> None:
        """Take leave of the cluster; a Ray of this machine alone ends."""
        ray = sys.modules.get("ray")
        if ray is not None:
            ray.shutdown()

    def actors(self) -> tuple[int, dict[str, int]]:
        """How many actors the cluster holds, and what each asks of its node."""
        has = self.ray().cluster_resources()
        gpus = int(has.get("GPU", 0))
        return (gpus, {"num_gpus": 1}) if gpus else (self.workers or int(has.get("CPU", 1)), {"num_cpus": 1})

    def where(self) -> dict[str, Any]:
        size, share = self.actors()
        return {"device": "cuda" if "num_gpus" in share else "cpu", "device_name": "ray", "workers": size}

    def one(self) -> Engine:
        """The engine of one actor: Ray shows it no GPU but its own."""
        return self.alone(workers=self.workers if "num_gpus" in self.actors()[1] else 2)

    def fill(self, job: Job, progress: Progress = lambda rows: None) -> int:
        """See `embed.fill`; the rows that were published meanwhile. A lost actor costs its blocks in work.

        Raises:
            EosinError: as `Tally.end`.
        """
        tally = Tally(job, self, progress, self.say)
        todo = deque(tally.left)
        if not todo:
            return 0
        ray, (size, share) = self.ray(), self.actors()
        sent, hand = ray.put(ray.cloudpickle.dumps((job.unbuilt(), self.one()))), ray.remote(**share)(Hand)
        actors = [hand.remote(sent) for _ in range(min(size, len(todo)))]
        idle, busy, run = deque(actors), dict[Any, tuple[Any, list[int]]](), min(LONGEST, 1 + len(todo) // (4 * size))
        losses: Counter[int] = Counter()
        try:
            while todo and (idle or busy):
                while todo and idle:
                    blocks = [todo.popleft() for _ in range(min(len(todo), 1 if losses else run))]
                    actor = idle.popleft()
                    busy[actor.embed.remote(blocks)] = actor, blocks
                for ref in ray.wait([*busy], timeout=1)[0]:
                    actor, blocks = busy.pop(ref)
                    try:
                        broken, refused = ray.get(ref)
                        tally.hear(broken)
                        tally.refused |= refused
                        idle.append(actor)
                    except ray.exceptions.RayError as error:
                        tally.lose(_cause(error, job))
                        losses.update(set(blocks).intersection(self.missing(job.address)))
                        ray.kill(actor)
                        if isinstance(error, ray.exceptions.RayActorError) and len(tally.lost) < TRIES * size:
                            actors.append(hand.remote(sent))  # for one that died; one that raised would do so again
                            idle.append(actors[-1])
                open_ = [b for b in tally.look() if b not in tally.refused and losses[b] < TRIES]
                todo = todo if todo and open_ else deque(open_)  # what another node holds is offered until it is there
        finally:
            for actor in actors:
                ray.kill(actor)
        return tally.end()


class Hand:
    """An actor: one worker, which builds its model at its first task."""

    def __init__(self, sent: bytes) -> None:
        self.sent, self.life = sent, contextlib.ExitStack()
        self.worker: Worker | None = None

    def embed(self, blocks: list[int]) -> tuple[list[BrokenTile], set[int]]:
        """Publish those of the blocks that nobody else holds; tiles that cannot be read, blocks that stay unpublished."""
        if self.worker is None:
            job, engine = pickle.loads(self.sent)  # noqa: S301 - here, where what goes wrong can be told
            self.worker = self.life.enter_context(Worker(job, engine))
            self.life.enter_context(heartbeat(self.worker.claims))
        try:
            done = list(self.worker.run(blocks))
        finally:
            self.worker.claims.release_all()
        if not done:
            time.sleep(0.5)  # others hold them all
        return [tile for _, failed in done for tile in failed], self.worker.refused & set(blocks)


class ClusterRunner(Runner):
    """A runner that sends scoring to the cluster, a CPU a task, while it goes on embedding."""

    def run(self, plan: Plan) -> Outcome:
        self.sent: list[tuple[Task, Any]] = []
        super().run(plan)
        ray = self.engine.ray()  # type: ignore[attr-defined]
        for task, ref in self.sent:
            self.watch(f"scoring {task.model.card.name} on {task.benchmark.card.name}", 0, 0)
            try:
                found = ray.get(ref)
            except ray.exceptions.RayError as error:
                self.outcome.fail(task, _cause(error, next(iter(task.jobs.values()))))
                continue
            for name in (f.name for f in fields(Outcome)):
                setattr(self.outcome, name, getattr(self.outcome, name) + getattr(found, name))
        return self.outcome

    def _attempt(self, task: Task) -> None:
        try:
            for job in task.jobs.values():
                self.ensure(job)
        except Exception as error:
            return self.outcome.fail(task, error)
        engine: Cluster = self.engine  # type: ignore[assignment]
        online = any(need.online for need in task.benchmark.needs().values())  # these run the model as they score
        share = engine.actors()[1] if online else {"num_cpus": 1}
        score = engine.ray().remote(**share)(_score)
        costs = {j.address.folder: self.filled[j.address.folder] for j in task.jobs.values()}
        self.sent.append((task, score.remote(self.places, engine.one(), self.environment["plugins"], task, costs)))


def _score(places: Places, engine: Engine, plugins: dict[str, str], task: Task, costs: dict[Any, Any]) -> Outcome:
    runner = Runner(places, engine, plugins)
    runner.filled = costs
    return replace(runner.run(Plan([task], [], [])), errors=[])  # a stranger's exception may not travel


def _knock(address: str) -> None:
    """OSError where nobody listens at host:port; Ray itself would go on asking for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _cause(error: Exception, job: Job) -> EosinError:
    """What ended a task, as an error of ours."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, EosinError):
        return cause
    if cause is not None:
        return ModelError(f"{job.extractor.card.name}: {said(cause)}")
    return ModelError(
        f"A worker of {job.extractor.card.name} was lost ({type(error).__name__}): killed, out of memory, or its node is gone. "
        "What it published stays; run the same command again if anything is missing."
    )
