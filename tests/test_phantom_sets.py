"""The phantom's small sets: made on first use, read by the loaders of real data, with a truth that is true."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eosin
from eosin.errors import CardError, DataError
from eosin.index import open_index
from eosin.plugins import Catalogue
from eosin_hest.protocols import HestRidge
from eosin_phantom import spots
from eosin_phantom.genes import Expression
from eosin_phantom.sets import REGIONS, SETS
from eosin_phantom.shapes import generator
from eosin_phantom.slide import layout
from helpers import bench


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder in which each set was made by being asked for."""
    data, catalogue = tmp_path_factory.mktemp("data"), Catalogue()
    for name in SETS:
        if name != "phantom-hest":
            open_index(catalogue.datasets.get(name, ""), data, data / "indexes")
    return data


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    """The spots, read by the loader of hest-bench."""
    pytest.importorskip("anndata")
    data = tmp_path_factory.mktemp("spots")
    return data, open_index(Catalogue().datasets.get("phantom-hest", ""), data, data / "indexes").items


def test_bags_are_ill_where_they_hold_tumour(data):
    table = Catalogue().datasets.get("phantom-bags", "").items(data / "phantom-bags")
    slides, first = np.unique(table["slide"], return_index=True)
    assert len(slides) == 40 and len(table) == 160 and table.classes == ("normal", "tumour")
    ill = [int((table["tissue"][table["slide"] == s] == "tumour").sum()) for s in slides]
    assert [n > 0 for n in ill] == table["label"][first].astype(bool).tolist() and set(ill) == {0, 2, 3}
    for part, n in (("train", 20), ("val", 8), ("test", 12)):
        rows = first[table["split"][first] == part]
        assert len(rows) == n and table["label"][rows].sum() == n / 2
    for name in ("group", "split", "label", "centre"):
        assert len(set(zip(table["slide"].tolist(), table[name].tolist(), strict=True))) == 40


def test_masks_number_the_two_tissues_of_an_image(data):
    dataset, root = Catalogue().datasets.get("phantom-regions", ""), data / "phantom-regions"
    table = dataset.items(root)
    assert len(table) == 60 and table.classes == REGIONS and len(set(table["group"].tolist())) == 60
    seen: dict[str, set[int]] = {s: set() for s in ("train", "val", "test")}
    for i, split in enumerate(table["split"].tolist()):
        mask = dataset.mask(root, table, i)
        shares = np.bincount(mask.ravel(), minlength=7) / mask.size
        assert Image.open(root / table["source"][i]).size == mask.shape == (128, 128)
        assert shares[0] == 0 and (shares > 0).sum() == 2 and shares[i % 6 + 1] > 0 and shares[shares > 0].min() > 0.05
        seen[split] |= set(np.unique(mask).tolist())
    assert all(found == set(range(1, 7)) for found in seen.values())


def test_spots_are_read_like_hest_bench(sections):
    data, table = sections
    assert (data / "phantom-hest" / "var_50genes.json").is_file() and not table.warnings
    assert table.target.shape == (len(table), 16) and 120 <= len(table) <= 180
    assert sorted(set(table["fold"].tolist())) == [0, 1, 2, 3, 4] and len(set(table["slide"].tolist())) == 5
    assert len(set(zip(table["slide"].tolist(), table["fold"].tolist(), strict=True))) == 5
    assert np.allclose(np.expm1(table.target), np.round(np.expm1(table.target)), atol=1e-3), "raw counts"


def test_genes_follow_what_a_section_is_made_of(sections):
    """Ridge on each spot's true tissues, drawn again from the seed, finds the genes; on noise it does not."""
    table = sections[1]
    side, shares = spots.SPOT * spots.SPOTS, {}
    for sample in spots.SAMPLES:
        weights = layout(generator(0, "spots", sample), "tumour", 2 * side)
        part = np.stack(list(weights.values()))[:, spots.SPOT :][:, :side, spots.SPOT : spots.SPOT + side]
        means = part.reshape(4, spots.SPOTS, spots.SPOT, spots.SPOTS, spots.SPOT).mean((2, 4))
        shares |= {f"{sample}/{r:03d}x{c:03d}": means[:, r, c] for r in range(spots.SPOTS) for c in range(spots.SPOTS)}
    truth = np.stack([shares[i] for i in table["id"]])
    noise = np.random.default_rng(0).standard_normal(truth.shape)
    found = []
    for X in (truth, noise):
        emb = eosin.Embeddings(X=X.astype(np.float32), id=table["id"], fold=table["fold"], target=table.target)
        found.append(np.mean(HestRidge().score(emb).metrics["pearson"]))
    assert found[0] > 0.4 > 0.15 > abs(found[1])


def test_equal_seeds_give_equal_sections(tmp_path):
    made = []
    for out in (tmp_path / "a", tmp_path / "b"):
        for folder in ("patches", "adata"):
            (out / folder).mkdir(parents=True)
        spots._sample(out, 3, "PH1", "north", Expression(3))
        made.append([p.read_bytes() for p in sorted(out.rglob("PH1.*"))])
    assert made[0] == made[1] and len(made[0]) == 2


def test_what_is_made_is_made_once_and_left_alone(data):
    dataset = Catalogue().datasets.get("phantom-bags", "")
    before = {p: p.stat().st_mtime_ns for p in (data / "phantom-bags").rglob("*")}
    assert dataset.present(data) and not dataset.present(data / "elsewhere")
    open_index(dataset, data, data / "indexes")
    assert dataset.maker.make("phantom-bags", data) == data / "phantom-bags"
    assert before == {p: p.stat().st_mtime_ns for p in (data / "phantom-bags").rglob("*")}


def test_a_maker_that_makes_no_such_dataset(tmp_path):
    rows = "datasets:\n  a: {kind: manifest, made_by: phantom}\n  b: {kind: manifest, made_by: a}\n  c: {kind: phantom, options: {seed: x}}\n"
    (tmp_path / "r.yaml").write_text(rows)
    things = Catalogue([tmp_path / "r.yaml"]).datasets.things
    for name, text in (("a", "phantom makes phantom-hest, phantom-bags, phantom-regions"), ("b", "makes no other")):
        with pytest.raises(CardError, match=text):
            open_index(things[name], tmp_path, tmp_path / "i")
    with pytest.raises(DataError, match="cannot be made"):
        things["c"].make("phantom-bags", tmp_path)


def test_without_anndata_the_next_step_is_said(sections, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    monkeypatch.setenv("EOSIN_HOME", str(tmp_path))
    done = bench("run", "-m", "color-stats", "-b", "phantom-hest", "--data", sections[0])
    assert done.code == 3 and "pip install 'eosin[hest]'" in done.err


def test_a_model_without_a_grid_is_not_applicable_and_fails_nothing(data):
    done = bench("run", "-m", "color-stats", "-b", "phantom-segmentation", "--data", data, "--json")
    assert done.code == 0 and done.json["failed"] == [] and len(done.json["skipped"]) == 1


def test_bags_are_scored_a_slide_and_none_is_left_out(data):
    cheap = ("--option", "runs=1", "--option", "epochs=2", "--data", data, "--json")
    done = bench("run", "-m", "color-stats", "-b", "phantom-bags", *cheap)
    record = json.loads(Path(done.json["records"][0]).read_text())
    assert record["dataset"]["rows"] == 40 and record["dataset"]["left_out"] == 0
    assert record["floor"]["majority"]["balanced_accuracy"] == 0.5


def test_the_list_of_suites_is_narrow_and_whole_in_json():
    shown, rows = bench("list", "suites").out, bench("list", "suites", "--json").json["suites"]
    of = {r["suite"]: r["benchmarks"] for r in rows}
    assert of["phantom"][-1] == "phantom-segmentation" and "6: phantom-knn phantom-linear phantom-ridge …" in shown
    assert "phantom-segmentation" in bench("show", "phantom").out and set(of["phantom"]) <= set(of["all"])
