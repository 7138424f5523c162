"""Several devices of one machine: a process each, sharing an address through its claims; the front only watches the parts."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from . import embed
from .embed import Engine, Job, Progress, take_part
from .environment import device_name
from .errors import EosinError, ModelError, UsageError, said
from .tally import Tally
from .tiles import BrokenTile

GRACE = 10.0  # seconds that a worker has to leave when nothing is missing any more
SPAWN = multiprocessing.get_context("spawn")  # a CUDA that is in use does not survive a fork

Answer = list[BrokenTile] | EosinError


def devices(text: str) -> tuple[str, ...]:
    """`0,1,cpu` as ("cuda:0", "cuda:1", "cpu"); `auto` as every CUDA device, or what `--device auto` is where there is none."""
    if text == "auto":
        import torch

        return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or (Engine().resolved_device(),)
    found = tuple(f"cuda:{d}" if d.isdigit() else d for d in map(str.strip, text.split(",")))
    if not all(found):
        raise UsageError(f"--devices {text}: write auto, or devices with commas between them, as in --devices 0,1,2,3.")
    return found


@dataclass(frozen=True)
class Crew(Engine):
    """An engine of one process a device. Each builds its model once an address.

    Attributes:
        devices: one worker each; a device may be named twice. say: told of workers that are lost.
    """

    devices: tuple[str, ...] = ()
    say: Callable[[str], None] = print

    def where(self) -> dict[str, Any]:
        """All devices, the name of the first, and how many there are."""
        return {
            "device": ",".join(self.devices),
            "device_name": device_name(self.devices[0]),
            "workers": len(self.devices),
        }

    def fill(self, job: Job, progress: Progress = lambda rows: None) -> int:
        """See `embed.fill`; the rows that were published meanwhile. A lost worker costs its block in work, and is told of.

        Raises:
            EosinError: as `Tally.end`.
        """
        tally, late = Tally(job, self, progress, self.say), float("inf")
        if min(len(tally.left), len(self.devices)) < 2:
            return embed.fill(job, self.alone(device=self.devices[0]), progress)
        tally.refused = refused = Shared(len(job.address.blocks))
        with self._workers(job, refused, self.devices[: len(tally.left)]) as waiting:
            while waiting and time.monotonic() < late:
                for pipe in wait([*waiting], 0.3):
                    answer = _answer(pipe, *waiting.pop(pipe))  # type: ignore[arg-type, call-overload]
                    if isinstance(answer, EosinError):
                        tally.lose(answer)
                    else:
                        tally.hear(answer)
                if not tally.look():  # whoever is frozen keeps nobody waiting
                    late = min(late, time.monotonic() + GRACE)
        return tally.end()

    @contextlib.contextmanager
    def _workers(self, job: Job, refused: Shared, places: tuple[str, ...]) -> Iterator[dict[Connection, tuple]]:
        """{where a worker's answer comes from: its device and process}; at the end all of them are gone."""
        threads = self.workers or max(2, min(16, (os.cpu_count() or 2) // len(places)))
        waiting: dict[Connection, tuple[str, Any]] = {}
        processes = []
        try:
            # in memory that all share: a start that hands over more than a pipe holds never ends if the worker does first
            sent = _shared("c", pickle.dumps(job.unbuilt()))
            for place in places:
                here, there = SPAWN.Pipe(duplex=False)
                work = (sent, self.alone(device=place, workers=threads), refused, there)
                processes.append(process := SPAWN.Process(target=_work, args=work, daemon=True))
                process.start()
                there.close()  # so that the end of the worker is the end of the pipe
                waiting[here] = place, process
            yield waiting
        except KeyboardInterrupt:  # went to all of them: they give their claims back
            for process in processes:
                process.join(GRACE / 5)
            raise
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            name = job.extractor.card.name
            raise ModelError(
                f"{name} cannot be sent to another process: {error}. Define its class at the top of a module, or use one --device."
            ) from error
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()


class Shared(set[int]):
    """Numbers that all workers see, as one byte each."""

    def __init__(self, size: int, flags: Any = None) -> None:
        self.flags = _shared("b", size) if flags is None else flags

    def add(self, number: int) -> None:
        self.flags[number] = 1

    def __contains__(self, number: object) -> bool:
        return bool(self.flags[number])

    def __reduce__(self) -> Any:
        return Shared, (len(self.flags), self.flags)


def _shared(kind: str, content: Any) -> Any:
    """An array in memory that all workers see; ModelError where there is no room for it."""
    try:
        return SPAWN.RawArray(kind, content)
    except OSError as error:
        raise ModelError(
            f"No room for what workers share: {error.strerror}. Make some in /dev/shm and the temporary folder, or use one --device."
        ) from error


def _answer(pipe: Connection, place: str, process: Any) -> Answer:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        process.join()
        return ModelError(
            f"The worker on {place} was lost (exit code {process.exitcode}): killed, or out of memory. What it published stays; "
            "run the same command again if anything is missing."
        )


def _work(sent: Any, engine: Engine, refused: Shared, answer: Connection) -> None:
    """A worker's life; it ends with the front, however that ends."""
    os.dup2(2, 1)  # what a model prints is no fact: the front's stdout may be read by a program
    threading.Thread(target=_end_with_the_front, daemon=True).start()
    name = "The job"
    try:
        job: Job = pickle.loads(sent)  # noqa: S301 - by the front, just now
        name = job.extractor.card.name
        answer.send(take_part(job, engine, refused=refused)[1])
    except KeyboardInterrupt:  # Ctrl-C goes to all; claims are given back, and the front speaks
        pass
    except EosinError as error:
        answer.send(error)
    except Exception as error:  # a stranger's model may raise anything
        answer.send(ModelError(f"{name} on {engine.device}: {said(error)}"))


def _end_with_the_front() -> None:
    front = multiprocessing.parent_process()
    if front is not None:
        wait([front.sentinel])
        os._exit(1)
