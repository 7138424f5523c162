"""Rows of the store joined with a dataset's table: what a benchmark gets. Damaged parts are embedded again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import store
from .benchmark import Embeddings, Need
from .embed import Engine, Job
from .errors import DataError
from .extractor import parts_of, side
from .pixels import Pixels
from .pool import pool, spread
from .precomputed import Precomputed
from .table import Table
from .tiles import Reader
from .views import view


class Rows:
    """Reads addresses, each readout once as long as somebody wants it.

    Args:
        scratch: the folder of what protocols keep. repair: called with a job and its damaged parts, which were set aside:
            embeds them again.
    """

    def __init__(self, engine: Engine, scratch: Path, repair: Callable[[Job, list[Path]], None]) -> None:
        self.engine, self.scratch, self.repair = engine, scratch, repair
        self.loaded: dict[tuple[Path, str], tuple[np.ndarray, np.ndarray]] = {}

    def keep(self, folders: set[Path]) -> None:
        """Forget all but these addresses: memory is for those that come next."""
        self.loaded = {key: rows for key, rows in self.loaded.items() if key[0] in folders}

    def embeddings(self, job: Job, need: Need, label: str) -> Embeddings:
        """The rows of an address joined with the dataset's table, as needed; damaged parts are embedded again."""
        if isinstance(job.extractor, Precomputed):
            X, broken = job.extractor.rows(job.index), np.zeros(len(job.index.table), bool)
        else:
            X, broken = self._load(job, need.readout)
        table = job.index.table
        if broken.any() and not self.engine.skip_broken:
            raise DataError(
                f"{job.index.dataset.name}: {int(broken.sum())} tiles could not be read when they were embedded, such as {table['id'][broken][0]}. Replace the files, or pass --skip-broken."
            )
        if need.rows == "tiles":
            emb = join(X, ~broken, job, spread(job.index), label)
        else:
            emb = join(*pool(X, ~broken, job.index), job, job.index.items, label)
        address = job.address.folder
        name = f"{address.name}-{need.readout.replace('|', '-or-')}-{need.rows}"
        emb = replace(emb, scratch=self.scratch / address.parent.name / name)
        return emb if not need.online else replace(emb, pixels=self._pixels(job, need.readout, emb))

    def _pixels(self, job: Job, readout: str, emb: Embeddings) -> Pixels:
        """Images and masks of these rows, and the model; nothing is read or built before it is asked for."""
        extractor, table, dataset = job.extractor, job.index.table, job.index.dataset
        reader, seen = Reader(job.index.root, table), view(job.view)
        forward = None if isinstance(extractor, Precomputed) else self.engine.forward(extractor, job.geometry, job.grid)

        def embed(images: np.ndarray) -> Any:
            from PIL import Image

            assert forward is not None
            found = forward(np.stack([forward.see(Image.fromarray(image)) for image in images]))
            given = tuple(found)
            return found[parts_of(readout, extractor.card, given)[0]]

        order = np.argsort(table["id"], kind="stable")
        return Pixels(
            lambda i: np.asarray(seen(reader.read(i))),
            lambda i: dataset.mask(job.index.root, table, i),
            None if forward is None else embed,
            extractor.card.mean,
            extractor.card.std,
            side(extractor.card, job.geometry),
            order[np.searchsorted(table["id"], emb.id, sorter=order)],
        )

    def _load(self, job: Job, readout: str) -> tuple[np.ndarray, np.ndarray]:
        address = job.address
        for _ in range(3):
            parts = parts_of(readout, job.extractor.card, store.given_readouts(address))
            key = (address.folder, "+".join(parts))
            if key in self.loaded:
                return self.loaded[key]
            try:
                ids, broken, X, _ = store.read_joined(address, parts)
            except store.Damaged as damage:
                self.repair(job, damage.paths)
                continue
            if not np.array_equal(ids, job.index.table["id"]):
                raise DataError(
                    f"{address.folder} holds other tiles than its dataset. Remove that folder, or name another --store."
                )
            self.loaded[key] = X, broken
            return X, broken
        raise DataError(
            f"{address.folder}: parts are damaged again and again. Check the disk, or name another --store."
        )


def given_readouts(job: Job) -> tuple[str, ...]:
    return () if isinstance(job.extractor, Precomputed) else store.given_readouts(job.address)


def beside(named: dict[str, Embeddings]) -> Embeddings:
    """The rows of a model, beside them those of the other where there is one."""
    emb, other = named[""], named.get("against")
    if other is None:
        return emb
    if not np.array_equal(emb.id, other.id):
        raise DataError(f"{emb.dataset}: the two models have rows of other tiles; some were broken. Embed them again.")
    return replace(emb, X2=other.X)


def join(X: np.ndarray, keep: np.ndarray, job: Job, table: Table, label: str = "label") -> Embeddings:
    """Embeddings and the dataset's table, row by row; rows without a label are left out where others have one.

    Args:
        X: (n, d) in the order of the table. keep: (n,) bool, the rows that could be read. label: the column to use as label.
    """
    if label not in table:
        raise DataError(
            f"{job.index.dataset.name}: the table has no column {label!r}; it has {', '.join(table.columns)}."
        )
    y, classes = table.known(label), table.classes
    if label != "label" and y is not None:
        from .manifest import read_labels

        y, classes = read_labels(job.index.path, [str(v) for v in y.tolist()])
    if y is not None:
        keep = keep & (y >= 0)
    rows = np.flatnonzero(keep)
    everything = len(rows) == len(table)

    def as_it_is(values: np.ndarray) -> np.ndarray:
        """Wide columns of millions of rows are shown, not copied; and what is shown is not written to."""
        values = values.view() if everything else values[rows]
        values.flags.writeable = False
        return values

    def column(name: str) -> np.ndarray | None:
        values = table.known(name)
        return None if values is None else values[rows]

    return Embeddings(
        X=X if everything else X[rows],
        id=as_it_is(table["id"]),
        y=None if y is None else y[rows],
        split=column("split"),
        group=column("group"),
        slide=column("slide"),
        centre=column("centre"),
        fold=column("fold"),
        target=None if table.target is None else table.target[rows],
        target_names=table.target_names,
        classes=classes,
        table={n: as_it_is(v) for n, v in table.columns.items()},
        dataset=job.index.dataset.name,
    )
