"""PLISM's protocols: golden cases, groups and medians, what is kept, tiles that lack, and the arithmetic of float16."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest

import eosin
from eosin import metrics, stats
from eosin.errors import DataError, UsageError
from eosin.plugins import Catalogue
from eosin_robustness import dense, pairs
from eosin_robustness.triples import over_models, triples
from helpers import bench

KS = (1, 3, 5, 10)
PAPER, LEADERBOARD = (Catalogue().protocol(n) for n in ("plism-paper@1", "plism-leaderboard@1"))


def golden(shared, name):
    folder = shared("golden", name)
    return np.load(folder / "input.npz"), json.loads((folder / "expected.json").read_text())


def embeddings(slides, **extra):
    """{(stain, scanner): (n, d)} as a protocol gets them."""
    sizes = [len(X) for X in slides.values()]
    table = {
        "stain": np.repeat([s for s, _ in slides], sizes),
        "scanner": np.repeat([c for _, c in slides], sizes),
        "tile": np.concatenate([[f"t{i}" for i in range(n)] for n in sizes]),
    }
    ids = np.array([f"{s}/{c}/{t}" for s, c, t in zip(*table.values(), strict=True)])
    return eosin.Embeddings(np.concatenate(list(slides.values())), ids, table=table, **extra)


def made(stains=("GM", "GMH", "KR"), scanners=("P", "S60"), n=40, d=24, noise=0.6, seed=0):
    rng = np.random.default_rng(seed)
    content = rng.standard_normal((n, d))
    shift = {s: rng.standard_normal(d) for s in (*stains, *scanners)}
    return {
        (s, c): (content + noise * (shift[s] + rng.standard_normal((n, d))) + shift[c] / 4).astype(np.float32)
        for s in stains
        for c in scanners
    }


@pytest.mark.parametrize("number", range(1, 9))
def test_golden_pairs_through_the_protocol(shared, number):
    given, expected = golden(shared, f"plism-{number:02d}")
    emb = embeddings({("GM", "P"): given["a"], ("KR", "P"): given["b"]})
    got, paper = PAPER.score(emb, stainings="all").metrics, expected["paper_float64"]
    assert got["cosine"] == pytest.approx(paper["cosine_mean"], abs=1e-9)
    assert [got[f"top{k}"] for k in KS] == pytest.approx([paper["ge"][f"top{k}"] for k in KS], abs=1e-12)
    assert got["top1_inter_staining"] == got["top1"] and np.isnan(got["top1_both"])
    if number == 6:
        return  # float16 overflows: nothing is defined
    half, peer = PAPER.score(emb, stainings="all", precision="float16").metrics, expected["peer_float16"]
    assert half["cosine"] == pytest.approx(peer["cosine"], abs=1e-3)
    assert [half[f"top{k}"] for k in KS] == pytest.approx([peer[f"top{k}"] for k in KS], abs=0.012)


def test_golden_overflow_of_float16_is_no_hit(shared):
    given, expected = golden(shared, "plism-06")
    emb = embeddings({("GM", "P"): given["a"], ("KR", "P"): given["b"]})
    half = PAPER.score(emb, stainings="all", precision="float16").metrics
    assert np.isnan(half["cosine"]) and expected["peer_float16"]["cosine"] == "NaN"
    assert [half[f"top{k}"] for k in KS] == [expected["peer_float16"][f"top{k}"] for k in KS] == [0, 0, 0, 0]


def test_golden_slides_and_their_groups(shared):
    given, expected = golden(shared, "plism-09")
    slide = np.repeat(list(given), [len(given[s]) for s in given])
    tile = np.tile(np.arange(200), len(given))
    order = np.random.default_rng(0).permutation(len(slide))  # neither slides nor tiles come in order
    X = np.concatenate([given[s] for s in given])[order]
    emb = eosin.Embeddings(X, order.astype(str), slide=slide[order], table={"tile": tile[order]})
    found = PAPER.score(emb, stainings="all")
    got = {tuple(p): i for i, p in enumerate(zip(*(found.details["pairs"][s].tolist() for s in "ab"), strict=True))}
    for pair in expected["paper_float64"]["pairs"]:
        i = got[pair["slide_a"], pair["slide_b"]]
        assert found.details["pairs"]["cosine"][i] == pytest.approx(pair["cosine"], abs=1e-9)
        assert [found.details["pairs"][f"top{k}"][i] for k in KS] == pytest.approx([pair[f"top{k}"] for k in KS])
    assert {g: found.details["groups"][f"cosine{s}"]["pairs"] for g, s in NAMES.items()} == {
        "all": 15, "inter-scanner": 6, "inter-staining": 3, "both": 6,
    }  # fmt: skip


NAMES = {"all": "", "inter-scanner": "_inter_scanner", "inter-staining": "_inter_staining", "both": "_both"}


def test_medians_are_those_of_the_pairs():
    slides = made()
    emb = embeddings(slides)
    found = LEADERBOARD.score(emb)
    one = {(a, b): metrics.plism_pair(slides[a], slides[b]) for a, b in combinations(sorted(slides), 2)}
    kinds = {
        "": lambda a, b: True,
        "_inter_scanner": lambda a, b: a[0] == b[0],
        "_inter_staining": lambda a, b: a[1] == b[1],
    }
    for suffix, of in kinds.items():
        for m in ("cosine", "top1", "top10"):
            assert found.metrics[m + suffix] == pytest.approx(np.median([v[m] for p, v in one.items() if of(*p)]))
    parts = [found.metrics[m] for m in ("cosine", "top10_inter_scanner", "top10_inter_staining", "top10_both")]
    assert found.metrics["score"] == pytest.approx(np.mean(parts))
    values = [v["top5"] for v in one.values()]
    summary = found.details["groups"]["top5"]
    assert summary["iqr"] == pytest.approx(np.quantile(values, 0.75) - np.quantile(values, 0.25))
    assert summary["low"] <= summary["median"] <= summary["high"]
    assert found.details["n_tiles"] == 40 and "8,139" in found.notes[0]


def test_stainings_must_be_named_and_be_there():
    emb = embeddings(made())
    with pytest.raises(UsageError, match="does not name them.*GM, GMH, KR"):
        PAPER.score(emb)
    with pytest.raises(UsageError, match="HR not in these data. Here are: GM, GMH, KR"):
        PAPER.score(emb, stainings="GM,HR")
    some = PAPER.score(emb, stainings="GM,KR", scanners="P")
    assert some.details["slides"] == ["GM_P", "KR_P"]
    assert PAPER.score(emb, stainings=["GM", "KR"], scanners=["P"]).metrics["top1"] == some.metrics["top1"]


def test_the_first_tiles_only():
    slides = made()
    few = PAPER.score(embeddings({s: X[:15] for s, X in slides.items()}), stainings="all")
    first = PAPER.score(embeddings(slides), stainings="all", n_tiles=15)
    assert first.metrics == pytest.approx(few.metrics) and first.details["n_tiles"] == 15
    assert "first 15 of 40" in first.notes[0]
    with pytest.raises(UsageError, match="n_tiles=-1"):
        PAPER.score(embeddings(slides), stainings="all", n_tiles=-1)
    with pytest.raises(UsageError, match="ks=0"):
        PAPER.score(embeddings(slides), stainings="all", ks="0")


def test_slides_that_lack_tiles_are_named():
    emb = embeddings(made())
    keep = ~np.isin(emb.id, ["GM/P/t3", "KR/S60/t7", "KR/S60/t8"])
    with pytest.raises(DataError, match=r"2 of 6 slides lack tiles.*GM_P \(1, such as t3\), KR_S60 \(2, such as t7\)"):
        PAPER.score(emb[keep], stainings="all")
    twice = {**emb.table, "tile": np.where(emb.table["tile"] == "t5", "t4", emb.table["tile"])}
    with pytest.raises(DataError, match="t4 more than once"):
        PAPER.score(eosin.Embeddings(emb.X, emb.id, table=twice), stainings="all")
    with pytest.raises(DataError, match="two"):
        PAPER.score(emb, stainings="GM", scanners="P")


def test_zero_embeddings_name_their_tiles():
    slides = made()
    slides["GMH", "P"][[4, 9]] = 0
    with pytest.raises(DataError, match="Slide GMH_P: 2 embeddings are all zeros.*GMH/P/t4, GMH/P/t9"):
        PAPER.score(embeddings(slides), stainings="all")


def test_a_pair_is_computed_once(tmp_path, monkeypatch):
    slides, count = made(), []
    monkeypatch.setattr(pairs, "engine", lambda *a: Counting(count, *a))
    whole = PAPER.score(embeddings(slides, scratch=tmp_path), stainings="all").metrics
    assert len(count) == 15 + 6  # pairs, and slides
    kept = tmp_path / pairs.KEPT
    assert (
        PAPER.score(embeddings(slides, scratch=tmp_path), stainings="GM,KR").metrics["top1"] >= 0 and len(count) == 21
    )
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join(lines[:-3]) + lines[-1][: len(lines[-1]) // 2])  # a killed run
    again = PAPER.score(embeddings(slides, scratch=tmp_path), stainings="all").metrics
    assert again == whole and len(count) == 21 + 2 + 3
    PAPER.score(embeddings(slides, scratch=tmp_path), stainings="all")
    assert len(count) == 26, "and the line that was cut does not hurt what follows"
    PAPER.score(embeddings(slides, scratch=tmp_path), stainings="all", n_tiles=20)
    PAPER.score(embeddings(slides, scratch=tmp_path), stainings="all", precision="float16")
    assert len(count) == 26 + 21 + 21, "another question has another key"


class Counting(dense.Dense):
    """Knows how many slides and pairs it computed; holds `held` slides and computes two pairs at once."""

    def __init__(self, count, ks, precision, work, held=6):
        super().__init__(ks, precision)
        self.count, self.held = count, held

    def room(self, shape):
        return self.held, 2

    def within(self, slide):
        self.count.append("slide")
        return super().within(slide)

    def pairs(self, a, others):
        self.count += ["pair"] * len(others)
        return super().pairs(a, others)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_pairs_at_once_are_pairs_one_by_one(precision, monkeypatch):
    emb = embeddings(made())
    one = PAPER.score(emb, stainings="all", precision=precision).details["pairs"]
    for held in (3, 100):
        monkeypatch.setattr(pairs, "engine", lambda *a, held=held: Counting([], *a, held))
        several = PAPER.score(emb, stainings="all", precision=precision).details["pairs"]
        for name, values in one.items():
            assert values.tolist() == pytest.approx(several[name].tolist(), abs=1e-7), name


def pair(how, *slides):
    """One pair, as the driver asks for it."""
    a, b = ((slide, how.within(slide)) for slide in map(how.slide, slides))
    return how.pairs(a, [b])[0]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_dense_does_not_depend_on_blocks_or_library(precision, monkeypatch):
    a, b = made(stains=("GM",), n=97).values()
    a[10:15] = a[:5]  # duplicates tie
    found = []
    for device, cells in (("cpu", 2**21), ("cpu", 500), ("torch", 1000)):
        how = dense.Dense(KS, precision, "cpu")
        monkeypatch.setitem(dense.CELLS, "cpu", cells)
        if device == "torch":
            import torch

            monkeypatch.setattr(how, "_put", torch.from_numpy)
        found.append(pair(how, a, b))
    assert found[1] == pytest.approx(found[0], abs=1e-12) and found[2] == pytest.approx(found[0], abs=1e-12)
    if precision == "float32":
        assert found[0] == pytest.approx(metrics.plism_pair(a, b), abs=1e-9)


def test_float16_is_plism_benchmarks_arithmetic():
    """Sorted whole, the first left out unseen, the match looked for in the next k."""
    a, b = (X + 9 for X in made(stains=("GM",), n=60, noise=0.1).values())
    x = np.concatenate([a, b]).astype(np.float16)
    norm = np.linalg.norm(x, axis=1)
    dots = (x.astype(np.float64) @ x.astype(np.float64).T).astype(np.float16)
    order = np.argsort(-(dots / (norm[:, None] * norm[None])), axis=1, kind="stable")
    match = np.concatenate([np.arange(60, 120), np.arange(60)])[:, None]
    how = dense.Dense(KS, "float16")
    got = pair(how, a, b)
    for k in KS:
        assert got[f"top{k}"] == pytest.approx((order[:, 1 : k + 1] == match).any(1).mean())
    assert got["top1"] < metrics.plism_pair(a, b)["top1"], "so near that float16 cannot tell them apart"


def test_extremes():
    X = made(stains=("GM",), scanners=("P",)).popitem()[1]
    same = {("GM", "P"): X, ("GM", "S60"): X, ("KR", "P"): X}
    assert all(
        PAPER.score(embeddings(same), stainings="all").metrics[m] == pytest.approx(1) for m in ("cosine", "top1")
    )
    flat = {s: np.ones_like(X) for s in same}
    collapsed = PAPER.score(embeddings(flat), stainings="all").metrics
    assert collapsed["cosine"] == pytest.approx(1) and collapsed["top10"] == 0
    stained = {("GM", "P"): X * 0 + np.eye(24)[0], ("KR", "P"): X * 0 + np.eye(24)[1]}
    assert PAPER.score(embeddings(stained), stainings="all").metrics["cosine"] == 0


def test_jackknife_of_a_mean_is_its_standard_error():
    from scipy.stats import t

    v = np.random.default_rng(0).standard_normal(30)
    half = t.ppf(0.975, 29) * v.std(ddof=1) / np.sqrt(30)
    low, high = stats.jackknife(lambda keep: v[keep].mean(), np.arange(30)[:, None])
    assert (low, high) == pytest.approx((v.mean() - half, v.mean() + half))
    assert np.isnan(stats.jackknife(lambda keep: v[:2][keep].mean(), np.arange(2)[:, None])).all()


def test_jackknife_knows_that_pairs_share_slides():
    """The mean over pairs of what slides bring varies as the slides do, not as so many pairs."""
    rng = np.random.default_rng(1)
    ends = np.array(list(combinations(range(15), 2)))
    means, widths = [], []
    for _ in range(200):
        v = rng.standard_normal(15)[ends].mean(1)
        low, high = stats.jackknife(lambda keep, v=v: v[keep].mean(), ends)
        means.append(v.mean())
        widths.append((high - low) / 2 / 2.145)
    assert np.mean(widths) == pytest.approx(np.std(means), rel=0.2)


def test_the_triple_that_was_published_is_found(tmp_path):
    stains = ("GM", "GMH", "HR", "KR")
    slides = made(stains=stains, n=30)
    found = PAPER.score(embeddings(slides), stainings="all").details
    three = PAPER.score(embeddings(slides), stainings="GM,HR,KR")
    truth = [(three.metrics[m], three.details["groups"][m]["iqr"]) for m in ("cosine", "top1", "top5")]
    rows = triples(found["pairs"], found["stains"], truth)
    assert len(rows) == 4 and rows[0]["stainings"] == ["GM", "HR", "KR"] and rows[0]["distance"] == pytest.approx(0)
    assert rows[0]["top1"] == pytest.approx(truth[1])
    plain = {k: v.tolist() for k, v in found["pairs"].items()}
    record = tmp_path / "r.json"
    record.write_text(json.dumps({"model": {"name": "uni"}, "details": {"pairs": plain, "stains": found["stains"]}}))
    ranked, models, passed = over_models([record], {"uni": truth})
    assert ranked[0]["stainings"] == ["GM", "HR", "KR"] and models == ["uni"] and not passed
    fewer, other = tmp_path / "fewer.json", tmp_path / "other.json"
    less = PAPER.score(embeddings(slides), stainings="GM,HR,KR").details
    pairs_of = {k: v.tolist() for k, v in less["pairs"].items()}
    fewer.write_text(json.dumps({"model": {"name": "uni"}, "details": {"pairs": pairs_of, "stains": less["stains"]}}))
    other.write_text(record.read_text().replace('"uni"', '"color-stats"'))
    for order in ([record, fewer, other], [other, fewer, record]):
        again, models, passed = over_models(order, {"uni": truth})
        assert again == ranked and models == ["uni"] and len(passed) == 2
    other.write_text(fewer.read_text().replace('"uni"', '"conch"'))
    with pytest.raises(DataError, match="different slides or tiles"):
        over_models([record, other], {"uni": truth, "conch": truth})
    shown = bench("plism-triples", record, "--json")
    assert shown.code == 0 and len(shown.json["triples"]) == 4
    assert "nearest first" in bench("plism-triples", record).out
    record.write_text("{}")
    with pytest.raises(DataError, match="no record of a PLISM protocol"):
        over_models([record])


def test_shares_have_intervals_of_shares_and_missing_tiles_are_said():
    emb = embeddings(made(noise=9))
    found = PAPER.score(emb, stainings="all")
    assert all(0 <= g["low"] <= g["high"] <= 1 for m, g in found.details["groups"].items() if "low" in g and "top" in m)
    bare = {k: v for k, v in emb.table.items() if k != "tile"}
    blind = PAPER.score(eosin.Embeddings(emb.X, emb.id, table=bare), stainings="all")
    assert any("No column `tile`" in n for n in blind.notes) and not any("No column" in n for n in found.notes)


def test_score_of_a_file(tmp_path):
    emb = embeddings(made())
    np.savez(tmp_path / "e.npz", X=emb.X, **emb.table)
    done = bench("score", "--protocol", "plism-leaderboard@1", "--embeddings", tmp_path / "e.npz", "--json")
    assert done.code == 0 and done.json["scores"]["score"]["mean"] == pytest.approx(
        LEADERBOARD.score(emb).metrics["score"]
    )
    done = bench("score", "--protocol", "plism-paper@1", "--embeddings", tmp_path / "e.npz", "--json")
    assert done.code == 2 and "GM, GMH, KR" in done.err
