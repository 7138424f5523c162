"""Linear CKA of two models, both forms: ours against whole kernels as THUNDER computes them: python benchmarks/cka_speed.py [n] [d]"""

from __future__ import annotations

import sys
import time

import numpy as np

import eosin
from eosin.plugins import Catalogue


def kernels(X: np.ndarray, Y: np.ndarray) -> float:
    """trace(K H L H) three times over n x n matrices in float32."""
    n = len(X)
    K, L, H = X @ X.T, Y @ Y.T, (np.eye(n) - 1 / n).astype(np.float32)

    def hsic(P: np.ndarray, Q: np.ndarray) -> float:
        return float(np.trace(P @ H @ Q @ H))

    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def main() -> None:
    n, d = (int(v) for v in (*sys.argv[1:3], *(5000, 1536)[len(sys.argv) - 1 :]))
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=np.float32)
    Y = X @ rng.standard_normal((d, d), dtype=np.float32) / d**0.5 + rng.standard_normal((n, d), dtype=np.float32)
    emb, protocol = eosin.Embeddings(X, np.arange(n).astype(str), X2=Y), Catalogue().protocol("cka@1")
    seconds = []
    for action in (lambda: protocol.score(emb).metrics["cka"][0], lambda: kernels(X, Y)):
        start = time.perf_counter()
        value = action()
        seconds.append(time.perf_counter() - start)
        print(f"{value:.6f}  {seconds[-1]:.2f} s", flush=True)
    print(f"{n:,} x {d:,}: {seconds[1] / seconds[0]:.1f} x (ours is both forms)")


if __name__ == "__main__":
    main()
