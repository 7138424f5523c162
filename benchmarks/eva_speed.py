"""How long do eva's heads take here, and how much less than in eva itself?

    python benchmarks/eva_speed.py [--bags 200] [--tiles 1000] [--abmil-runs 1] [--abmil-epochs 5]

eva's seconds are constants, measured once with kaiko-eva 0.4.5 on two processor cores: `eva fit` on 60 stored embeddings
(3 runs x 12 steps; nearly all of it is process start-up), and its trainer from Python, without worker processes, on the
600 x 384 embeddings of the golden cases (10 runs, 2 steps an epoch). Here the embeddings are Gaussian and of the same size.
ABMIL has no such constant; its time is set beside that of its matrix products alone, which every implementation needs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import eosin
from eosin_eva import abmil, linear

PAPER, TODAY = linear.PROTOCOLS
SPLITS = ("train", "train", "val")


def embeddings(n: int, d: int, classes: int, split: np.ndarray | None = None, seed: int = 0) -> eosin.Embeddings:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    X = rng.standard_normal((n, d)) + 0.1 * rng.standard_normal((classes, d))[y]
    split = np.array(SPLITS)[np.arange(n) % 3] if split is None else split
    ids = np.arange(n).astype(str)
    return eosin.Embeddings(X.astype(np.float32), ids, y, split=split, classes=tuple("abcdefghi"[:classes]))


def bags(n: int, tiles: int, d: int, classes: int) -> eosin.Embeddings:
    rng = np.random.default_rng(0)
    slide = np.repeat(np.arange(n), tiles)
    y, split = (
        np.arange(n) % classes,
        np.array(["train", "val", "test"])[np.searchsorted([0.6, 0.8], np.arange(n) / n, "right")],
    )
    X = rng.standard_normal((n * tiles, d), dtype=np.float32)
    ids = np.arange(n * tiles).astype(str)
    return eosin.Embeddings(
        X,
        ids,
        y[slide],
        split=split[rng.permutation(n)][slide],
        slide=slide.astype(str),
        classes=tuple("abcdef"[:classes]),
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def against_eva() -> None:
    print(f"{'linear head':44s} {'eosin s':>9} {'eva s':>9} {'ratio':>8}")
    for text, n, classes, options, theirs in (
        ("60 x 384, 4 classes, 3 runs x 12 steps", 60, 4, {"runs": 3, "max_steps": 12}, 147.0),
        ("600 x 384, 2 classes, 10 runs x 160 steps", 600, 2, {"runs": 10, "max_steps": 160, "patience": 30}, 376.14),
        ("600 x 384, 4 classes, 10 runs x 200 steps", 600, 4, {"runs": 10, "max_steps": 200, "patience": 30}, 300.5),
    ):
        emb = embeddings(n, 384, classes)
        seconds = min(timed(lambda: TODAY.score(emb, **options))[0] for _ in range(3))  # noqa: B023
        print(f"{text:44s} {seconds:9.3f} {theirs:9.1f} {theirs / seconds:8.0f}")


def whole_protocols() -> None:
    """Full length; eva's column is its .185 s a step (the golden cases), times the steps that were run."""
    bach = np.repeat(["train", "val"], [268, 132])
    for text, emb, options in (
        ("600 x 384, 4 classes, patience 400", embeddings(600, 384, 4), {"patience": 400}),
        ("BACH: 400 x 768, 4 classes, patience 400", embeddings(400, 768, 4, bach), {"patience": 400}),
        ("BACH: 400 x 768, 4 classes, no early stop", embeddings(400, 768, 4, bach), {"patience": 12_500}),
    ):
        seconds, scores = timed(lambda: PAPER.score(emb, **options))  # noqa: B023
        steps = int(scores.details["epochs"].sum()) * 2
        print(f"{text + f', {steps} steps':44s} {seconds:9.2f} {steps * 0.185:9.0f} {steps * 0.185 / seconds:8.0f}")


def attention(n: int, tiles: int, d: int, runs: int, epochs: int) -> None:
    emb = bags(n, tiles, d, 6)
    seconds, _ = timed(lambda: abmil.PROTOCOLS[1].score(emb, runs=runs, epochs=epochs, patience=epochs))
    train, val = (int((emb.split == part).sum()) for part in ("train", "val"))
    shapes = [(d, 128, 2), (128, 128, 3), (128, 128, 3)]  # in, out, products a training row: forward, weights, input
    X = torch.randn(32 * tiles, d)
    product = min(timed(lambda: X @ torch.zeros(d, 128))[0] for _ in range(5)) / (len(X) * d * 128)
    floor = sum(i * o * (train * k + val) for i, o, k in shapes) * product
    each = seconds / runs / epochs
    print(f"\nABMIL, {n} bags of {tiles} x {d}: {each:.2f} s a run and epoch; its matrix products alone {floor:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bags", type=int, default=200)
    parser.add_argument("--tiles", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--abmil-runs", type=int, default=1)
    parser.add_argument("--abmil-epochs", type=int, default=3)
    args = parser.parse_args()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {gpu}")
    TODAY.score(embeddings(60, 8, 2), max_steps=2)  # the first call loads libraries
    against_eva()
    whole_protocols()
    attention(args.bags, args.tiles, args.dim, args.abmil_runs, args.abmil_epochs)
