"""MoNuSAC: the official layout in small, outlines drawn as eva draws them, and the traps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eosin_data.monusac as module
import eosin_data.outlines as outlines
from eosin.errors import DataError
from eosin.index import open_index
from eosin.plugins import Catalogue

TRAIN, TEST = "MoNuSAC_images_and_annotations", "MoNuSAC Testing Data and Annotations"
SLIDE = "TCGA-5P-A9K0-01Z-00-DX1"
BOX = [(1, 1), (4, 1), (4, 3), (1, 3)]  # x, y


@pytest.fixture
def monusac():
    return Catalogue().datasets.get("monusac", "")


def annotations(*regions: tuple[str, list]) -> str:
    """One annotation a region, as the official files have them."""
    parts = [
        f'<Annotation Id="{k}" Name="" LineColor="65535"><Attributes><Attribute Name="{name}" Id="0" Value=""/></Attributes>'
        '<Regions><RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region"/></RegionAttributeHeaders>'
        f'<Region Id="1"><Attributes/><Vertices>{"".join(f"""<Vertex X="{x}" Y="{y}" Z="0"/>""" for x, y in corners)}</Vertices></Region>'
        "</Regions><Plots/></Annotation>"
        for k, (name, corners) in enumerate(regions, 1)
    ]
    return f'<?xml version="1.0"?><Annotations MicronsPerPixel="0.252">{"".join(parts)}</Annotations>'


def field(root: Path, folder: str, stem: str, *regions, size=(8, 6), text: str | None = None) -> Path:
    """An image, its outlines and its slide; the path of the outlines."""
    place = root / folder / stem.rpartition("_")[0]
    place.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 120, 180)).save(place / f"{stem}.tif")
    (place / f"{stem}.svs").write_bytes(b"svs")
    (place / f"{stem}.xml").write_text(annotations(*regions) if text is None else text)
    return place / f"{stem}.xml"


def tree(root: Path) -> Path:
    field(root, TRAIN, f"{SLIDE}_1", ("Epithelial", BOX))
    field(root, TRAIN, f"{SLIDE}_2", ("Lymphocyte", BOX))
    field(root, TEST, "TCGA-2Z-A9JG-01Z-00-DX1_1", ("Ambiguous", BOX))
    return root


def mask(dataset, root: Path, *regions, **k) -> np.ndarray:
    field(root, TRAIN, f"{SLIDE}_1", *regions, **k)
    return dataset.mask(root, dataset.items(root), 0)


def test_the_official_layout(monusac, tmp_path):
    table = monusac.items(tree(tmp_path))
    assert table.classes == ("Background", "Epithelial", "Lymphocyte", "Neutrophil", "Macrophage", "Ambiguous")
    assert list(zip(*(table[c].tolist() for c in ("id", "split", "group", "slide")))) == [
        (f"{SLIDE}_1", "train", "TCGA-5P-A9K0", SLIDE),
        (f"{SLIDE}_2", "train", "TCGA-5P-A9K0", SLIDE),
        ("TCGA-2Z-A9JG-01Z-00-DX1_1", "val", "TCGA-2Z-A9JG", "TCGA-2Z-A9JG-01Z-00-DX1"),
    ]
    assert (
        table["source"][0] == f"{TRAIN}/{SLIDE}/{SLIDE}_1.tif" and table["mask"][0] == f"{TRAIN}/{SLIDE}/{SLIDE}_1.xml"
    )
    assert not any(s.endswith(".svs") for s in table["source"].tolist())
    assert (table["mpp"] == 0.25).all() and table.known("label") is None
    assert "2 images of MoNuSAC_images_and_annotations of the official 209" in table.warnings[0]
    assert "1 images of MoNuSAC Testing Data and Annotations of the official 85" in table.warnings[1]


def test_outlines_become_pixels(monusac, tmp_path):
    drawn = mask(monusac, tmp_path, ("Neutrophil", BOX), ("Macrophage", [(6, 4), (9, 4), (9, 9)]))
    assert drawn.dtype == np.int64 and drawn.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 3, 3, 3, 3, 0, 0, 0],
        [0, 3, 3, 3, 3, 0, 0, 0],
        [0, 3, 3, 3, 3, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 4, 4],
        [0, 0, 0, 0, 0, 0, 0, 4],
    ], "x is across, borders count, what leaves the image is cut off"


@pytest.mark.parametrize(
    ("first", "second", "wins"), [("Epithelial", "Lymphocyte", 2), ("Lymphocyte", "Epithelial", 1)]
)
def test_later_outlines_lie_over_earlier_ones(monusac, tmp_path, first, second, wins):
    drawn = mask(monusac, tmp_path, (first, BOX), (second, [(4, 1), (5, 1), (5, 3), (4, 3)]))
    assert set(drawn[:, 4].tolist()) == {0, wins} and set(drawn[:, 3].tolist()) == {0, 3 - wins}


def test_what_is_none_of_the_four_is_ambiguous(monusac, tmp_path):
    drawn = mask(
        monusac, tmp_path, ("Ambiguous", BOX), ("epithelial", [(6, 0), (7, 0), (7, 1)]), ("Background", [(0, 5)])
    )
    assert drawn[2, 2] == 5 and drawn[0, 7] == 5 and drawn[5, 0] == 5
    warnings = monusac.items(tmp_path).warnings
    assert "1 outlines are called 'epithelial', which is no class here, and count as Ambiguous" in warnings
    assert not any("'Ambiguous'" in w for w in warnings)


def test_fractions_of_pixels_count(monusac, tmp_path):
    drawn = mask(monusac, tmp_path, ("Epithelial", [(0.6, 0.6), (2.4, 0.6), (2.4, 2.4), (0.6, 2.4)]))
    assert np.argwhere(drawn == 1).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]], "not cut down to whole numbers first"


def test_an_annotation_without_a_class_or_corners(monusac, tmp_path):
    text = annotations(("", []), ("Epithelial", BOX)).replace('<Attribute Name="" Id="0" Value=""/>', "")
    drawn = mask(monusac, tmp_path, text=text)
    assert set(drawn.ravel().tolist()) == {0, 1}


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]>'


@pytest.mark.parametrize("kind", [BOMB, '<!DOCTYPE a SYSTEM "file:///etc/hostname">', "<!DOCTYPE a>"])
@pytest.mark.parametrize("code", ["utf-8", "utf-16"])
def test_a_document_type_is_refused(monusac, tmp_path, kind, code):
    path = field(tmp_path, TRAIN, f"{SLIDE}_1")
    head, body = f'<?xml version="1.0" encoding="{code}"?>', annotations(("Epithelial", BOX)).partition("?>")[2]
    path.write_bytes(f"{head}{kind}{body}".encode(code))
    with pytest.raises(DataError, match=rf"{SLIDE}_1.xml cannot be read as outlines \(it has a DOCTYPE"):
        monusac.items(tmp_path)
    path.write_bytes(f"{head}{body}".encode(code))
    assert monusac.mask(tmp_path, monusac.items(tmp_path), 0)[2, 2] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<Annotations><Annotation>", "1.xml cannot be read as outlines"),
        (annotations(("Epithelial", [("one", 1)])), "could not convert"),
        (annotations(("Epithelial", [("nan", 1)])), "no finite number of pixels"),
        (annotations(("Epithelial", [("1e300", 1)])), "no finite number of pixels"),
        (annotations(("Epithelial", BOX)).replace(' Y="1"', ""), "cannot be read as outlines"),
    ],
)
def test_damaged_outlines_are_named(monusac, tmp_path, text, says):
    field(tmp_path, TRAIN, f"{SLIDE}_1", text=text)
    with pytest.raises(DataError, match=says):
        monusac.items(tmp_path)


def test_outlines_beyond_all_measure(monusac, tmp_path, monkeypatch):
    field(tmp_path, TRAIN, f"{SLIDE}_1", ("Epithelial", BOX))
    monkeypatch.setattr(outlines, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="it has more than"):
        monusac.items(tmp_path)


def test_image_without_outlines_and_outlines_without_image(monusac, tmp_path):
    place = tree(tmp_path) / TRAIN / SLIDE
    (place / f"{SLIDE}_2.tif").unlink()
    table = monusac.items(tmp_path)
    assert len(table) == 2
    assert f"1 outlines have no .tif and were passed over, such as {SLIDE}_2.xml" in table.warnings
    (place / f"{SLIDE}_1.xml").unlink()
    with pytest.raises(DataError, match=f"{SLIDE}_1.tif has no {SLIDE}_1.xml beside it"):
        monusac.items(tmp_path)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (f"{TRAIN}/{TRAIN}", f"{TEST}/{TEST}"),
        (f"unpacked/{TRAIN}", "unpacked/MoNuSAC_Testing_Data_and_Annotations"),
    ],
)
def test_folders_as_people_have_them(monusac, tmp_path, train, test):
    tree(tmp_path / "as-made")
    for old, new in ((TRAIN, train), (TEST, test)):
        (tmp_path / "mine" / new).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "as-made" / old).rename(tmp_path / "mine" / new)
    (tmp_path / "mine" / "__MACOSX" / TRAIN / SLIDE).mkdir(parents=True)
    (tmp_path / "mine" / train / SLIDE / f"._{SLIDE}_1.tif").write_bytes(b"x")
    table = monusac.items(tmp_path / "mine")
    assert table["split"].tolist() == ["train", "train", "val"] and not any("copy" in w for w in table.warnings)


def test_broken_trees(monusac, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"Expected there:[\s\S]*MoNuSAC Testing Data and Annotations"):
        monusac.items(tmp_path)
    tree(tmp_path)
    field(tmp_path, TEST, f"{SLIDE}_9", ("Epithelial", BOX))
    assert "1 patients are in both parts: TCGA-5P-A9K0" in monusac.items(tmp_path).warnings
    field(tmp_path, TRAIN, "scan_1", ("Epithelial", BOX))
    with pytest.raises(DataError, match="scan_1.tif does not match TCGA-<site>"):
        monusac.items(tmp_path)
    (tmp_path / TRAIN / "scan" / "scan_1.tif").unlink()
    monkeypatch.setitem(module.PARTS, "train", (TRAIN, "train", 1))
    with pytest.raises(DataError, match=f"2 images of {TRAIN}, more than the official 1"):
        monusac.items(tmp_path)


def test_other_outlines_are_other_rows_and_the_same_tiles(monusac, tmp_path):
    root = tree(tmp_path / "monusac")
    first = open_index(monusac, tmp_path, tmp_path / "indexes", root)
    before = monusac.mask(root, first.table, 0)
    field(root, TRAIN, f"{SLIDE}_1", ("Epithelial", [(x + 1, y) for x, y in BOX]))
    second = open_index(monusac, tmp_path, tmp_path / "indexes", root)
    assert first.rows != second.rows and first.tiles == second.tiles
    assert (before != monusac.mask(root, second.table, 0)).any(), "a kept mask is not the file's any more"
