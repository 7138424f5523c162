"""HEST-Benchmark's tree: folds as shipped, spots matched by barcode, and every way in which a download is odd."""

from __future__ import annotations

import csv
import json

import h5py
import numpy as np
import pytest

import eosin
from eosin.errors import CardError, DataError, MissingError
from eosin_hest.bench import FOLDERS, HestBench
from eosin_hest.protocols import HestRidge
from helpers import bench

anndata = pytest.importorskip("anndata")
GENES = [f"G{j}" for j in range(5)]


def write_sample(task, sample, n=6, barcodes=None, fixed=False, sparse=True, genes=None, counts=None):
    """A patch file and an .h5ad whose rows are shuffled and two more than the patches; the counts (n, 5) of the patches."""
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(sum(map(ord, sample)))
    names = barcodes or [f"{sample}-{i:03d}" for i in range(n)]
    counts = rng.poisson(3.0, (n, 5)) if counts is None else counts
    (task / "patches").mkdir(parents=True, exist_ok=True)
    (task / "adata").mkdir(exist_ok=True)
    with h5py.File(task / "patches" / f"{sample}.h5", "w") as file:
        file["img"] = rng.integers(0, 255, (n, 8, 8, 3), dtype=np.uint8)
        file["coords"] = np.zeros((n, 2), int)
        if fixed:
            file["barcode"] = np.array(names, "S12")
        else:
            file.create_dataset("barcode", data=np.array(names, object)[:, None], dtype=h5py.string_dtype())
    genes = ["UNUSED", *reversed(genes or GENES)]
    order = rng.permutation(n + 2)
    matrix = np.zeros((n + 2, len(genes)), np.float32)
    matrix[:n, 1:] = counts[:, ::-1]
    X = matrix[order]
    obs = [[*names, "spare-1", "spare-2"][i] for i in order]
    data = anndata.AnnData(csr_matrix(X) if sparse else X)
    data.obs_names, data.var_names = obs, genes
    data.write_h5ad(task / "adata" / f"{sample}.h5ad")
    return counts


def write_splits(task, folds, index=True):
    """folds: [(training samples, test samples)]."""
    (task / "splits").mkdir(parents=True, exist_ok=True)
    for k, parts in enumerate(folds):
        for part, samples in zip(("train", "test"), parts, strict=True):
            with (task / "splits" / f"{part}_{k}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([""] * index + ["sample_id", "patches_path", "expr_path"])
                for i, s in enumerate(samples):
                    writer.writerow([i] * index + [s, f"patches/{s}.h5", f"adata/{s}.h5ad"])


def write_task(task, samples=("A1", "A2", "A3"), folds=None, genes=GENES):
    counts = {s: write_sample(task, s, 5 + i, fixed=i == 1, sparse=i != 1) for i, s in enumerate(samples)}
    write_splits(task, folds or [([o for o in samples if o != s], [s]) for s in samples])
    (task / "var_50genes.json").write_text(json.dumps({"genes": list(genes)}))
    return counts


@pytest.fixture
def task(tmp_path):
    write_task(tmp_path / "IDC")
    return tmp_path / "IDC"


def read(root, name="hest", **options):
    return HestBench(name, options=options).items(root)


def test_spots_are_matched_by_barcode_in_the_order_of_the_patches(tmp_path):
    counts = write_task(tmp_path / "IDC")
    table = read(tmp_path / "IDC")
    assert table["id"].tolist() == [f"{s}/{s}-{i:03d}" for s, c in counts.items() for i in range(len(c))]
    assert table.target == pytest.approx(np.log1p(np.concatenate(list(counts.values()))))
    assert table.target.dtype == np.float32 and table.target_names == tuple(GENES)
    assert table["row"].tolist() == [i for c in counts.values() for i in range(len(c))]
    assert set(zip(table["slide"], table["source"], table["fold"], strict=True)) == {
        ("A1", "patches/A1.h5", 0), ("A2", "patches/A2.h5", 1), ("A3", "patches/A3.h5", 2),
    }  # fmt: skip
    assert set(table["key"]) == {"img"} and set(table["mpp"]) == {0.5} and set(table["task"]) == {"idc"}
    assert not table.warnings and table.counts == {"samples": 3, "folds": 3}
    assert (table["group"] == table["slide"]).all()
    fewer = GENES[3:0:-1]
    (tmp_path / "IDC" / "var_50genes.json").write_text(json.dumps({"genes": fewer}))
    again = read(tmp_path / "IDC")
    assert again.target_names == tuple(fewer) and again.target == pytest.approx(table.target[:, 3:0:-1])


def test_patients_are_those_that_are_known(tmp_path):
    samples = ("MEND139", "MEND153", "MEND154", "MEND162", "ZEN36", "ZEN40", "ZEN49")
    write_task(tmp_path / "PRAD", samples)
    table = read(tmp_path / "PRAD")
    owner = dict(zip(table["slide"], table["group"], strict=True))
    assert [owner[s] for s in samples[:4]] == ["PRAD patient 2"] * 2 + ["PRAD patient 1"] * 2
    assert owner["ZEN36"] == owner["ZEN40"] != owner["ZEN49"]


def test_stray_files_do_not_make_folds(task):
    before = read(task)
    for name in (".DS_Store", "readme.txt", "train_0.csv~", "test_x.csv", "._test_0.csv"):
        (task / "splits" / name).write_text("x")
    (task / "patches" / "vis").mkdir()
    (task / "patches" / "vis" / "A1.jpg").write_bytes(b"")
    after = read(task)
    assert after["fold"].tolist() == before["fold"].tolist() and not after.warnings
    write_sample(task, "A9")
    assert read(task).warnings == ["1 patch files are in no split: A9.h5"]


def test_splits_that_one_number_cannot_say_are_kept_as_shipped(tmp_path):
    task = tmp_path / "SKCM"
    folds = [(["A1", "A2"], ["A3"]), (["A1"], ["A3"]), (["A3"], ["A1", "A2"])]
    write_task(task, folds=folds)
    table = read(task)
    assert "fold" not in table
    part = {s: [table[f"split_{k}"][table["slide"] == s][0] for k in range(3)] for s in ("A1", "A2", "A3")}
    assert part == {"A1": ["train", "train", "test"], "A2": ["train", "", "test"], "A3": ["test", "test", "train"]}
    rng = np.random.default_rng(0)
    emb = eosin.Embeddings(
        rng.standard_normal((len(table), 4)),
        table["id"],
        target=table.target,
        slide=table["slide"],
        table=table.columns,
    )
    scores = HestRidge().score(emb, nan="skip")
    assert scores.notes[0] == "Folds: the split files', as shipped."
    sizes = np.bincount(scores.predictions["fold"])
    assert sizes.tolist() == [7, 7, 11]


@pytest.mark.parametrize("lost", ["train_1.csv", "test_2.csv"])
def test_a_missing_partner_is_named(task, lost):
    (task / "splits" / lost).unlink()
    with pytest.raises(DataError, match=f"{lost} is missing"):
        read(task)


@pytest.mark.parametrize(
    "text, why",
    [
        (",sample_id,patches_path\n0,A1,patches/A1.h5\n", "expr_path is missing"),
        (
            "sample_id,patches_path,expr_path\nA2,patches/A2.h5,adata/A2.h5ad\n",
            "A2 stands in train_0.csv and in test_0",
        ),
        ("sample_id,patches_path,expr_path\nA1,patches/A1.h5,adata/B.h5ad\n", "A1 has other files than in another"),
        ("sample_id,patches_path,expr_path\nA1,../A1.h5,adata/A1.h5ad\n", "stays inside the task"),
        ("sample_id,patches_path,expr_path\nA1,/a/A1.h5,adata/A1.h5ad\n", "stays inside the task"),
        ("sample_id,patches_path,expr_path\n" + 2 * "A1,patches/A1.h5,adata/A1.h5ad\n", "A1 stands twice"),
        ("sample_id,patches_path,expr_path\n", "names no sample"),
    ],
)
def test_split_files_that_cannot_be(task, text, why):
    (task / "splits" / "test_0.csv").write_text(text)
    with pytest.raises(DataError, match=why):
        read(task)


def test_a_barcode_or_a_gene_that_is_not_there(task):
    write_sample(task, "A2", 4, barcodes=["x", "y", "z", "w"])
    with h5py.File(task / "patches" / "A2.h5", "r+") as file:
        file["barcode"][2, 0] = "lost"
    with pytest.raises(DataError, match="A2: barcode lost is not in .*A2.h5ad"):
        read(task)
    write_sample(task, "A2", genes=[*GENES[:4], "OTHER"])
    with pytest.raises(DataError, match="A2: gene G4 is not in .*A2.h5ad"):
        read(task)


def test_names_that_stand_twice(task):
    """Harmless where nobody asks for them."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sample, column in (("A1", "UNUSED"), ("A3", "G2")):
            path = task / "adata" / f"{sample}.h5ad"
            data = anndata.read_h5ad(path)
            extra = anndata.AnnData(data.X[:, :1], data.obs)
            extra.var_names = [column]
            whole = anndata.AnnData(np.hstack([np.asarray(a.X.todense()) for a in (data, extra)]), data.obs)
            whole.var_names = [*data.var_names, column]
            whole.write_h5ad(path)
            if sample == "A1":
                read(task)
    with pytest.raises(DataError, match="A3: gene G2 stands twice"):
        read(task)
    write_sample(task, "A3", 3, barcodes=["x", "y", "x"])
    with pytest.raises(DataError, match="A3: barcode x stands twice"):
        read(task)


def test_counts_that_are_not_raw(task):
    write_sample(task, "A1", 4, counts=np.full((4, 5), 0.5))
    write_sample(task, "A2", 4, counts=np.full((4, 5), -0.25))
    table = read(task)
    assert [w.split(",")[0] for w in table.warnings] == [
        "A1: counts have values that are not whole", "A2: counts have negative values",
    ]  # fmt: skip
    bad = np.ones((4, 5))
    for value in (-3.0, np.nan, np.inf):
        bad[1, 3] = value
        write_sample(task, "A2", 4, counts=bad)
        with pytest.raises(DataError, match="A2: the counts of gene G3 have no logarithm"):
            read(task)


@pytest.mark.parametrize("what", ["patches/A2.h5", "adata/A2.h5ad", "var_50genes.json", "splits/test_0.csv"])
def test_what_is_missing_or_damaged_is_named(task, what):
    (task / what).write_bytes(b"\xff nonsense")
    with pytest.raises(DataError, match=what.rpartition("/")[2]):
        read(task)
    (task / what).unlink()
    with pytest.raises(DataError, match=what.rpartition("/")[2]):
        read(task)


@pytest.mark.parametrize("change, why", [("img", "not uint8"), ("barcode", "barcodes for"), ("key", "not `img`")])
def test_patch_files_of_another_shape(task, change, why):
    with h5py.File(task / "patches" / "A1.h5", "r+") as file:
        if change == "img":
            del file["img"]
            file["img"] = np.zeros((5, 8, 8), np.uint8)
        elif change == "barcode":
            del file["barcode"]
            file["barcode"] = np.array(["x"], "S4")
        else:
            file["barcodes"] = file["barcode"][()]
            del file["barcode"]
    with pytest.raises(DataError, match=why):
        read(task)


def test_all_tasks_in_one_table(tmp_path):
    write_task(tmp_path / "hest" / "IDC")
    write_task(tmp_path / "hest" / "LUNG", ("B1", "B2"), genes=GENES[1:])
    write_task(tmp_path / "hest" / "HCC", ("C1", "C2"), [(["C1"], ["C2"])])
    (tmp_path / "hest" / "fm_v1").mkdir()
    table = read(tmp_path / "hest")
    assert set(table["task"]) == {"idc", "luad", "hcc"} and table.target is None
    assert table["fold"][table["task"] == "hcc"].tolist() == [-1] * 11
    assert set(table["split_0"][table["task"] == "hcc"]) == {"train", "test"}
    assert table.counts == {"samples": 7, "folds": 6, "hcc": 11, "idc": 18, "luad": 11}
    assert any("genes differ" in w for w in table.warnings)
    alone = HestBench("hest-luad", options={"task": "luad"}).items(tmp_path)
    assert set(alone["slide"]) == {"B1", "B2"} and set(alone["source"]) == {
        f"hest/LUNG/patches/B{i}.h5" for i in (1, 2)
    }
    write_task(tmp_path / "hest" / "PAAD")
    ids = read(tmp_path / "hest")["id"]
    assert len(set(ids)) == len(ids) and "paad/A1/A1-000" in ids, "two tasks share samples"
    write_task(tmp_path / "copy" / "LUNG", ("B1", "B2"))
    with pytest.raises(DataError, match="LUNG more than once"):
        HestBench("hest-luad", options={"task": "luad"}).items(tmp_path)


def test_where_a_task_is_looked_for(tmp_path):
    luad, every = HestBench("hest-luad", options={"task": "luad"}), HestBench("hest")
    with pytest.raises(MissingError, match="hest/LUNG or .*hest-luad"):
        luad.locate(tmp_path)
    (tmp_path / "hest-luad").mkdir()
    assert luad.locate(tmp_path) == tmp_path / "hest-luad" and not every.present(tmp_path)
    (tmp_path / "hest" / "LUNG").mkdir(parents=True)
    assert luad.locate(tmp_path) == tmp_path / "hest" / "LUNG" and every.locate(tmp_path) == tmp_path / "hest"
    with pytest.raises(DataError, match="holds no task of hest-bench: LUNG/"):
        luad.items(tmp_path)
    with pytest.raises(CardError, match="not lung"):
        HestBench("x", options={"task": "lung"}).locate(tmp_path)


def test_an_old_coad_is_told(tmp_path):
    write_task(tmp_path / "COAD", ("ZEN38", "ZEN42"))
    assert any("older than August 2024" in w for w in read(tmp_path / "COAD").warnings)


def test_nine_tasks_are_on_the_board():
    from eosin.plugins import Catalogue

    catalogue = Catalogue()
    nine = [f"hest-{t}" for t in FOLDERS if t != "hcc"]
    assert sorted(catalogue.suite("hest")) == sorted(nine)
    assert {f"hest-{t}" for t in FOLDERS} <= set(catalogue.datasets.things)
    for name in nine:
        assert catalogue.benchmark(name).needs()[""].readout == "default"
        assert catalogue.benchmark(f"{name}-h0mini").needs()[""].readout == "cls+mean"


def test_from_the_tree_to_a_record(task):
    out = task.parent
    done = bench("run", "-m", "color-stats", "-b", "hest-idc", "--data", out, "--option", "nan=skip", "--json")
    assert done.code == 3, "the tree must lie in <data>/hest"
    (out / "hest").mkdir()
    task.rename(out / "hest" / "IDC")
    done = bench("run", "-m", "color-stats", "-b", "hest-idc", "--data", out, "--option", "nan=skip", "--json")
    assert done.code == 0 and done.json["embedded"] == 18
    record = json.loads(open(done.json["records"][0]).read())
    assert len(record["scores"]["pearson"]["values"]) == 3 and record["details"]["genes"] == GENES
    (out / "hest" / "IDC" / "splits" / "test_0.csv").unlink()
    assert bench("data", "index", "hest-idc", out / "hest", "--json").code == 1, "split files are watched"


def test_the_miniature_is_read_and_can_be_predicted(tmp_path):
    assert bench("data", "phantom", "hest-skcm", "--out", tmp_path).code == 0
    done = bench("run", "-m", "color-stats", "-b", "hest-skcm", "--data", tmp_path, "--option", "alpha=100", "--json")
    assert done.code == 0 and done.json["embedded"] == 128
    record = json.loads(open(done.json["records"][0]).read())
    assert record["dataset"]["warnings"] == [] and len(record["details"]["genes"]) == 50
    assert record["scores"]["pearson"]["mean"] > 0.1


def test_golden_trees_index(shared):
    folder = shared("golden", "hest-01") / "bench_data"
    facts = bench("data", "index", "hest", folder, "--json").json
    assert facts["items"] == 480 and facts["warnings"] == []
