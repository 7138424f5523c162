"""PathoROB's manifests: columns, ids, subsets, and what is missing."""

import io

import numpy as np
import pytest
from PIL import Image

from eosin import DatasetCard
from eosin.errors import CardError, DataError
from eosin.plugins import Catalogue
from eosin.tiles import Reader
from eosin_robustness.pathorob import PathoROB

HEAD = "subset,slide_id,patch_id,biological_class,medical_center\n"


def tree(root, lines):
    (root / "images").mkdir()
    (root / "camelyon.csv").write_text(HEAD + "".join(f"{line}\n" for line in lines))
    for line in lines:
        _, slide, patch, *_ = line.split(",")
        Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(root / "images" / f"{slide}-{patch}.png")


def items(root, **options):
    return PathoROB(DatasetCard("camelyon", kind="pathorob", options=options)).items(root)


def test_rows_and_subsets(tmp_path):
    tree(tmp_path, ["ID,test_035,34317,normal,RUMC", "ID,tumor_1,2,tumor,UMCU", "OOD,x_9,2,tumor,CWZ"])
    table = items(tmp_path)
    assert table["id"].tolist() == ["test_035-34317", "tumor_1-2"] and table.classes == ("normal", "tumor")
    assert table["centre"].tolist() == ["RUMC", "UMCU"] and table["slide"].tolist() == ["test_035", "tumor_1"]
    assert any("1 rows of other centres" in w for w in table.warnings)
    whole = items(tmp_path, subset="all")
    assert whole["subset"].tolist() == ["ID", "ID", "OOD"] and whole.counts["centres"] == 3


def test_a_patch_in_several_subsets(tmp_path):
    tree(tmp_path, ["a,s,1,x,C1", "b,s,1,x,C1", "b,s,2,y,C2"])
    table = items(tmp_path)
    assert table["id"].tolist() == ["s-1@a", "s-1@b", "s-2@b"] and table.counts["patches"] == 2


def test_the_parquet_files_of_hugging_face(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    lines = ["ID,s_1,7,normal,RUMC", "ID,s_2,2,tumor,UMCU", "OOD,s_3,2,tumor,CWZ"]
    tree(tmp_path, lines)
    both = tmp_path / "hub"
    (both / "data").mkdir(parents=True)
    for part, some in enumerate((lines[:2], lines[2:])):
        columns = dict(zip(HEAD.strip().split(","), zip(*[line.split(",") for line in some])))
        pixels = [Image.fromarray(np.full((8, 8, 3), 50 * part + i, np.uint8)) for i in range(len(some))]
        buffers = [io.BytesIO() for _ in some]
        for image, buffer in zip(pixels, buffers):
            image.save(buffer, "PNG")
        columns["image"] = [{"bytes": b.getvalue(), "path": None} for b in buffers]
        parquet.write_table(pa.table({k: list(v) for k, v in columns.items()}), both / "data" / f"train-{part}.parquet")
    found, images = items(both, subset="all"), items(tmp_path, subset="all")
    for column in ("id", "slide", "centre", "label", "subset"):
        assert found[column].tolist() == images[column].tolist(), column
    assert [int(np.asarray(Reader(both, found).read(i))[0, 0, 0]) for i in range(3)] == [0, 1, 50]
    (both / "camelyon.csv").write_text(HEAD + "ID,s_2,2,tumor,UMCU\n")
    assert items(both)["id"].tolist() == ["s_2-2"], "a manifest says which patches count"
    (both / "camelyon.csv").write_text(HEAD + "ID,s_2,9,tumor,UMCU\n")
    with pytest.raises(DataError, match="no image in .*Download them again"):
        items(both)
    parquet.write_table(pa.table({"slide_id": ["a"]}), both / "data" / "train-2.parquet")
    with pytest.raises(DataError, match="cannot be read as PathoROB's"):
        items(both)


def test_unknown_classes_and_rows_that_come_twice(tmp_path):
    tree(tmp_path, ["ID,s,1,x,C1", "ID,s,2,,C1", "ID,s,3,y,"])
    table = items(tmp_path)
    assert table["id"].tolist() == ["s-1"] and any("2 rows without a class or a centre" in w for w in table.warnings)
    (tmp_path / "camelyon.csv").write_text(HEAD + "ID,s,1,x,C1\nID,s,1,x,C1\n")
    with pytest.raises(DataError, match="s-1 stands more than once"):
        items(tmp_path)


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(DataError, match="lacks camelyon.csv"):
        items(tmp_path)
    tree(tmp_path, ["ID,s,1,x,C1"])
    with pytest.raises(CardError, match="subset is ID or all"):
        items(tmp_path, subset="OOD")
    (tmp_path / "images" / "s-1.png").unlink()
    with pytest.raises(DataError, match="no image in .*s-1.png"):
        items(tmp_path)


def test_the_registry_has_its_three_with_their_k():
    catalogue = Catalogue()
    for name, k, design in (("camelyon", 11, "all"), ("tcga", 61, "paired"), ("tolkach", 46, "all")):
        benchmark = catalogue.benchmark(f"pathorob-{name}")
        options = benchmark.protocol.card.complete(benchmark.card.options)
        assert (options["k"], options["design"], options["definition"]) == (k, design, "D3")
        assert isinstance(catalogue.datasets.get(benchmark.card.dataset, ""), PathoROB)
