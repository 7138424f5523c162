"""Plan and schedule more tiles over more workers than one machine holds: real parts' names, no pixels, made-up time.

    python scripts/simulate_scale.py --tiles 100_000_000 --workers 1000 --folder FOLDER

Measures what the harness itself does with that many rows (the plan, its memory, listing, resuming, the table) on this
machine, and simulates who takes which block when workers fail, hang and start again. docs/scale.md quotes it.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eosin.claims import STALE
from eosin.columns import read, write
from eosin.index import _digest
from eosin.store import Address, block_size


def timed(what: str, work: Callable[[], Any]) -> Any:
    """The result of some work; what it took is printed."""
    start = time.perf_counter()
    found = work()
    print(f"{what}: {time.perf_counter() - start:.3f} s")
    return found


def private_mb() -> float:
    """Memory that this process shares with no file."""
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) / 1024


def plan(address: Address) -> list[int]:
    """What a worker does when it starts: one listing, then the blocks that are not there."""
    return address.missing()


def simulate(address: Address, workers: int, seconds_a_block: float, fail: float, seed: int) -> dict[str, float]:
    """Every worker goes through the missing blocks in its own order of shards and takes what is neither done nor claimed.

    Args:
        fail: the chance that a worker dies in the middle of a block; it is started again 300 s later, and its claim is
            void STALE seconds after its last sign of life. Half of those that fail only freeze, wake later and publish
            a block that somebody else has published by then: equal bytes.
    """
    rng = random.Random(seed)
    todo, done, redone, failures, attempts = list(address.blocks), set[int](), 0, 0, 0
    waiting: list[tuple[float, int]] = []  # blocks whose claim becomes void at a time
    events = [(rng.uniform(0, 30), w) for w in range(workers)]
    heapq.heapify(events)
    late: list[tuple[float, int]] = []
    todo.reverse()
    clock = last = 0.0
    while events and len(done) < len(address.blocks):
        clock, worker = heapq.heappop(events)
        while waiting and waiting[0][0] <= clock:
            todo.append(heapq.heappop(waiting)[1])
        while late and late[0][0] <= clock:
            block = heapq.heappop(late)[1]
            redone += block in done
            done.add(block)
        if not todo:
            heapq.heappush(events, (clock + 5, worker))
            continue
        block = todo.pop()
        if block in done:
            heapq.heappush(events, (clock, worker))
            continue
        attempts += 1
        took = seconds_a_block * rng.uniform(0.8, 1.4)
        if rng.random() < fail:
            failures += 1
            heapq.heappush(waiting, (clock + took / 2 + STALE, block))
            if rng.random() < 0.5:
                heapq.heappush(late, (clock + took / 2 + 600, block))
            heapq.heappush(events, (clock + took / 2 + 300, worker))
            continue
        done.add(block)
        last = max(last, clock + took)
        heapq.heappush(events, (clock + took, worker))
    ideal = len(address.blocks) * seconds_a_block * 1.1 / workers
    return {"hours": last / 3600, "ideal hours": ideal / 3600, "blocks": len(done), "attempts": attempts,
            "failures": failures, "published twice": redone}  # fmt: skip


def tables(rows: int, tiles: int, kept: Path) -> None:
    """What the index of so many rows takes: made and kept once, looked at again by every command, mapped by every worker."""
    made = timed(f"a table of {rows:,} rows", lambda: table(rows))
    bytes_a_row = sum(v.nbytes for v in made.values()) / rows
    print(f"  {bytes_a_row:.0f} bytes a row, so {bytes_a_row * tiles / 2**30:.0f} GB for {tiles:,}")
    timed("  its fingerprint", lambda: _digest(made))
    timed("  keeping it", lambda: write(kept, {}, made))
    timed("  a second look, every byte checked", lambda: read(kept))
    before = private_mb()
    mapped = timed("  another worker of this machine", lambda: read(kept))[1]
    used = [str(mapped[c][i]) for c in ("id", "source", "x") for i in range(block_size(rows))]
    print(f"  which holds {private_mb() - before:.1f} MB of its own for it, having read {len(used):,} cells")
    kept.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=100_000_000)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=150.0, help="tiles a second and worker")
    parser.add_argument("--fail", type=float, default=0.01, help="chance that a worker dies in a block")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table that is really made")
    parser.add_argument("--folder", type=Path, help="where to make the empty parts (default: a temporary folder)")
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    if min(o.tiles, o.workers, o.rows) < 1 or o.rate <= 0:
        parser.error("--tiles, --workers, --rows and --rate are above 0")
    folder = o.folder or Path(tempfile.mkdtemp(prefix="scale-"))
    address = Address(folder / "model@1" / "tiles@1", o.tiles, {})
    print(f"{o.tiles:,} tiles: {len(address.blocks):,} parts of {block_size(o.tiles):,} rows, {o.workers:,} workers")

    address.folder.mkdir(parents=True, exist_ok=True)
    timed("plan of nothing done", lambda: plan(address))
    timed("making the empty parts", lambda: [address.part(b).touch() for b in address.blocks])
    timed("listing all parts", address.present)
    rng = random.Random(o.seed)
    lost = rng.sample(list(address.blocks), len(address.blocks) // 20)
    for block in lost:
        address.part(block).unlink()
    missing = timed("plan to resume with one part in twenty lost", lambda: plan(address))
    assert missing == sorted(lost)
    mine = timed("the shard 3/16 of it", lambda: [b for b in address.missing() if b % 16 == 2])
    print(f"  {len(mine)} blocks; without shards up to {o.workers * len(address.blocks):,} attempts to claim one")
    tables(o.rows, o.tiles, folder / "index.columns")
    block_seconds = address.block / o.rate
    for fail in (0.0, o.fail, 10 * o.fail):
        found = timed(f"scheduling with failure {fail:g} a block", lambda fail=fail: simulate(address, o.workers, block_seconds, fail, o.seed))  # fmt: skip
        print("  " + ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v:,}" for k, v in found.items()))
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    if not o.folder:
        shutil.rmtree(folder)


def table(rows: int) -> dict[str, np.ndarray]:
    """The columns that a dataset of slides has, with ids as long as TCGA's."""
    n = np.arange(rows)
    slides = np.char.add("TCGA-A1-A0SB-01Z-00-DX1.", (n // 10_000).astype(str))
    ids = np.char.add(np.char.add(slides, "@"), (n * 512).astype(str))
    return {"id": ids, "item": slides, "source": slides, "x": n, "y": n, "w": n, "h": n, "px": n, "label": n % 2}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
