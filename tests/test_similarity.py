"""PLISM pairs and neighbours by class and centre: golden cases, the definitions written out, ties, blocks, order."""

import json

import numpy as np
import pytest

from eosin import metrics, similarity
from eosin.errors import DataError


def cases(shared, pattern):
    folders = sorted(shared("golden").glob(pattern))
    assert folders, f"no golden case {pattern}"
    for folder in folders:
        yield folder.name, np.load(folder / "input.npz"), json.loads((folder / "expected.json").read_text())


def ranks_by_definition(a, b):
    """Ranks of the match of every tile of a, then of b, in plain float64."""
    x = np.concatenate([a, b]).astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    n, sim = len(a), x @ x.T
    np.fill_diagonal(sim, -np.inf)
    match = np.concatenate([np.arange(n, 2 * n), np.arange(n)])
    return (sim >= sim[np.arange(2 * n), match][:, None] - 1e-12).sum(1)


def test_golden_plism_pairs(shared):
    for name, given, expected in cases(shared, "plism-0[1-8]"):
        got, paper = metrics.plism_pair(given["a"], given["b"]), expected["paper_float64"]
        assert got["cosine"] == pytest.approx(paper["cosine_mean"], abs=1e-9), name
        for k in (1, 3, 5, 10):
            assert got[f"top{k}"] == pytest.approx(paper["ge"][f"top{k}"], abs=1e-12), (name, k)
        ranks = np.load(shared("golden", name, "expected_ranks.npz"))["rank_ge"]
        assert (ranks_by_definition(given["a"], given["b"]) == ranks).all(), name


def test_golden_plism_slides_reuse_what_is_within(shared):
    ((_, given, expected),) = cases(shared, "plism-09")
    within = {slide: metrics.nearest_within(given[slide], 10) for slide in given}
    for pair in expected["paper_float64"]["pairs"]:
        a, b = pair["slide_a"], pair["slide_b"]
        got = metrics.plism_pair(given[a], given[b], within=(within[a], within[b]))
        assert got["cosine"] == pytest.approx(pair["cosine"], abs=1e-9)
        assert [got[f"top{k}"] for k in (1, 3, 5, 10)] == pytest.approx([pair[f"top{k}"] for k in (1, 3, 5, 10)])
        assert got == metrics.plism_pair(given[a], given[b])


def made_slides(rng, n=150, d=24, noise=0.5):
    content = rng.standard_normal((n, 8)) @ rng.standard_normal((8, d))
    return [(content + noise * rng.standard_normal((n, d))).astype(np.float32) for _ in range(2)]


def test_plism_does_not_depend_on_blocks_order_or_scale(monkeypatch):
    a, b = made_slides(np.random.default_rng(3))
    a[10:20] = a[0:10]  # duplicates tie
    whole = metrics.plism_pair(a, b, ks=(1, 2, 7))
    ranks = ranks_by_definition(a, b)
    assert [whole[f"top{k}"] for k in (1, 2, 7)] == pytest.approx([(ranks <= k).mean() for k in (1, 2, 7)])
    order = np.random.default_rng(4).permutation(len(a))
    assert metrics.plism_pair(a[order], b[order], ks=(1, 2, 7)) == pytest.approx(whole)
    assert metrics.plism_pair(b, a, ks=(1, 2, 7)) == pytest.approx(whole)
    assert metrics.plism_pair(a.astype(float) * 1e200, b.astype(float) * 1e-200, ks=(1, 2, 7)) == pytest.approx(whole)
    monkeypatch.setattr(similarity, "blocks", lambda n, size=0: (slice(i, min(i + 13, n)) for i in range(0, n, 13)))
    assert metrics.plism_pair(a, b, ks=(1, 2, 7)) == pytest.approx(whole)
    assert metrics.plism_pair(a, b, (1, 2), (metrics.nearest_within(a, 2), metrics.nearest_within(b, 2))) == (
        metrics.plism_pair(a, b, (1, 2))
    )


@pytest.mark.parametrize("d", [1, 192, 1000])
def test_plism_of_collapsed_features_is_0_and_of_a_copy_is_1(d):
    n = 60
    for same in (np.ones((n, d)), np.tile(np.random.default_rng(d).standard_normal(d), (n, 1))):
        got = metrics.plism_pair(same.astype(np.float32), same.astype(np.float32))
        assert got["cosine"] == pytest.approx(1) and got["top1"] == got["top10"] == 0
    copy = np.random.default_rng(5).standard_normal((n, d + 3)).astype(np.float32)
    assert metrics.plism_pair(copy, copy)["top1"] == 1


def test_plism_settles_in_float64_what_float32_cannot_see():
    a = np.eye(3, 4)
    b = np.eye(3, 4) + 0.5
    b[1] = a[0] * (1 + 1e-9) + 0.5  # a rival of the match of tile 0, nearer than it by less than float32 can hold
    a[:, 3] = 1e-4
    assert metrics.plism_pair(a, b, (1, 2)) == pytest.approx(
        {
            "cosine": metrics.plism_pair(a, b)["cosine"],
            **{f"top{k}": (ranks_by_definition(a, b) <= k).mean() for k in (1, 2)},
        }
    )


def test_plism_of_few_tiles_and_bad_rows():
    a, b = made_slides(np.random.default_rng(6), n=2)
    assert metrics.plism_pair(a, b, ks=(3,)) == pytest.approx({"cosine": metrics.plism_pair(a, b)["cosine"], "top3": 1})
    a, b = made_slides(np.random.default_rng(6))
    with pytest.raises(DataError, match=r"Give nearest_within\(slide, 10\)"):
        metrics.plism_pair(a, b, within=(metrics.nearest_within(a, 5), metrics.nearest_within(b, 5)))
    with pytest.raises(DataError, match="24 dimensions and B 5"):
        metrics.plism_pair(a, b[:, :5])
    b[[4, 9]] = 0
    with pytest.raises(DataError, match="B is all zeros.* in rows 4, 9"):
        metrics.plism_pair(a, b)
    a[3, 2] = np.nan
    with pytest.raises(DataError, match="A has NaN or Inf in rows 3"):
        metrics.plism_pair(a, b)


# ---- robustness counts


def counts_by_definition(x, label, centre, slide, k, exclude):
    x = x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    counts = np.zeros(4)
    for i, sim in enumerate(x @ x.T):
        barred = slide == slide[i] if exclude else np.arange(len(x)) == i
        near = [j for j in np.argsort(-sim) if not barred[j]][:k]
        counts += np.bincount(2 * (label[near] != label[i]) + (centre[near] != centre[i]), minlength=4)
    return tuple(counts)


def test_golden_robustness_counts(shared):
    for name, given, expected in cases(shared, "ri-*"):
        for exclude, key in ((False, "own_float64_not_excluded"), (True, "own_float64_slide_excluded")):
            got = metrics.robustness_counts(
                given["x"], given["bio"], given["centre"], given["slide"], (3, 5, 10, 20, 50), exclude
            )
            for k, counts in got.items():
                want = expected[key][str(k)]
                assert counts == tuple(want[kind] for kind in ("SS", "SO", "OS", "OO")), (name, key, k)


def test_robustness_counts_of_each_tile():
    rng = np.random.default_rng(7)
    x, label, centre = rng.standard_normal((90, 6)), rng.integers(0, 3, 90), rng.integers(0, 4, 90)
    slide = 10 * centre + rng.integers(0, 2, 90)
    for exclude in (False, True):
        want = counts_by_definition(x, label, centre, slide, 5, exclude)
        assert metrics.robustness_counts(x, label, centre, slide, (5,), exclude)[5] == want
    names = np.array(["invasive", "stroma", "necrosis"])[label]
    types = metrics.neighbour_types(x, names, centre, ks=(5,))[5]
    assert (types.sum(1) == 5).all() and tuple(types.sum(0)) == metrics.robustness_counts(x, label, centre, ks=(5,))[5]


def test_neighbours_that_tie_share_the_last_places(monkeypatch):
    x = np.array([[1, 0], [1, 1e-3], [1, 1e-3], [1, 1e-3], [0, 1.0]])
    label, centre = np.array([0, 0, 1, 1, 0]), np.array([0, 0, 0, 1, 1])
    first = metrics.neighbour_types(x, label, centre, ks=(1, 2, 3))
    assert first[1][0] == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    assert first[2][0] == pytest.approx([2 / 3, 0, 2 / 3, 2 / 3])
    assert first[3][0].tolist() == [1, 0, 1, 1]
    rng = np.random.default_rng(8)
    x = np.repeat(rng.standard_normal((20, 5)), 4, axis=0) * rng.uniform(0.1, 9, (80, 1))  # equal but for rounding
    label, centre, order = rng.integers(0, 3, 80), rng.integers(0, 3, 80), rng.permutation(80)
    counts = metrics.robustness_counts(x, label, centre)
    shuffled = metrics.robustness_counts(x[order], label[order], centre[order])
    monkeypatch.setattr(similarity, "BLOCK", 7)
    in_blocks = metrics.robustness_counts(x, label, centre)
    for k in counts:
        assert sum(counts[k]) == pytest.approx(80 * k)
        assert shuffled[k] == pytest.approx(counts[k]) and in_blocks[k] == pytest.approx(counts[k])
    copies = metrics.neighbour_types(x, label, centre, ks=(3,))[3]
    for ks in ((1,), (1, 2, 3)):
        types = metrics.neighbour_types(x, label, centre, ks=ks)
        assert all(types[k] == pytest.approx(copies * k / 3) for k in ks)  # three copies share one place, or two
    collapsed = metrics.robustness_counts(np.ones((80, 5)), label, centre)
    same = sum((label == v).sum() * ((label == v).sum() - 1) for v in range(3)) / (80 * 79)
    assert sum(collapsed[3][:2]) / 240 == pytest.approx(same)  # collapsed features give the base rates


def test_robustness_counts_at_the_edges():
    rng = np.random.default_rng(9)
    x, label = rng.standard_normal((12, 4)), np.arange(12) % 2
    one_centre = metrics.robustness_counts(x, label, np.zeros(12), ks=(3,))[3]
    assert one_centre[1] == one_centre[3] == 0 and sum(one_centre) == 36
    assert sum(metrics.robustness_counts(x, label, label, ks=(50,))[50]) == 12 * 11  # fewer than k: those there are
    alone = metrics.robustness_counts(x, label, label, slide=np.zeros(12), exclude_same_slide=True)
    assert alone[3] == (0, 0, 0, 0)
    lone_slides = metrics.robustness_counts(x, label, np.arange(12) // 4, np.arange(12) // 4, (3,), True)[3]
    assert lone_slides[0] == lone_slides[2] == 0 and sum(lone_slides) == 36
    with pytest.raises(DataError, match="needs to know the slides"):
        metrics.robustness_counts(x, label, label, exclude_same_slide=True)
    with pytest.raises(DataError, match="centre has shape"):
        metrics.robustness_counts(x, label, label[:5])
    x[5] = 0
    with pytest.raises(DataError, match="in rows 5"):
        metrics.robustness_counts(x, label, label)
