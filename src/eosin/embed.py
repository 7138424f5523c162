"""Filling an address: read tiles, run the model, publish blocks. The only place where a model meets an image.

Batches are cut by row number inside a block and a block is embedded whole, so that interruption, shards and workers do
not change a byte. Tiles are decoded by threads while the network computes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import store
from .errors import DataError, ModelError, NotApplicable
from .extractor import FeatureExtractor, default_readout, square
from .index import Index
from .store import Address, Claims
from .tiles import BrokenTile, Reader
from .views import view as find_view

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Engine:
    """How to compute, none of which is in the address: it moves embeddings by no more than 1e-5.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`. batch_size, workers: 0 for a choice by device.
        skip_broken: keep going over tiles that cannot be read; they are counted in the record.
        shard: (i, n), i from 1: only every n-th block.
    """

    device: str = "auto"
    batch_size: int = 0
    workers: int = 0
    skip_broken: bool = False
    shard: tuple[int, int] = (1, 1)

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


@dataclass
class Job:
    """One address to fill: which model, which tiles, seen how."""

    extractor: FeatureExtractor
    index: Index
    address: Address
    view: str = "original"
    geometry: str = "card"
    grid: bool = False


def fill(job: Job, engine: Engine, progress: Progress = lambda rows: None) -> int:
    """Embed and publish what is missing of an address; return how many tiles were embedded here.

    Args:
        progress: called with the number of rows newly on disk (also those that another process published meanwhile).

    Raises:
        DataError: tiles that cannot be read, all named, after every other block is published.
        ModelError: an output that is not finite or does not match the card. StoreError: no room.
    """
    mine = [b for b in job.address.missing() if b % engine.shard[1] == engine.shard[0] - 1]
    if not mine:
        return 0
    embedded, broken = 0, []
    with Worker(job, engine) as worker, _heartbeat(worker.claims):
        while mine:
            for block, rows, failed in worker.run(mine):
                broken += failed
                embedded += rows
                progress(rows)
            gone = {b for b in mine if b in worker.refused}
            mine = [b for b in job.address.missing() if b in mine and b not in gone]
            if mine:
                time.sleep(0.2)  # another process holds the rest; take over whatever it does not finish
    if broken:
        first = "; ".join(str(b) for b in broken[:5])
        raise DataError(
            f"{job.index.dataset.name}: {len(broken)} tile{'s' if len(broken) > 1 else ''} cannot be read. {first}{' …' if len(broken) > 5 else ''}. "
            "Everything else is embedded and kept. Replace these files, or leave them out with --skip-broken."
        )
    return embedded


@contextlib.contextmanager
def _heartbeat(claims: Claims) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(store.STALE / 6):
            claims.touch()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        claims.release_all()


class Worker:
    """A model on a device and the threads that feed it."""

    def __init__(self, job: Job, engine: Engine) -> None:
        self.job, self.engine = job, engine
        self.claims = Claims(job.address.folder)
        self.refused: set[int] = set()  # blocks with broken tiles, which stay unpublished
        self.reader = Reader(job.index.root, job.index.table)
        self.view = find_view(job.view)
        self.own_transform = type(job.extractor).transform is not FeatureExtractor.transform
        self.device = engine.resolved_device()
        self.batch_size = engine.batch_size or (16 if self.device == "cpu" else 128)

    def __enter__(self) -> Worker:
        self.job.extractor.device = self.device
        _ = _guarded(self.job.extractor, "build", lambda: self.job.extractor.module) if self._has_module() else None
        self.pool = ThreadPoolExecutor(self.engine.workers or min(16, max(2, os.cpu_count() or 2)))
        self.writer = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *exc: Any) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.writer.shutdown(wait=True)

    def _has_module(self) -> bool:
        return type(self.job.extractor).embed is FeatureExtractor.embed

    def run(self, blocks: list[int]) -> Iterator[tuple[int, int, list[BrokenTile]]]:
        """Embed those of the blocks that nobody else holds; yield (block, rows published, broken tiles)."""
        parts: list[dict[str, Any]] = []
        failed: list[BrokenTile] = []
        pending: deque[tuple[int, list[BrokenTile], Future[int]]] = deque()
        for block, rows, images in self._batches(blocks):
            good = [i for i, image in enumerate(images) if not isinstance(image, BrokenTile)]
            failed += [image for image in images if isinstance(image, BrokenTile)]
            if good:
                parts.append(
                    {
                        **self._forward(np.stack([images[i] for i in good]), [rows[i] for i in good]),
                        "": [rows[i] for i in good],
                    }
                )
            if rows[-1] + 1 == self.job.address.span(block).stop:
                if pending:
                    yield self._done(*pending.popleft())
                pending.append((block, failed, self.writer.submit(self._publish, block, parts, failed)))
                parts, failed = [], []
        while pending:
            yield self._done(*pending.popleft())

    def _done(self, block: int, failed: list[BrokenTile], future: Future[int]) -> tuple[int, int, list[BrokenTile]]:
        rows = future.result()
        self.claims.release(block)
        return block, rows, [] if self.engine.skip_broken else failed

    def _batches(self, blocks: list[int]) -> Iterator[tuple[int, list[int], list[Any]]]:
        """(block, row numbers, decoded tiles), with reading always a few batches ahead."""
        queue: deque[tuple[int, list[int], list[Future[Any]]]] = deque()
        ahead = 0
        for block in blocks:
            if not self.claims.take(block):
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
            image = self.view(self.reader.read(i))
        except BrokenTile as broken:
            return broken
        extractor, geometry = self.job.extractor, self.job.geometry
        if not self.own_transform:
            return square(image, extractor.card, geometry)
        if geometry != "card":
            from PIL import Image

            image = Image.fromarray(square(image, extractor.card, geometry))
        return np.asarray(_guarded(extractor, "transform", lambda: extractor.transform(image)), dtype=np.float32)

    def _forward(self, images: np.ndarray, rows: list[int]) -> dict[str, Any]:
        """{readout: tensor} of one batch, checked against the card."""
        import torch

        card = self.job.extractor.card
        batch = torch.from_numpy(images)
        if self.device.startswith("cuda"):
            batch = batch.pin_memory()
        batch = batch.to(self.device, non_blocking=True)
        if not self.own_transform:
            mean = torch.tensor(card.mean, device=self.device).view(1, 3, 1, 1)
            std = torch.tensor(card.std, device=self.device).view(1, 3, 1, 1)
            batch = ((batch.permute(0, 3, 1, 2).float() / 255.0) - mean) / std
        kind = self.device.split(":")[0]
        half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(card.precision)
        with torch.inference_mode(), torch.autocast(kind, dtype=half) if half else contextlib.nullcontext():
            try:
                out = _guarded(self.job.extractor, "embed", lambda: self.job.extractor.embed(batch.contiguous()))
            except torch.OutOfMemoryError as error:
                raise ModelError(
                    f"{card.name}: out of memory on {self.device} with {len(rows)} tiles a batch. Use --batch-size {max(1, len(rows) // 2)}."
                ) from error
        return self._checked(out, len(rows))

    def _checked(self, out: Any, n: int) -> dict[str, Any]:
        import torch

        card = self.job.extractor.card
        found = out if isinstance(out, dict) else {"pooled": out}
        named = {k: torch.as_tensor(v).float() for k, v in found.items()}
        shapes = {k: tuple(v.shape) for k, v in named.items()}
        for name, shape in shapes.items():
            dims = 4 if name == "grid" else 2
            if len(shape) != dims or shape[0] != n:
                wanted = f"({n}, dim, height, width)" if name == "grid" else f"({n}, dim)"
                raise ModelError(
                    f"{card.name}: readout {name} has shape {shape} for {n} tiles, not {wanted}. Correct embed() or build()."
                )
        lacking = [r for r in card.readouts if r not in shapes]
        if lacking:
            raise ModelError(
                f"{card.name}: the card lists readout {', '.join(lacking)}; the model gave {', '.join(shapes)}. Correct the card or embed()."
            )
        vectors = tuple(k for k in shapes if k != "grid")
        if card.dim is not None and vectors:
            default = default_readout(card, vectors)
            width = sum(shapes[p][1] for p in default.split("+") if p in shapes)
            if width != card.dim:
                raise ModelError(
                    f"{card.name}: readout {default} is {width} wide, the card says dim={card.dim}. Correct the card or the model."
                )
        if self.job.grid:
            if "grid" not in named:
                raise NotApplicable(f"{card.name} gives no grid: {', '.join(shapes)}.")
            return {"grid": named["grid"]}
        return {k: named[k] for k in vectors}

    def _publish(self, block: int, parts: list[dict[str, Any]], failed: list[BrokenTile]) -> int:
        """Write a finished block; return its number of rows, 0 when broken tiles keep it from being published."""
        import torch

        span = self.job.address.span(block)
        if failed and not self.engine.skip_broken or not parts:
            self.refused.add(block)
            if not parts and self.engine.skip_broken:
                raise DataError(
                    f"{self.job.index.dataset.name}: none of the tiles of rows {span.start} to {span.stop - 1} can be read ({failed[0]}). Replace them."
                )
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


def _guarded(extractor: FeatureExtractor, what: str, action: Callable[[], Any]) -> Any:
    """Run a model's own code; an error that is not ours says whose it is."""
    import torch

    from .errors import EosinError

    try:
        return action()
    except (EosinError, torch.OutOfMemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # a stranger's model may raise anything
        raise ModelError(
            f"{extractor.card.name}: {what} failed with {type(error).__name__}: {error}. Run with --debug for the traceback."
        ) from error
