"""How alike two models see the same tiles: linear CKA from stored embeddings. Nothing is embedded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import metrics, store
from .benchmark import Need
from .errors import DataError, EosinError, MissingError, NotApplicable
from .extractor import parts_of
from .plan import Planner
from .precomputed import Precomputed

READOUT = "cls|default"  # as the protocol cka@1 reads


def stored_datasets(planner: Planner, models: Sequence[Any]) -> list[str]:
    """Datasets that every model has a folder for in the store, and that are known here."""
    found: list[set[str]] = []
    for model in models:
        folder = planner.places.store / f"{model.card.name}@{planner.print_of(model)}"
        found.append({p.name.partition("@")[0] for p in folder.glob("*@*") if p.is_dir()})
    return sorted(n for n in set.intersection(*found) if n in planner.catalogue.datasets.things)


def cka(
    planner: Planner,
    a: Any,
    b: Any,
    datasets: Sequence[str],
    readout: str = READOUT,
    view: str = "original",
    geometry: str = "card",
) -> list[dict[str, Any]]:
    """One row a dataset: `cka` (biased, as published), `cka_debiased`, rows, dimensions, what is to be known.

    Args:
        a, b: extractors, of which the cards and addresses are used. datasets: names.

    Raises:
        MissingError: embeddings that are not stored, with the commands that make them.
    """
    jobs = {d: [planner.job(m, Need(d, view, readout, geometry)) for m in (a, b)] for d in datasets}
    missing = [
        command(job, geometry)
        for pair in jobs.values()
        for job in pair
        if not isinstance(job.extractor, Precomputed) and job.address.missing()
    ]
    if missing:
        raise MissingError("Embeddings are missing. Make them:\n  " + "\n  ".join(dict.fromkeys(missing)))
    return [_row(d, pair, readout) for d, pair in jobs.items()]


def command(job: Any, geometry: str = "card") -> str:
    """The command that fills an address."""
    more = (f" --view {job.view}" if job.view != "original" else "") + (f" --geometry {geometry}" if geometry != "card" else "")  # fmt: skip
    grid = f" --readout {job.grid.split('|')[0]}" if job.grid else ""
    return f"bench embed --model {job.extractor.card.name} --dataset {job.index.dataset.name}{more}{grid}"


def _row(dataset: str, jobs: Sequence[Any], readout: str) -> dict[str, Any]:
    (X, bad), (Y, worse) = (_rows(job, readout) for job in jobs)
    keep = ~(bad | worse)
    if keep.sum() < 4:
        raise DataError(f"{dataset} has {int(keep.sum())} tiles that both models could read; CKA needs 4.")
    sums, notes = metrics.CKA(), []
    sums.add(X[keep], Y[keep]) if not keep.all() else sums.add(X, Y)
    n, widths = int(keep.sum()), (X.shape[1], Y.shape[1])
    if not keep.all():
        notes.append(f"{int((~keep).sum())} broken tiles left out")
    if n < 10 * max(widths):
        notes.append("few rows for so many dimensions: the biased form is too large")
    return {
        **{"dataset": dataset, "a": jobs[0].extractor.card.name, "b": jobs[1].extractor.card.name},
        **{"cka": sums.value(), "cka_debiased": sums.value(debiased=True), "rows": n, "dimensions": list(widths)},
        "notes": notes,
    }


def _rows(job: Any, readout: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) of every tile in the order of the table, and (n,) which of them were broken."""
    if isinstance(job.extractor, Precomputed):
        return job.extractor.rows(job.index), np.zeros(len(job.index.table), bool)
    name = f"{job.extractor.card.name} on {job.index.dataset.name}"
    try:
        parts = parts_of(readout, job.extractor.card, store.given_readouts(job.address))
    except NotApplicable as error:
        raise DataError(str(error)) from error
    try:
        ids, broken, found = store.read(job.address, parts)
    except store.Damaged as error:
        raise MissingError(f"{error} Here: {command(job)}") from error
    if not np.array_equal(ids, job.index.table["id"]):
        raise EosinError(f"{name}: the store holds other tiles than the dataset. Embed again: {command(job)}")
    return np.concatenate([found[p] for p in parts], axis=1), broken
