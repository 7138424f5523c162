"""PLISM per pair of slides: ours against the straightforward way, in one process: python benchmarks/plism_speed.py [n] [d] [--half N]

The straightforward way joins both slides, makes the whole 2n x 2n matrix in float32 and picks the k largest of each row, as
plism-benchmark does with use_mixed_precision=False; by default that tool computes in numpy's float16, which no BLAS serves:
`--half N` times that at N tiles (minutes at 2,000). Ours is a pair of a series: each slide's own block is made beforehand and
shown apart, because 91 slides have 4,095 pairs.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np

from eosin import metrics
from eosin_robustness.dense import Dense

KS = (1, 3, 5, 10)


def straightforward(A: np.ndarray, B: np.ndarray, dtype: type) -> dict[str, float]:
    """Cosine and top-k from whole matrices; the tile itself is taken for the first of its row."""
    A, B = A.astype(dtype), B.astype(dtype)
    n = len(A)
    norm = np.linalg.norm(A, axis=1)[:, None] * np.linalg.norm(B, axis=1)[None]
    cosine = float(np.mean(np.diagonal(A @ B.T / norm)))
    X = np.concatenate([A, B])
    length = np.linalg.norm(X, axis=1)
    sim = X @ X.T / (length[:, None] * length[None])
    near = np.argpartition(-sim, range(1, max(KS) + 1), axis=1)[:, 1 : max(KS) + 1]
    match = np.concatenate([np.arange(n, 2 * n), np.arange(n)])[:, None]
    return {"cosine": cosine, **{f"top{k}": float((near[:, :k] == match).any(1).mean()) for k in KS}}


def slides(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal(shape, dtype=np.float32) for shape in ((n, 48), (48, d), (n, d), (n, d))]
    content = parts[0] @ parts[1] / 7 + rng.standard_normal(d, dtype=np.float32)
    return content + 0.7 * parts[2], content + 0.7 * parts[3]


def timed(what: str, action, times: int = 1):
    """The fastest of so many runs, and how much memory the last took above its inputs."""
    seconds = []
    for _ in range(times):
        tracemalloc.start()
        start = time.perf_counter()
        value = action()
        seconds.append(time.perf_counter() - start)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    print(f"{what:<44} {min(seconds):8.2f} s   {peak:7,.0f} MB above its inputs", flush=True)
    return min(seconds), value


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("n", nargs="?", type=int, default=4000)
    parser.add_argument("d", nargs="?", type=int, default=1536)
    parser.add_argument("--half", type=int, default=0, metavar="N")
    parser.add_argument("--only-ours", action="store_true")
    o = parser.parse_args()
    A, B = slides(o.n, o.d)
    print(f"{o.n:,} x {o.d:,}")
    once, within = timed(
        "own blocks of two slides, once a slide", lambda: [metrics.nearest_within(X, 10) for X in (A, B)]
    )
    ours, exact = timed("a pair, exact", lambda: metrics.plism_pair(A, B, KS, tuple(within)), 3)
    half = Dense(KS, "float16")
    sides = [(x, half.within(x)) for x in map(half.slide, (A, B))]
    _, (rounded,) = timed("a pair, precision=float16", lambda: half.pairs(sides[0], sides[1:]))
    print(f"projected on this machine: 210 pairs {(210 * ours + 21 * once / 2) / 60:.1f} min, "
          f"4,095 pairs {(4095 * ours + 91 * once / 2) / 3600:.1f} h")  # fmt: skip
    if not o.only_ours:
        theirs, value = timed("a pair, whole matrix in float32", lambda: straightforward(A, B, np.float32))
        print(
            f"{theirs / ours:.1f} x; largest difference of a number {max(abs(value[m] - exact[m]) for m in exact):.2g}"
        )
    if o.half:
        A, B = A[: o.half], B[: o.half]
        within = tuple(metrics.nearest_within(X, 10) for X in (A, B))
        ours, _ = timed(f"a pair of {o.half:,}, exact", lambda: metrics.plism_pair(A, B, KS, within), 3)
        sides = [(x, half.within(x)) for x in map(half.slide, (A, B))]
        _, (rounded,) = timed(f"a pair of {o.half:,}, precision=float16", lambda: half.pairs(sides[0], sides[1:]))
        theirs, value = timed(
            f"a pair of {o.half:,}, whole matrix in float16", lambda: straightforward(A, B, np.float16)
        )
        print(f"{theirs / ours:.0f} x; float16 differs by {max(abs(value[m] - rounded[m]) for m in rounded):.2g}")


if __name__ == "__main__":
    main()
