"""The robustness index: golden cases through the protocols, extremes, chance, sampling, and what is odd."""

import json

import numpy as np
import pytest

from eosin import Embeddings
from eosin.errors import DataError, UsageError
from eosin.plugins import Catalogue
from eosin.similarity import neighbour_types
from helpers import bench

G2L, PATHOROB = "robustness-index-g2l@1", "robustness-index-pathorob@1"
KEPT, OUT = "same slide kept", "same slide left out"


def protocol(name=G2L):
    return Catalogue().protocol(name)


def rows(X, y, centre, slide=None):
    as_text = lambda v: None if v is None else np.asarray(v).astype(str)  # noqa: E731
    ids = np.array([f"t{i}" for i in range(len(X))])
    return Embeddings(
        X=np.asarray(X, np.float32), id=ids, y=np.asarray(y), centre=as_text(centre), slide=as_text(slide)
    )


def made(rng, of_class=1.0, of_centre=1.0, n=240, classes=3, centres=4, slides=2, d=24, noise=1.0):
    """Embeddings that hold so much of the class and so much of the centre, and their Embeddings."""
    y, centre = np.arange(n) % classes, np.arange(n) // classes % centres
    slide = centre * slides + np.arange(n) // (classes * centres) % slides
    content = of_class * rng.standard_normal((classes, d))[y] + of_centre * rng.standard_normal((centres, d))[centre]
    return rows(content + noise * rng.standard_normal((n, d)), y, centre, slide)


@pytest.mark.parametrize("case", ["ri-01", "ri-02", "ri-03", "ri-04"])
def test_golden(shared, case):
    given = np.load(shared("golden", case) / "input.npz")
    expected = json.loads((shared("golden", case) / "expected.json").read_text())
    emb = rows(given["x"], given["bio"], given["centre"], given["slide"])
    found = protocol().score(emb, ks="3,5,10,20,50", sampling="all", folds=1).details
    own = {KEPT: expected["own_float64_not_excluded"], OUT: expected["own_float64_slide_excluded"]}
    per_query = "mean_of_per_query_ratio_over_queries_with_same_centre_neighbour"
    for rule, cases in own.items():
        for k in ("3", "5", "10", "20", "50"):
            got, want = found[rule][k], cases[k]
            assert [got[c][0] for c in ("SS", "SO", "OS", "OO")] == [want[c] for c in ("SS", "SO", "OS", "OO")], (
                rule,
                k,
            )
            for name, key in (("D1", "D1"), ("D3", "D3"), ("D1 per query", per_query)):
                if isinstance(want[key], float) and np.isfinite(want[key]) and want[key] < 1e300:  # that is x / 0
                    assert got[name][0] == pytest.approx(want[key], abs=1e-9), (rule, k, name)
                else:
                    assert not np.isfinite(got[name][0]), (rule, k, name)


def test_golden_headline_of_pathorob(shared):
    given = np.load(shared("golden", "ri-01") / "input.npz")
    expected = json.loads((shared("golden", "ri-01") / "expected.json").read_text())["pathorob_slide_excluded"]
    emb = rows(given["x"], given["bio"], given["centre"], given["slide"])
    scores = protocol(PATHOROB).score(emb, ks="10", k=10)
    assert scores.metrics["robustness_index"] == [pytest.approx(expected["10"]["RI_D3"], abs=1e-12)]
    assert scores.metrics["D1"] == [pytest.approx(expected["10"]["bio_vs_confounding_D1"], abs=1e-12)]


def test_extremes():
    rng = np.random.default_rng(0)
    pure_centre = protocol().score(made(rng, 0, 9), k=5, ks="5", sampling="all").metrics
    pure_class = protocol().score(made(rng, 9, 0), k=5, ks="5", sampling="all").metrics
    assert pure_centre["D3"] == [0] and pure_class["D3"] == [1]
    assert pure_centre["D1"][0] < 0.4 and pure_class["D1"][0] > 2.5


def test_it_falls_as_the_centre_gets_louder():
    index = [protocol().score(made(np.random.default_rng(1), 1, s), sampling="all").metrics for s in (0, 0.5, 1, 2)]
    for name in ("D1", "D3", "over_chance"):
        values = [m[name][0] for m in index]
        assert values == sorted(values, reverse=True) and values[0] > values[-1]


def test_chance_is_what_random_features_reach():
    rng, found = np.random.default_rng(2), []
    emb = made(rng, n=420, classes=5, centres=7, slides=2)
    for _ in range(8):
        noise = rows(rng.standard_normal((420, 16)), emb.y, emb.centre, emb.slide)
        found.append(protocol().score(noise, sampling="all", exclude_same_slide=True).details)
    for rule in (KEPT, OUT):
        for d in ("D1", "D3"):
            assert np.mean([f[rule]["20"][f"{d} / chance"][0] for f in found]) == pytest.approx(1, abs=0.05)
    assert found[0][KEPT]["20"]["D1 chance"][0] == pytest.approx((83 / 419) / (59 / 419))


def test_facts_of_tiger_at_chance():
    """Five balanced classes and 21 balanced centres: 4.2, as the facts say."""
    y, centre = np.arange(4200) % 5, np.arange(4200) // 5 % 21
    from eosin_robustness.sampling import by_chance

    ss, so, os, _ = by_chance(y, centre, np.arange(4200), 10).sum(0)
    assert (ss + so) / (ss + os) == pytest.approx(4.2, abs=0.02)


def test_sampling():
    from eosin_robustness.sampling import draw

    rng = np.random.default_rng(3)
    y, centre = rng.integers(0, 5, 3000), rng.choice(6, 3000, p=[0.5, 0.3, 0.1, 0.05, 0.04, 0.01])
    few = draw(y, centre, "200", 40, "centre", 0)
    assert (np.bincount(y[few]) == 40).all()
    table = np.stack([np.bincount(centre[few][y[few] == c], minlength=6) for c in range(5)])
    full = np.stack([np.bincount(centre[y == c], minlength=6) for c in range(5)])
    assert ((table >= 6) | (table == full)).all()  # 40 over 6 centres, as evenly as there are patches
    each = draw(y, centre, "4200", 40, "centre", 0)
    assert (
        np.stack([np.bincount(centre[each][y[each] == c], minlength=6) for c in range(5)]) == np.minimum(full, 40)
    ).all()
    assert (draw(y, centre, "200", 40, "none", 1) != draw(y, centre, "200", 40, "none", 2)).any()
    assert (draw(y, centre, "200", 40, "none", 1) == draw(y, centre, "200", 40, "none", 1)).all()


def test_folds_and_the_record_of_them():
    emb = made(np.random.default_rng(4), n=480)
    five = protocol().score(emb, per=20)
    assert (
        len(five.metrics["robustness_index@3"]) == 5
        and five.metrics["robustness_index"] == five.metrics["robustness_index@10"]
    )
    assert np.array(five.details["class x centre"]).sum() == 60
    parts = protocol().score(emb, sampling="all", fold="queries")
    whole = protocol().score(emb, sampling="all")
    for kind in ("SS", "SO", "OS", "OO"):
        assert parts.details[KEPT]["10"][kind].sum() == whole.details[KEPT]["10"][kind][0]
    assert len(whole.metrics["D1"]) == 1 and any("one fold" in n for n in whole.notes)
    low, high = whole.details["interval"]["10"]
    assert low < whole.metrics["robustness_index"][0] < high


def test_order_of_rows_and_ties_do_not_matter():
    rng = np.random.default_rng(5)
    emb = made(rng)
    X = emb.X.copy()
    X[::3] = X[0]  # duplicates across classes and centres
    tied = rows(X, emb.y, emb.centre, emb.slide)
    order = rng.permutation(len(X))
    a, b = (protocol().score(e, sampling="all", folds=1).details for e in (tied, tied[order]))
    for k in ("3", "20"):
        for kind in ("SS", "SO", "OS", "OO"):
            assert a[OUT][k][kind][0] == pytest.approx(b[OUT][k][kind][0], abs=1e-9)
    same = protocol().score(rows(np.ones((60, 4)), np.arange(60) % 3, np.arange(60) // 3 % 4), sampling="all")
    assert same.metrics["over_chance"] == [pytest.approx(1)]  # a collapsed model is at chance


def test_distance():
    """Euclidean is the plain definition; with unit rows it orders as cosine does."""
    rng = np.random.default_rng(6)
    emb = made(rng, n=90)
    X = emb.X.astype(float) * rng.uniform(0.2, 3, (90, 1)) + 100
    far = ((X[:, None] - X) ** 2).sum(2)
    np.fill_diagonal(far, np.inf)
    want = np.zeros((90, 4))
    for i, near in enumerate(far.argsort(1)[:, :5]):
        np.add.at(want[i], 2 * (emb.y[i] != emb.y[near]) + (emb.centre[i] != emb.centre[near]), 1)
    assert (neighbour_types(X, emb.y, emb.centre, ks=(5,), distance="euclidean")[5] == want).all()
    unit = emb.X / np.linalg.norm(emb.X, axis=1, keepdims=True)
    by = [neighbour_types(unit, emb.y, emb.centre, ks=(5,), distance=d)[5] for d in ("cosine", "euclidean")]
    assert (by[0] == by[1]).all()


def test_one_centre_and_a_centre_of_one_slide():
    rng = np.random.default_rng(7)
    emb = made(rng)
    alone = protocol().score(rows(emb.X, emb.y, np.zeros(len(emb), int), emb.slide), sampling="all")
    assert alone.metrics["D1"][0] <= 1 and np.isnan(alone.metrics["D3"][0])
    assert any("one centre only" in n for n in alone.notes)
    single = protocol().score(rows(emb.X, emb.y, emb.centre, emb.centre), sampling="all", exclude_same_slide=True)
    assert np.isnan(single.metrics["D1"][0]) and single.metrics["D3"] == [1]
    assert any("one slide only" in n for n in single.notes)


def test_a_class_absent_from_a_centre_is_scored():
    emb = made(np.random.default_rng(8))
    keep = ~((emb.y == 0) & (emb.centre == "1"))
    scores = protocol().score(emb[keep], sampling="4200", per=10, folds=2)
    assert np.isfinite(scores.metrics["robustness_index"]).all()
    assert scores.details["class x centre"][0, 1] == 0 and any("fewer than 10" in n for n in scores.notes)


def test_paired_design():
    emb = made(np.random.default_rng(9), n=240)
    paired = protocol(PATHOROB).score(emb, design="paired", ks="5", k=5).details[OUT]["5"]
    want = np.zeros(4)
    for a in range(3):
        for b in range(a + 1, 3):
            for c in range(4):
                for d in range(c + 1, 4):
                    part = emb[np.isin(emb.y, (a, b)) & np.isin(emb.centre, (str(c), str(d)))]
                    want += neighbour_types(part.X, part.y, part.centre, part.slide, (5,), True)[5].sum(0)
    assert [paired[k][0] for k in ("SS", "SO", "OS", "OO")] == want.tolist()


def test_what_cannot_be_scored_is_said():
    emb = made(np.random.default_rng(10))
    zero = emb.X.copy()
    zero[[3, 7]] = 0
    bare = rows(emb.X, emb.y, emb.centre)
    for bad, options, text in (
        (rows(zero, emb.y, emb.centre), {"sampling": "all"}, "t3, t7"),
        (bare, {"exclude_same_slide": True}, "column `slide`"),
        (Embeddings(X=emb.X, id=emb.id, y=emb.y), {}, "no centres"),
        (Embeddings(X=emb.X, id=emb.id, centre=emb.centre), {}, "no labels"),
    ):
        with pytest.raises(DataError, match=text):
            protocol().score(bad, **options)
    with pytest.raises(UsageError, match="whole numbers"):
        protocol().score(bare, ks="3;5")
    assert OUT not in protocol().score(bare).details


def test_through_bench_score(tmp_path):
    emb = made(np.random.default_rng(11))
    np.savez(tmp_path / "f.npz", X=emb.X, y=emb.y, centre=emb.centre, slide=emb.slide)
    done = bench("score", "--protocol", G2L, "--embeddings", tmp_path / "f.npz", "--option", "per=15", "--json").json
    assert len(done["scores"]["robustness_index@10"]["values"]) == 5


def test_the_strength_of_a_miniature_tiger(tmp_path):
    """The farther laboratories are apart in the same tissue, the lower the indices and the better the centre is read."""
    from eosin import DatasetCard
    from eosin.tiles import Reader
    from eosin_phantom.twins_robustness import tiger
    from eosin_robustness.tiger import Tiger

    found = []
    for strength in (0, 3):
        root = tmp_path / str(strength)
        tiger(root, 1, strength, cell=32, slides=3)
        table = Tiger(DatasetCard("tiger", kind="tiger", options={"patch": 16})).items(root)
        reader = Reader(root, table)
        pixels = np.stack([np.asarray(reader.read(i), float).reshape(-1, 3) for i in range(len(table))])
        colour = np.concatenate([pixels.mean(1), pixels.std(1)], axis=1)
        emb = rows((colour - colour.mean(0)) / colour.std(0), table["label"], table["centre"], table["slide"])
        of = protocol().score(emb, sampling="all", exclude_same_slide=True, k=5, ks="5").metrics
        audit = protocol("centre-audit@1").score(emb, folds=3).metrics
        found.append((of["D1"][0], of["D3"][0], -np.mean(audit["centre_linear"])))
    for values in zip(*found, strict=True):
        assert values[0] > values[1]
