"""Filling an address: read tiles, run the model, publish blocks. The only place where a model meets an image.

Batches are cut by row number inside a block and a block is embedded whole, so that interruption, shards and workers do
not change a byte. Tiles are decoded by threads while the network computes.
"""

from __future__ import annotations

import contextlib
import copy
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from . import claims, store
from .claims import Claims
from .environment import device_name
from .errors import DataError, ModelError
from .extractor import FeatureExtractor
from .forward import Forward
from .index import Index
from .store import Address
from .tiles import BrokenTile, Reader
from .views import view as find_view

Progress = Callable[[int], None]
PAUSE = 0.2  # seconds that a worker first waits for others' blocks


@dataclass(frozen=True)
class Engine:
    """How to compute, none of which is in the address: it moves embeddings by no more than 1e-5.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`. batch_size: 0 for what fits into the device's free memory, 128 at most.
        workers: 0 for a choice by machine. compile, channels_last: torch.compile and its memory order for convolutions.
        skip_broken: keep going over tiles that cannot be read; they are counted in the record.
        shard: (i, n), i from 1: only every n-th block.
    """

    device: str = "auto"
    batch_size: int = 0
    workers: int = 0
    skip_broken: bool = False
    shard: tuple[int, int] = (1, 1)
    compile: bool = False
    channels_last: bool = False

    def resolved_device(self) -> str:
        import torch

        if self.device != "auto":
            try:
                torch.empty(1, device=self.device)
            except (RuntimeError, AssertionError) as error:
                raise ModelError(
                    f"Device {self.device!r} cannot be used: {str(error).splitlines()[0]}. Use --device auto or cpu; `bench doctor` shows what is here."
                ) from error
            return self.device
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"

    def forward(self, extractor: FeatureExtractor, geometry: str = "card", grid: str = "") -> Forward:
        """A model on this device."""
        return Forward(extractor, self.resolved_device(), geometry, grid, self.compile, self.channels_last)

    def missing(self, address: Address) -> list[int]:
        """The blocks of this shard that are not published."""
        return [b for b in address.missing() if b % self.shard[1] == self.shard[0] - 1]

    def fill(self, job: Job, progress: Progress = lambda rows: None) -> int:
        """See `fill`; engines of several workers fill in their own way."""
        return fill(job, self, progress)

    def where(self) -> dict[str, Any]:
        """What a record says of the devices."""
        device = self.resolved_device()
        return {"device": device, "device_name": device_name(device)}

    def alone(self, **changes: Any) -> Engine:
        """The same settings for one worker."""
        return Engine(**{f.name: getattr(self, f.name) for f in fields(Engine)} | changes)


@dataclass
class Job:
    """One address to fill: which model, which tiles, seen how."""

    extractor: FeatureExtractor
    index: Index
    address: Address
    view: str = "original"
    geometry: str = "card"
    grid: str = ""  # the dense readout to keep instead of the vectors

    def unbuilt(self) -> Job:
        """The same without a network: what is sent to another process."""
        extractor = copy.copy(self.extractor)
        extractor._module = None
        return replace(self, extractor=extractor)


def fill(job: Job, engine: Engine, progress: Progress = lambda rows: None) -> int:
    """Embed and publish what is missing of an address; return how many tiles were embedded here.

    Args:
        progress: called with the number of rows that this process has just published.

    Raises:
        DataError: tiles that cannot be read, all named, after every other block is published.
        ModelError: an output that is not finite or does not match the card. StoreError: no room.
    """
    embedded, broken = take_part(job, engine, progress)
    if broken:
        raise unreadable(job, engine, broken)
    return embedded


def take_part(
    job: Job, engine: Engine, progress: Progress = lambda rows: None, refused: set[int] | None = None
) -> tuple[int, list[BrokenTile]]:
    """Work on an address until nothing is missing that can be had, beside whoever else does.

    Args:
        refused: blocks that stay unpublished for their broken tiles; added to, and known to others where they share it.

    Returns:
        How many tiles were embedded here, and those that could not be read.
    """
    mine = engine.missing(job.address)
    if not mine:
        return 0, []
    embedded, broken, pause = 0, [], PAUSE
    with Worker(job, engine, refused) as worker, heartbeat(worker.claims):
        while mine:
            before = embedded
            for rows, failed in worker.run(mine):
                broken += failed
                embedded += rows
                progress(rows)
            mine = [b for b in engine.missing(job.address) if b not in worker.refused]
            if mine:  # another process holds the rest; take over whatever it does not finish
                pause = PAUSE if embedded > before else min(2 * pause, 10 * PAUSE)
                time.sleep(pause)
    return embedded, broken


def unreadable(job: Job, engine: Engine, broken: list[BrokenTile]) -> DataError:
    """The error that names broken tiles."""
    first = "; ".join(str(b) for b in broken[:5])
    step = (
        "; --skip-broken cannot leave out whole blocks."
        if engine.skip_broken
        else ", or leave them out with --skip-broken."
    )
    return DataError(
        f"{job.index.dataset.name}: {len(broken)} tile{'s' if len(broken) > 1 else ''} cannot be read. {first}{' …' if len(broken) > 5 else ''}. "
        "Everything else is embedded and kept. Replace these files" + step
    )


@contextlib.contextmanager
def heartbeat(held: Claims) -> Iterator[None]:
    """Signs of life on claims while this lasts; at its end they are given back."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(claims.STALE / 6):
            held.touch()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        held.release_all()


class Worker:
    """A model on a device and the threads that feed it."""

    def __init__(self, job: Job, engine: Engine, refused: set[int] | None = None) -> None:
        self.job, self.engine = job, engine
        self.claims = Claims(job.address.folder)
        self.refused = set() if refused is None else refused  # blocks with broken tiles, which stay unpublished
        self.reader = Reader(job.index.root, job.index.table)
        self.view = find_view(job.view)
        self.device = engine.resolved_device()
        self.batch_size = engine.batch_size
        self.forward = engine.forward(job.extractor, job.geometry, job.grid)
        self.behind = 0 if self.device == "cpu" else 1  # an accelerator goes on while the block before is written

    def __enter__(self) -> Worker:
        self.forward.prepare()
        self.batch_size = self.engine.batch_size or self._fitting_batch()
        self.pool = ThreadPoolExecutor(self.engine.workers or min(16, max(2, os.cpu_count() or 2)))
        self.writer = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *exc: Any) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.writer.shutdown(wait=True)

    def _fitting_batch(self) -> int:
        """Tiles a batch: 16 on a processor, else what fits beside the weights; 128 for a model that cannot be measured."""
        from .measure import MOST, free_mb, largest_batch, measure

        free = free_mb(self.device)
        if free is None:
            return 16
        if not hasattr(self.job.extractor, "skeleton"):
            return MOST
        measured = measure(self.job.extractor, 0 if self.job.geometry == "card" else int(self.job.geometry))
        return largest_batch(measured["memory"]["tile_mb"], free) if "memory" in measured else MOST

    def run(self, blocks: list[int]) -> Iterator[tuple[int, list[BrokenTile]]]:
        """Embed those of the blocks that nobody else holds; yield (rows published, broken tiles) of each."""
        parts: list[dict[str, Any]] = []
        failed: list[BrokenTile] = []
        pending: deque[tuple[int, list[BrokenTile], Future[int]]] = deque()
        for block, rows, images in self._batches(blocks):
            good = [i for i, image in enumerate(images) if not isinstance(image, BrokenTile)]
            failed += [image for image in images if isinstance(image, BrokenTile)]
            if good:
                parts.append(
                    {
                        **self.forward(np.stack([images[i] for i in good])),
                        "": [rows[i] for i in good],
                    }
                )
            if rows[-1] + 1 == self.job.address.span(block).stop:
                pending.append((block, failed, self.writer.submit(self._publish, block, parts, failed)))
                parts, failed = [], []
                while len(pending) > self.behind:
                    yield self._done(*pending.popleft())
        while pending:
            yield self._done(*pending.popleft())

    def _done(self, block: int, failed: list[BrokenTile], future: Future[int]) -> tuple[int, list[BrokenTile]]:
        rows = future.result()
        self.claims.release(block)
        return rows, [] if self.engine.skip_broken and rows else failed

    def _batches(self, blocks: list[int]) -> Iterator[tuple[int, list[int], list[Any]]]:
        """(block, row numbers, decoded tiles), with reading always a few batches ahead."""
        queue: deque[tuple[int, list[int], list[Future[Any]]]] = deque()
        ahead = 0
        for block in blocks:
            if block in self.refused or not self.claims.take(block):
                continue
            if self.job.address.part(block).exists():  # published since we looked
                self.claims.release(block)
                continue
            span = self.job.address.span(block)
            for start in range(span.start, span.stop, self.batch_size):
                rows = list(range(start, min(span.stop, start + self.batch_size)))
                queue.append((block, rows, [self.pool.submit(self._read, i) for i in rows]))
                ahead += 1
                if ahead > 2:
                    first_block, first_rows, futures = queue.popleft()
                    ahead -= 1
                    yield first_block, first_rows, [f.result() for f in futures]
        while queue:
            block, rows, futures = queue.popleft()
            yield block, rows, [f.result() for f in futures]

    def _read(self, i: int) -> np.ndarray | BrokenTile:
        """Row i as the pixels (or, by a model's own transform, the floats) that go into a batch."""
        try:
            return self.forward.see(self.view(self.reader.read(i)))
        except BrokenTile as broken:
            return broken
        except DataError as error:
            return BrokenTile(str(self.job.index.table["id"][i]), str(error))

    def _publish(self, block: int, parts: list[dict[str, Any]], failed: list[BrokenTile]) -> int:
        """Write a finished block; return its number of rows, 0 when broken tiles keep it from being published."""
        import torch

        span = self.job.address.span(block)
        if failed and not self.engine.skip_broken or not parts:
            self.refused.add(block)
            return 0
        rows = np.array([r - span.start for p in parts for r in p[""]])
        readouts = {}
        for name in (n for n in parts[0] if n):
            values = torch.cat([p[name] for p in parts]).cpu().numpy()
            readouts[name] = np.full((len(span), *values.shape[1:]), np.nan, np.float32)
            readouts[name][rows] = values
            self._finite(name, values, rows + span.start)
        broken = np.ones(len(span), bool)
        broken[rows] = False
        store.write_part(self.job.address, block, self.job.index.table["id"][span.start : span.stop], readouts, broken)
        return len(span)

    def _finite(self, name: str, values: np.ndarray, rows: np.ndarray) -> None:
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if bad.any():
            ids = self.job.index.table["id"][rows[bad][:3]]
            card = self.job.extractor.card
            raise ModelError(
                f"{card.name} gave NaN or infinite {name} for {int(bad.sum())} tiles of {self.job.index.dataset.name}, first {', '.join(ids)}. "
                f"Check the weights{' or try --precision fp32' if card.precision != 'fp32' else ''}."
            )
