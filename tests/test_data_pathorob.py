"""PathoROB's manifests: columns, ids, subsets, and what is missing."""

import numpy as np
import pytest
from PIL import Image

from eosin import DatasetCard
from eosin.errors import CardError, DataError
from eosin.plugins import Catalogue
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
