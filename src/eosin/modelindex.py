"""Records as Hugging Face `model-index` metadata: what a model's page on the hub says of its evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .record import finite

# our metric -> the hub's identifier of the same one; others keep their names
HUB_METRICS = {"auroc": "roc_auc", "pearson": "pearsonr"}
TASKS = {"dice": "image-segmentation", "pearson": "image-feature-extraction"}


def model_index(records: Iterable[Mapping[str, Any]], name: str, version: str) -> str:
    """YAML of a model's records, to stand between the `---` lines of the README.md of its repository on the hub.

    One result a record, the benchmark's own metric first. `args` of a metric hold what the hub has no key for: deviation,
    interval, number of values, folds and options of the protocol. Values are fractions, as in the records.

    Args:
        name: of the model on the hub. version: of eosin.
    """
    import yaml

    results = [_result(r, version) for r in records]
    index = {"model-index": [{"name": name, "results": results}]}
    return yaml.safe_dump(index, sort_keys=False, allow_unicode=True, width=120)


def _result(r: Mapping[str, Any], version: str) -> dict[str, Any]:
    benchmark, protocol, dataset = r["benchmark"], r["protocol"], r["dataset"]
    first = benchmark["metric"]
    metrics = sorted((m for m, s in r["scores"].items() if s.get("mean") is not None), key=lambda m: m != first)
    return {
        "task": {"type": _task(first), "name": f"{benchmark['name']}, frozen embeddings"},
        "dataset": {
            "type": str(dataset.get("name") or benchmark["name"]),
            "name": str(dataset.get("title") or dataset.get("name") or benchmark["name"]),
            "config": f"{benchmark['name']}@{benchmark['fingerprint']}",
            "revision": str(dataset.get("fingerprint") or ""),
        },
        "metrics": [_metric(m, r["scores"][m], protocol, version) for m in metrics],
    }


def _task(metric: str) -> str:
    return next((task for word, task in TASKS.items() if word in metric), "image-classification")


def _metric(metric: str, score: Mapping[str, Any], protocol: Mapping[str, Any], version: str) -> dict[str, Any]:
    options = {k: v for k, v in (protocol.get("options") or {}).items() if v is not None}
    args = {k: finite(score[k]) for k in ("std", "low", "high") if score.get(k) is not None}
    return {
        "type": HUB_METRICS.get(metric, metric),
        "value": score["mean"],
        "name": f"{metric}, {protocol['name']}",
        "args": {
            **args,
            "values": len(score.get("values") or []),
            "protocol": protocol["name"],
            "options": options,
            "eosin": version,
        },
    }
