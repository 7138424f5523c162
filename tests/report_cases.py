"""Records made up for tests of what is made of records: a handful of models on every sort of benchmark, or thousands."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np

from eosin import record
from eosin.card import fingerprint
from eosin.plugins import Catalogue

# name: parameters, tiles a second, how good it is
MODELS = {
    "h-optimus-0": (1_134_774_272, 61, 0.95),
    "virchow2": (631_229_184, 120, 0.93),
    "uni2-h": (681_394_432, 101, 0.92),
    "g2l-brca": (303_348_736, 262, 0.90),
    "h0-mini": (86_304_000, 870, 0.88),
    "phikon": (85_798_656, 881, 0.80),
    "resnet50": (23_508_032, 2950, 0.55),
    "color-stats": (0, 5200, 0.30),
}
ENVIRONMENT = {
    "python": "3.12.8",
    "platform": "Linux-6.1-x86_64",
    "versions": {"eosin": "0.1.0", "torch": "2.6.0", "numpy": "2.2.0"},
    "plugins": {"eosin": "0.1.0"},
    "source": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
}


def made(
    model: str,
    benchmark: str,
    protocol: str,
    scores: dict[str, list[float]],
    metric: str = "",
    options: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A record as `bench run` would have written it; the first metric is the benchmark's own."""
    params, rate, _ = MODELS.get(model, (86_000_000, 500, 0.7))
    options = options or {}
    summaries = {m: record.summary([float(x) for x in v], 1) for m, v in scores.items()}
    for s in summaries.values():
        if s["std"]:
            s["low"], s["high"] = s["mean"] - 2 * s["std"], s["mean"] + 2 * s["std"]
    content = {
        "model": {
            "name": model,
            "kind": "timm",
            "dim": 768,
            "params": params,
            "gflops": round(params / 4e6, 1),
            "licence": "Apache-2.0",
            "seen": ["unknown"],
            "title": model.upper(),
            "weights": "",
            "fingerprint": fingerprint(model),
            "precomputed": False,
        },
        "benchmark": {
            "name": benchmark,
            "dataset": benchmark.rpartition("-")[0],
            "protocol": protocol,
            "metric": metric or next(iter(scores)),
            "options": options,
            "better": "higher",
            "title": "",
            "fingerprint": fingerprint([benchmark, protocol, options]),
        },
        "protocol": {"name": protocol, "options": options, "ddof": 1},
        "readout": {"": "cls"},
        "against": None,
        "dataset": {
            "name": benchmark.rpartition("-")[0],
            "title": "Made-up tissue",
            "kind": "manifest",
            "licence": "CC0",
            "fingerprint": fingerprint(benchmark),
            "rows": 1200,
            "left_out": 0,
            "classes": ["benign", "tumour"],
            "counts": {"benign": 700, "tumour": 500},
            "warnings": [],
            "base": "",
        },
        "scores": summaries,
        "intervals": dict.fromkeys(scores, "bootstrap of patients, 1000 resamples"),
        "reasons": {},
        "floor": {"majority": {"accuracy": 0.583}},
        "notes": [],
        "details": {},
        "predictions": None,
        "seed": 0,
        "environment": ENVIRONMENT,
        "embed": [{"tiles": 1200, "seconds": 1200 / rate, "tiles_per_second": rate, "device": "cuda", "device_name": "H200"}],
        "seconds": {"embed": 12.0, "score": 3.2},
        "peak_memory_mb": 900.0,
        "created": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    return {**content, **more}


def keep(results: Path, content: dict[str, Any], predictions: dict[str, np.ndarray] | None = None) -> Path:
    """Write a record to its place below a results folder."""
    model, benchmark = content["model"], content["benchmark"]
    place = results / f"{model['name']}@{model['fingerprint']}" / f"{benchmark['name']}@{benchmark['fingerprint']}.json"
    content = copy.deepcopy(content)
    if predictions is not None:
        content["predictions"] = record.predictions_path(place).name
    record.write(place, content, predictions)
    return place


def own_options(benchmark: str, **changes: Any) -> dict[str, Any]:
    """The options that a benchmark of the registry has by itself, but for some."""
    from eosin.card import plain

    found = catalogue().benchmark(benchmark)
    return dict(plain(found.protocol.card.complete({**found.card.options, **changes})))


@functools.cache
def catalogue() -> Catalogue:
    return Catalogue()


def demo(results: Path, models: int = 8) -> None:
    """Every sort of record: ten folds, folds of patients, genes, PLISM, the robustness index."""
    rng = np.random.default_rng(0)
    for name in list(MODELS)[:models]:
        good = MODELS[name][2]
        for benchmark, spread in (("tp53", 0.03), ("idc", 0.01), ("bracs", 0.04), ("tils", 0.02)):
            for kind, metric in (("knn", "accuracy"), ("linear", "auroc")):
                for folds, loss in (("paper", 0.0), ("grouped", 0.03)):
                    level = 0.5 + 0.45 * good + rng.normal(0, 0.01) - loss * rng.uniform(0.3, 1.5)
                    values = np.clip(level + rng.normal(0, spread, 10), 0, 1)
                    scores = {metric: values, "balanced_accuracy": np.clip(values - 0.05, 0, 1)}
                    notes = ["One class has 12 patients only."] if benchmark == "bracs" else []
                    keep(
                        results,
                        made(name, f"{benchmark}-{kind}", f"g2l-{kind}@1", scores, options=own_options(f"{benchmark}-{kind}", folds=folds), notes=notes),
                    )  # fmt: skip
        genes = rng.normal(0.4 * good, 0.02, (4, 30)) + np.linspace(0.35, -0.25, 30)
        details = {"pearson_per_gene": genes.tolist(), "genes": [f"GENE{j}" for j in range(30)]}
        keep(
            results,
            made(
                name,
                "hest-idc",
                "hest-ridge@1",
                {"pearson": genes.mean(1)},
                options=own_options("hest-idc"),
                details=details,
            ),
        )
        index = {f"robustness_index@{k}": 0.8 + 0.3 * good + 0.03 * k + rng.normal(0, 0.03, 5) for k in (3, 5, 10, 20)}
        rule = {str(k): {"D1 chance": [2.1 + 0.02 * k] * 5} for k in (3, 5, 10, 20)}
        keep(
            results,
            made(
                name, "robustness-index", "robustness-index-g2l@1",
                {"robustness_index": index["robustness_index@10"], **index},
                options=own_options("robustness-index"), details={"same slide kept": rule},
            ),
        )  # fmt: skip
        top = float(0.5 * good**2 + rng.normal(0, 0.02))
        medians = {"cosine": [0.5 + 0.4 * good**3], "top5": [top], "top1": [top / 2]}
        medians |= {"top1_inter_scanner": [top * 0.9], "top1_inter_staining": [top * 0.4]}
        keep(
            results, made(name, "plism", "plism-paper@1", medians, options=own_options("plism", stainings="GMH,KRH,MY"))
        )


def many(results: Path, models: int, benchmarks: int) -> None:
    """models x benchmarks records of three metrics and ten folds."""
    rng = np.random.default_rng(1)
    for i in range(models):
        for j in range(benchmarks):
            values = {m: rng.normal(0.8, 0.02, 10) for m in ("accuracy", "balanced_accuracy", "auroc")}
            keep(results, made(f"model-{i:03d}", f"bench{j:02d}-knn", "g2l-knn@1", values, options={"folds": "paper"}))
