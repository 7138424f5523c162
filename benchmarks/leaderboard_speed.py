"""CPU seconds of `bench leaderboard` on 200 models x 60 benchmarks: 12,000 records as `bench run` writes them.

python benchmarks/leaderboard_speed.py [models] [benchmarks]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from eosin import record
from eosin.card import fingerprint, plain
from eosin.cards import BenchmarkCard, DatasetCard, ModelCard


def make(folder: Path, models: int = 200, benchmarks: int = 60, seed: int = 0) -> int:
    """Write models x benchmarks records; every model is better by a little than the one before. Returns how many."""
    rng = np.random.default_rng(seed)
    for m in range(models):
        model = ModelCard(
            f"model-{m:03}", dim=1024, kind="timm", arch="vit_large_patch16_224", params=300_000_000, gflops=120.0
        )
        address = fingerprint(model.facts)
        for b in range(benchmarks):
            card = BenchmarkCard(f"task-{b:02}-knn", dataset=f"task-{b:02}", protocol="g2l-knn@1", metric="accuracy")
            values = np.clip(0.6 + 0.001 * m + 0.02 * rng.standard_normal(10), 0, 1).tolist()
            scores = {k: record.summary(values, 1) for k in ("accuracy", "balanced_accuracy", "auroc")}
            for s in scores.values():
                s["low"], s["high"] = s["mean"] - 0.02, s["mean"] + 0.02
            content = {
                "model": {**plain(model), "fingerprint": address, "precomputed": False},
                "benchmark": {**plain(card), "fingerprint": fingerprint(card.facts)},
                "protocol": {
                    "name": "g2l-knn@1",
                    "options": {"folds": "paper", "k": 15, "n_components": 50},
                    "ddof": 1,
                },
                "readout": {"": "cls"},
                "against": None,
                "dataset": {
                    **plain(DatasetCard(f"task-{b:02}")),
                    "fingerprint": f"{b:012}",
                    "rows": 5000,
                    "classes": [],
                },
                "scores": scores,
                "intervals": dict.fromkeys(scores, "bootstrap of patients, 1000 resamples, level 0.95"),
                "reasons": {},
                "floor": {"majority": {"accuracy": 0.5}},
                "notes": [],
                "details": {"confusion": rng.integers(0, 99, (10, 8)).tolist()},
                "predictions": None,
                "seed": 0,
                "environment": {"python": "3.11", "versions": {f"library-{i}": "1.0.0" for i in range(12)}},
                "embed": [{"tiles": 5000, "seconds": 50.0, "tiles_per_second": 100.0, "device_name": "a card"}],
                "seconds": {"embed": 50.0, "score": 1.0},
                "peak_memory_mb": 2000.0,
                "created": "2026-01-01T00:00:00+00:00",
            }
            path = folder / f"{model.name}@{address}" / f"{card.name}@{fingerprint(card.facts)}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            record.write(path, content)
    return models * benchmarks


def cpu(*arguments: str) -> float:
    """CPU seconds, of user and system, of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "eosin.cli", *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(make(Path(folder), *map(int, sys.argv[1:3])), "records")
        for what in ("table", "csv", "html"):
            spent = min(cpu("leaderboard", "--results", folder, "--format", what) for _ in range(3))
            print(f"{what}: {spent:.2f} s of CPU")
