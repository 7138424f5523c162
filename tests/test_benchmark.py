"""The mean over subsets: parts scored apart, also when a small part has fewer folds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import eosin
from eosin.errors import DataError


class ShareOfOnes(eosin.Protocol):
    """Per fold, the share of label 1; a part of fewer than 6 rows has one fold less."""

    card = eosin.ProtocolCard("share@1", metrics=("share",))

    def score(self, emb, **options):
        fold = np.arange(len(emb)) % (2 if len(emb) >= 6 else 1)
        n = np.zeros(len(emb), int)
        predictions = {"id": emb.id, "fold": fold, "seed": n, "y": emb.y, "score": emb.y}
        return eosin.Scores(
            {"share": [float(emb.y[fold == f].mean()) for f in np.unique(fold)]}, predictions, notes=["n"]
        )


def benchmark(values):
    card = eosin.BenchmarkCard("b", dataset="d", metric="share", protocol="share@1", subsets={"zoom": values})
    found = eosin.Benchmark(card)
    found.protocol = ShareOfOnes()
    return found


def embeddings(y, zoom):
    n = len(y)
    table = {"zoom": np.array(zoom)}
    return eosin.Embeddings(
        X=np.zeros((n, 1), np.float32), y=np.array(y), id=np.arange(n).astype(str), table=table, dataset="d"
    )


def test_fold_by_fold_where_parts_have_equal_folds():
    scores = benchmark([40, 100]).score(embeddings([1, 0, 1, 0, 1, 0] + [1] * 6, [40] * 6 + [100] * 6))
    assert scores.metrics == {"share": [1.0, 0.5]}, "part 40 has (1, 0), part 100 (1, 1)"
    assert scores.details["zoom=40/share"].tolist() == [1.0, 0.0]
    assert sorted(set(scores.predictions["fold"].tolist())) == [0, 1, 2, 3] and list(
        scores.predictions["zoom"][:1]
    ) == ["40"]
    assert list(scores.notes) == ["zoom 40: n", "zoom 100: n"]


def test_the_mean_of_means_where_they_do_not():
    scores = benchmark([40, 100]).score(embeddings([1, 0, 1, 0, 1, 0, 1, 1], [40] * 6 + [100] * 2))
    assert scores.metrics == {"share": [0.75]} and "2, 1 folds" in scores.notes[-1]


def test_a_part_that_is_not_there():
    found = benchmark([40])
    found.card = dataclasses.replace(found.card, subsets={"zom": [40]})
    with pytest.raises(DataError, match="no column zom; it has zoom. Correct `subsets:`"):
        found.score(embeddings([1, 0], [40, 40]))
    with pytest.raises(DataError, match="no row has zoom = 400"):
        benchmark([40, 400]).score(embeddings([1, 0], [40, 40]))
