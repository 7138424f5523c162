"""The door for benchmarks: embeddings in, scores out. A benchmark never meets a model or an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .cards import BenchmarkCard, ProtocolCard
from .errors import DataError, PluginError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from .dataset import Dataset
    from .pixels import Pixels


@dataclass(frozen=True)
class Need:
    """What a benchmark asks of a model: rows of one dataset under one view, as one readout, in one geometry.

    Args:
        dataset: its name.
        view: a named image -> image function (`original`, `jpeg-30`, …).
        readout: `cls`, `mean`, `cls+mean`, `pooled`, `grid`, or `default`: what the model's card recommends;
            `cls|default` is the first of several that the model has.
        geometry: `card`, or `224`: shorter side to 224 px (bilinear) and centre crop, whatever the card says.
        online: the protocol trains on pixels: `pixels` of its Embeddings gives images, masks, and a way to embed more.
        rows: `items`, the mean of an item's tiles where it has several; or `tiles`, each of them, its item as `slide`.
        against: asked of the other model, where a benchmark compares two.
    """

    dataset: str
    view: str = "original"
    readout: str = "default"
    geometry: str = "card"
    online: bool = False
    rows: str = "items"
    against: bool = False

    def __post_init__(self) -> None:
        if self.rows not in ("items", "tiles"):
            raise UsageError(f"A need's rows are items or tiles, not {self.rows!r}.")
        if self.geometry != "card" and not (self.geometry.isdigit() and int(self.geometry)):
            raise UsageError(
                f"Geometry {self.geometry!r} is not understood: use card, or a number of pixels such as 224."
            )


@dataclass(frozen=True)
class Embeddings:
    """One model's rows of one dataset, and what is known of each row.

    Attributes:
        X: (n, d) float32; (n, d, h, w) of a grid.
        y: (n,) labels as indices into `classes`, or None.
        id: (n,) tile ids.
        split: (n,) "train", "val" or "test", or None; likewise `group` (patient), `slide`, `centre`, `fold` (ints).
        target: (n, g) float numbers to regress, or None; `target_names` names the columns.
        table: every column of the dataset's table, as arrays of length n.
        classes: the names of the labels, or of a mask's numbers.
        pixels: images and masks of the rows, for an `online` need; else None.
        X2: (n, d2) the same rows by the other model, where a protocol compares two; else None.
        scratch: a folder of this model and dataset where a protocol may keep what is dear to compute; or None.
    """

    X: np.ndarray
    id: np.ndarray
    y: np.ndarray | None = None
    split: np.ndarray | None = None
    group: np.ndarray | None = None
    slide: np.ndarray | None = None
    centre: np.ndarray | None = None
    fold: np.ndarray | None = None
    target: np.ndarray | None = None
    target_names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    table: Mapping[str, np.ndarray] = field(default_factory=dict)
    dataset: str = ""
    pixels: Pixels | None = None
    X2: np.ndarray | None = None
    scratch: Path | None = None

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, key: str | np.ndarray | slice) -> Embeddings:
        """The rows of a split (`emb["train"]`), of a boolean mask or of row numbers."""
        if isinstance(key, str):
            if self.split is None:
                raise DataError(
                    f"{self.dataset or 'These embeddings'}: there is no split, so no {key!r}. Add a `split` column to the table, or use a protocol that makes its own folds."
                )
            rows = self.split == key
            if not rows.any():
                raise DataError(
                    f"{self.dataset or 'These embeddings'}: no row has split {key!r}; there are {', '.join(sorted(set(self.split.tolist())))}. Correct the `split` column of the table."
                )
            key = rows
        per_row = {
            n: getattr(self, n) for n in ("X", "X2", "id", "y", "split", "group", "slide", "centre", "fold", "target")
        }
        rows_of = {n: v[key] for n, v in per_row.items() if v is not None}
        pixels = None if self.pixels is None else self.pixels[key]
        return replace(self, **rows_of, table={n: v[key] for n, v in self.table.items()}, pixels=pixels)


@dataclass
class Scores:
    """What a protocol finds.

    Args:
        metrics: {metric: a float, or one float a fold or seed}; nan is allowed and becomes null with a reason.
        predictions: equal-length arrays `id, fold, seed, y, score`, kept beside the record for intervals and paired tests.
        details: small named arrays: per gene, per pair, counts, class x centre.
        notes: sentences that a reader of the number must know.
        intervals: {metric: (low, high, how it was made)}, where the protocol knows better than the harness, which resamples
            patients where it has predictions and takes folds for independent where not.
    """

    metrics: Mapping[str, float | Sequence[float]]
    predictions: Mapping[str, np.ndarray] | None = None
    details: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    intervals: Mapping[str, tuple[float, float, str]] | None = None

    @classmethod
    def of(cls, result: Any, name: str) -> Scores:
        """A benchmark may return a plain mapping of floats or lists; PluginError for anything else.

        Args:
            name: whose score it is.
        """
        metrics = result.metrics if isinstance(result, Scores) else result
        if not hasattr(metrics, "keys"):  # a mapping, or what dict() takes for one: a pandas Series
            raise PluginError(
                f"{name}: score returned {type(metrics).__name__}; return a mapping of metric to number (docs/write-a-benchmark.md)."
            )
        for metric, value in dict(metrics).items():
            _numbers(name, metric, value)
        return result if isinstance(result, Scores) else cls(metrics=dict(result))


def _numbers(name: str, metric: Any, value: Any) -> None:
    """PluginError unless a metric is a number, or a list of them."""
    import numpy as np

    try:
        np.asarray(value, float)
    except (TypeError, ValueError):
        raise PluginError(
            f"{name}: score gave {type(value).__name__} for {metric}; return a number, or one number a fold or seed (docs/write-a-benchmark.md)."
        ) from None


class Protocol:
    """A named way from embeddings to scores. Set `card`; override `score`."""

    card: ProtocolCard

    def score(self, emb: Any, **options: Any) -> Scores | Mapping[str, Any]:
        """Scores of one Embeddings, or of the mapping that the benchmark's `needs` names. Options arrive complete."""
        raise PluginError(f"{type(self).__name__} must define score(emb, **options); see docs/write-a-benchmark.md.")


class Benchmark:
    """dataset(s) + protocol + primary metric. A registry row needs no class; a class overrides `score`, maybe `needs`.

    `dataset`, when set, is a Dataset that comes with the benchmark.
    """

    card: BenchmarkCard
    dataset: Dataset | None = None
    protocol: Protocol | None = None

    def __init__(self, card: BenchmarkCard | None = None) -> None:
        if card is not None:
            self.card = card

    def needs(self) -> dict[str, Need]:
        """Name -> Need. One need: `score` gets its Embeddings; several: a mapping of them."""
        c, p = self.card, self.protocol.card if self.protocol else ProtocolCard("none@1")
        readout = c.readout if c.readout != "default" else p.readout
        geometry = c.geometry if c.geometry != "card" else p.geometry
        need = Need(c.dataset, c.view, readout, geometry, p.online, p.rows)
        return {"": need, "against": replace(need, against=True)} if p.against else {"": need}

    def score(self, emb: Any, **options: Any) -> Scores | Mapping[str, Any]:
        """Scores from embeddings: the protocol's, once, or once a subset and then averaged."""
        assert self.protocol is not None, "the harness sets the protocol of a row before it scores"
        if not self.card.subsets:
            return self.protocol.score(emb, **options)
        return _mean_over_subsets(self.protocol, emb, self.card.subsets, options)


def _mean_over_subsets(
    protocol: Protocol, emb: Embeddings, subsets: Mapping[str, Any], options: Mapping[str, Any]
) -> Scores:
    """Each part scored apart; the value of a fold is the mean of the parts' values in that fold."""
    import numpy as np

    ((column, values),) = subsets.items()
    if column not in emb.table:
        raise DataError(
            f"{emb.dataset}: the table has no column {column}; it has {', '.join(emb.table)}. Correct `subsets:` of the benchmark."
        )
    parts: dict[str, Scores] = {}
    for value in values:
        rows = np.asarray(emb.table[column]).astype(str) == str(value)
        if not rows.any():
            raise DataError(
                f"{emb.dataset}: no row has {column} = {value}. Correct `subsets:` of the benchmark; a download may also not be whole (`bench data check {emb.dataset}`)."
            )
        parts[str(value)] = Scores.of(protocol.score(emb[rows], **options), protocol.card.name)
    found = {(v, m): np.atleast_1d(np.asarray(x, float)) for v, p in parts.items() for m, x in p.metrics.items()}
    metrics, notes = {}, [f"{column} {v}: {note}" for v, p in parts.items() for note in p.notes]
    for m in next(iter(parts.values())).metrics:
        apart = [found[v, m] for v in parts]
        if len({len(a) for a in apart}) == 1:
            metrics[m] = np.mean(apart, axis=0).tolist()
        else:  # a small part has fewer folds: no fold of it belongs to a fold of another
            metrics[m] = [float(np.mean([a.mean() for a in apart]))]
            notes.append(
                f"{m}: the parts have {', '.join(str(len(a)) for a in apart)} folds, so it is the mean of their means."
            )
    details = {f"{column}={v}/{m}": x for (v, m), x in found.items()}
    return Scores(metrics, _joined(column, parts), details, notes)


def _joined(column: str, parts: Mapping[str, Scores]) -> dict[str, Any] | None:
    """The predictions of all parts, with the part as a column; folds are numbered on, since each part has its own."""
    import numpy as np

    kept = {v: dict(p.predictions) for v, p in parts.items() if p.predictions is not None}
    if len(kept) < len(parts):
        return None
    last = 0
    for value, own in kept.items():
        own[column] = np.full(len(own["id"]), value)
        if "fold" in own and len(own["fold"]):
            own["fold"] = np.asarray(own["fold"]) + last
            last = int(own["fold"].max()) + 1
    return {k: np.concatenate([np.asarray(own[k]) for own in kept.values()]) for k in next(iter(kept.values()))}
