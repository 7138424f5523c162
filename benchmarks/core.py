"""Store write and read, start-up, and planning at many tiles.

python benchmarks/core.py [TILES]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import eosin
from eosin.index import open_index
from eosin.store import Address, read, write_part


class Many(eosin.Dataset):
    """Rows of one file, so that a million tiles need no million files."""

    kind = "many"

    def items(self, root: Path) -> eosin.Table:
        n = int((root / "n.txt").read_text())
        return eosin.Table(
            {
                "id": np.array([f"tile-{i:07d}" for i in range(n)]),
                "source": np.full(n, "n.txt"),
                "label": np.arange(n) % 2,
            },
            classes=("a", "b"),
        )


def timed(action, rounds: int = 3) -> float:
    best = 1e9
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def store(top: Path, n: int = 20_000, d: int = 1024) -> None:
    X = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    ids = np.array([f"tile-{i:06d}" for i in range(n)])
    address = Address(top / "store", n, {"model": "none"})

    def fill():
        for b in address.blocks:
            s = address.span(b)
            write_part(address, b, ids[s.start : s.stop], {"cls": X[s.start : s.stop]})

    print(
        f"store, {n:,} x {d:,}, {len(address.blocks)} parts: write {timed(fill):.2f} s, read with every byte checked {timed(lambda: read(address, ['cls'])):.2f} s"
    )


def startup() -> None:
    def run(*args: str) -> float:
        return timed(lambda: subprocess.run([sys.executable, *args], capture_output=True, check=True), 9)

    plain = run("-c", "pass")
    for args in (["--help"], ["list", "models"], ["leaderboard"]):
        took = run("-m", "eosin.cli", *args)
        print(
            f"bench {' '.join(args)}: {took * 1e3:.0f} ms, {took / plain:.1f} x python -c pass ({plain * 1e3:.0f} ms)"
        )


def planning(top: Path, n: int) -> None:
    root = top / "many"
    root.mkdir()
    (root / "n.txt").write_text(str(n))
    dataset = Many("many")
    first = timed(lambda: open_index(dataset, top, top / "indexes", root), 1)
    again = timed(lambda: open_index(dataset, top, top / "indexes", root))
    address = Address(top / "empty", n, {})
    print(
        f"planning, {n:,} tiles of one file: first index {first:.2f} s, again {again:.2f} s, what is missing {timed(address.missing) * 1e3:.1f} ms"
    )


def files(top: Path, n: int = 100_000) -> None:
    root = top / "files"
    root.mkdir()
    for i in range(n):
        (root / f"{i:06d}.png").write_bytes(b"%d" % i)
    (root / "tiles.csv").write_text("path\n" + "\n".join(f"{i:06d}.png" for i in range(n)) + "\n")
    dataset = eosin.Manifest("files")
    first = timed(lambda: open_index(dataset, top, top / "indexes", root), 1)
    again = timed(lambda: open_index(dataset, top, top / "indexes", root))
    print(f"planning, {n:,} image files: first index {first:.2f} s (reads each), again {again:.2f} s (a stat each)")


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as temp:
        startup()
        store(Path(temp))
        planning(Path(temp), n)
        files(Path(temp))


if __name__ == "__main__":
    main()
