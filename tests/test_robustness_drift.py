"""View drift: extremes, curves, and a row of one's own through `bench run`; the views that it knows."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from eosin import Embeddings
from eosin.errors import DataError, UsageError
from eosin.plugins import Catalogue
from eosin.views import view
from helpers import bench, make_tiles

VIEWS = "jpeg-80,jpeg-30,rot90"


def score(named, **options):
    return Catalogue().protocol("drift@1").score(named, **options)


def made(moves, n=120, classes=3, d=12, seed=0):
    """The original and views that are moved by noise of these sizes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = 2 * rng.standard_normal((classes, d))[y] + rng.standard_normal((n, d))
    ids = np.array([f"t{i}" for i in range(n)])
    base = Embeddings(X=X.astype(np.float32), id=ids, y=y, group=np.array([f"p{i // 3 % 8}" for i in range(n)]))
    noise = {
        name: replace(base, X=(X + s * rng.standard_normal((n, d))).astype(np.float32)) for name, s in moves.items()
    }
    return {"original": base, **noise}


def test_extremes():
    still = score(made({"rot90": 0}), views="rot90")
    assert still.metrics["cosine"] == pytest.approx(1) and still.metrics["top1"] == 1
    assert set(still.metrics["drop"]) == {0.0} and any("not one embedding moved" in n for n in still.notes)
    lost = score(made({"rot90": 1000}), views="rot90")
    assert lost.metrics["cosine"] < 0.3 and lost.metrics["top1"] < 0.1 and np.mean(lost.metrics["drop"]) > 0.3
    gone = {k: replace(e, X=np.ones_like(e.X)) for k, e in made({"rot90": 0}).items()}
    assert score(gone, views="rot90").metrics["top1"] == 0  # a collapsed model retrieves nothing


def test_a_curve_over_strength():
    found = score(made({"jpeg-80": 0.2, "jpeg-30": 1.5, "rot90": 0.1}), views=VIEWS)
    curve = found.details["curves"]["jpeg"]
    assert curve["strength"] == [30, 80] and list(found.details["curves"]) == ["jpeg"]
    for name in ("cosine", "top1"):
        assert curve[name][0] < curve[name][1]
    assert curve["drop"][0] > curve["drop"][1]
    assert found.details["view"].tolist() == VIEWS.split(",")
    assert len(found.metrics["drop"]) == 5 and np.mean(found.metrics["drop"]) == pytest.approx(
        found.details["drop"].mean()
    )


def test_tiles_of_a_draw_and_no_labels():
    named = made({"rot90": 0.5})
    few = score(named, views="rot90", tiles=30)
    assert few.metrics["top1"] > score(named, views="rot90").metrics["top1"] and any(
        "30 tiles of 120" in n for n in few.notes
    )
    bare = score({k: replace(e, y=None) for k, e in named.items()}, views="rot90")
    assert np.isnan(bare.metrics["drop"]).all() and np.isfinite(bare.metrics["cosine"])


def test_what_does_not_fit_is_said():
    named = made({"rot90": 0.5})
    with pytest.raises(UsageError, match="set in its row"):
        score(named, views="rot180")
    with pytest.raises(UsageError, match="no view called"):
        score(named, views="jpg-80")
    with pytest.raises(DataError, match="other tiles"):
        score({**named, "rot90": replace(named["rot90"], id=named["rot90"].id[::-1])}, views="rot90")
    with pytest.raises(DataError, match="X2"):
        score(named["original"])


def test_a_row_of_ones_own(tmp_path):
    make_tiles(tmp_path / "data" / "tissue", n=24, size=32)
    (tmp_path / "own.yaml").write_text(
        "datasets: {tissue: {kind: manifest, mpp: 1.0}}\n"
        f"benchmarks: {{drift-mine: {{kind: drift, dataset: tissue, metric: top1, options: {{views: '{VIEWS}', folds: 2}}}}}}\n"
    )
    where = ("--registry", tmp_path / "own.yaml", "--data", tmp_path / "data", "--store", tmp_path / "s")
    done = bench(
        "run", "--model", "color-stats", "--benchmark", "drift-mine", *where, "--results", tmp_path / "r", "--json"
    )
    assert done.code == 0, done.err
    (path,) = (tmp_path / "r").rglob("drift-mine*.json")
    record = json.loads(path.read_text())
    assert record["details"]["view"] == VIEWS.split(",") and set(record["readout"]) == {"original", *VIEWS.split(",")}
    by = dict(zip(record["details"]["view"], record["details"]["cosine"], strict=True))
    assert by["rot90"] == pytest.approx(1, abs=1e-4) and by["jpeg-30"] < by["jpeg-80"] < 1  # colour does not turn
    assert record["protocol"]["options"]["views"] == VIEWS and json.loads(done.out)["embedded"] == 4 * 24
    ids = [line.split(",")[0] for line in (tmp_path / "data" / "tissue" / "tiles.csv").read_text().splitlines()[1:]]
    (tmp_path / "given").mkdir()
    np.savez(tmp_path / "given" / "tissue.npz", id=np.array(ids), X=np.eye(24, dtype=np.float32))
    given = bench("run", "--model", f"precomputed:{tmp_path / 'given'}", "--benchmark", "drift-mine", *where)
    assert "is another view" in given.out + given.err and "0 records" not in given.out


def test_scanner_and_stain_views():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    see = lambda name: np.asarray(view(name)(image)).astype(int)  # noqa: E731
    plain = np.asarray(image).astype(int)
    assert (see("scanner-0") == plain).all()
    assert 0 < np.abs(see("scanner-0.5") - plain).mean() < np.abs(see("scanner-1") - plain).mean()
    white = Image.new("RGB", (4, 4), (255, 255, 255))
    for name in ("scanner-1", "scanner--1", "stain-shift-0.3", "stain-shift--0.3"):
        assert (np.asarray(view(name)(white)) == 255).all(), name
    with pytest.raises(UsageError, match="between -2 and 2"):
        view("scanner-9")
