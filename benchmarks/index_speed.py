"""The robustness index against a plain version of it: full similarities, a full sort, a list of neighbours a patch.

    python benchmarks/index_speed.py [patches] [dimensions]

Both count all four kinds of neighbours at k = 3, 5, 10, 20 with the query's slide left out; ours counts them with
the slide kept as well. The plain version follows what PathoROB does, without its code: normalise, order all patches by
similarity, remove those of the slide one query at a time, count.
"""

from __future__ import annotations

import sys
import time
from collections import Counter

import numpy as np

from eosin.similarity import neighbour_types_of

KS = (3, 5, 10, 20)


def made(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings that hold class, centre and slide, and these."""
    rng = np.random.default_rng(seed)
    label, centre = rng.integers(0, 5, n), rng.integers(0, 21, n)
    slide = 7 * centre + rng.integers(0, 7, n)
    parts = [rng.standard_normal((v.max() + 1, d))[v] for v in (label, centre, slide)]
    X = 0.3 * parts[0] + 0.3 * parts[1] + 0.1 * parts[2] + 0.5 * rng.standard_normal((n, d))
    return X.astype(np.float32), label, centre, slide


def plain(X: np.ndarray, label: np.ndarray, centre: np.ndarray, slide: np.ndarray) -> dict[int, np.ndarray]:
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    order = np.argsort(-(X @ X.T), axis=1)
    found = {k: np.zeros(4) for k in KS}
    for i, near in enumerate(order):
        others = [j for j in near if slide[j] != slide[i]]
        for k in KS:
            kinds = Counter(2 * int(label[j] != label[i]) + int(centre[j] != centre[i]) for j in others[:k])
            for kind, number in kinds.items():
                found[k][kind] += number
    return found


def ours(X: np.ndarray, label: np.ndarray, centre: np.ndarray, slide: np.ndarray) -> dict[int, np.ndarray]:
    kept, left_out = neighbour_types_of(X, label, centre, [np.arange(len(X)), slide], KS)
    return {k: left_out[k].sum(0) for k in KS}


def main() -> None:
    n, d = (int(a) for a in (sys.argv[1:] + ["4080", "1536"][len(sys.argv) - 1 :])[:2])
    data = made(n, d)
    seconds, cpu, found = {}, {}, {}
    for way in (plain, ours):
        start, spent = time.perf_counter(), time.process_time()
        found[way.__name__] = way(*data)
        seconds[way.__name__], cpu[way.__name__] = time.perf_counter() - start, time.process_time() - spent
        print(f"{way.__name__:6} {seconds[way.__name__]:7.2f} s, {cpu[way.__name__]:7.2f} CPU-s")
    same = all(np.array_equal(found["plain"][k], found["ours"][k]) for k in KS)
    print(
        f"ratio {seconds['plain'] / seconds['ours']:.1f} ({cpu['plain'] / cpu['ours']:.1f} of CPU time), same counts: {same}"
    )


if __name__ == "__main__":
    main()
