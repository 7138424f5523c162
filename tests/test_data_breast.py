"""Loaders of the breast sets, on miniature trees in the official layouts, each trap in one of them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.errors import CardError, DataError
from eosin.plugins import Catalogue

CATALOGUE = Catalogue()


def image(path: Path, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 120, 180)).save(path)
    return path


def dataset(name: str, **options):
    """The registry's dataset, with some options changed."""
    from dataclasses import replace

    known = CATALOGUE.datasets.get(name, "")
    return type(known)(replace(known.card, options={**known.card.options, **options}))


def items(name: str, root: Path, **options):
    return dataset(name, **options).items(root)


def warned(table, text: str) -> bool:
    return any(text in w for w in table.warnings)


MD5 = "0123456789abcdef0123456789abcde"


@pytest.fixture
def tils(tmp_path) -> Path:
    """Four tiles of brca and one of another study, all linked from pancancer, and the csv."""
    root = tmp_path / "tils"
    top = root / "TCGA-TILs" / "images-tcga-tils"
    rows = ["partition,study,barcode,label,path,md5"]
    for i, (study, split, label, tss) in enumerate(
        (
            ("brca", "train", "til-negative", "A1"),
            ("brca", "train", "til-positive", "A1"),
            ("brca", "val", "til-negative", "E2"),
            ("brca", "test", "til-positive", "AR"),
            ("acc", "train", "til-positive", "OR"),
        )
    ):
        name = f"TCGA-{tss}-A0S{i}-01Z-00-DX1_{MD5}{i}.png"
        file = image(top / study / split / label / name)
        link = top / "pancancer" / split / label / name
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(file, link)
        rows.append(f"{split},{study},TCGA-{tss}-A0S{i},{label},{file.relative_to(top.parent).as_posix()},{MD5}{i}")
    (top.parent / "images-tcga-tils-metadata.csv").write_text("\n".join(rows) + "\n")
    image(top / "brca" / "train" / "til-negative" / "._hidden.png")
    return root


def test_tils_reads_one_study_and_never_the_links(tils):
    table = items("tils", tils)
    assert len(table) == 4 and table.classes == ("til-negative", "til-positive")
    assert sorted(zip(table["group"].tolist(), table["label"].tolist(), table["split"].tolist(), table["centre"].tolist())) == [
        ("TCGA-A1-A0S0", 0, "train", "A1"), ("TCGA-A1-A0S1", 1, "train", "A1"),
        ("TCGA-AR-A0S3", 1, "test", "AR"), ("TCGA-E2-A0S2", 0, "val", "E2"),
    ]  # fmt: skip
    assert not any("pancancer" in s for s in table["source"].tolist())
    assert warned(table, "5,245") and (table["mpp"] == 0.5).all()
    assert len(items("tils", tils, study="all")) == 5
    assert len(items("tils", tils, partition="train")) == 2
    assert len(items("tils", tils / "TCGA-TILs" / "images-tcga-tils")) == 4, "the folder itself may be named"


def test_tils_without_its_csv_is_walked(tils):
    (tils / "TCGA-TILs" / "images-tcga-tils-metadata.csv").unlink()
    assert len(items("tils", tils)) == 4


def test_tils_folders_and_csv_must_agree(tils):
    path = tils / "TCGA-TILs" / "images-tcga-tils-metadata.csv"
    text = path.read_text()
    path.write_text(text.replace("train,brca,TCGA-A1-A0S0,til-negative", "train,brca,TCGA-A1-A0S0,til-positive"))
    with pytest.raises(DataError, match=r"A0S0.*folders say til-negative and train.*metadata.csv says til-positive"):
        items("tils", tils)
    path.write_text(text.replace("test,brca", "val,brca"))
    with pytest.raises(DataError, match=r"A0S3.*folders say til-positive and test"):
        items("tils", tils)
    path.write_text(text.replace("barcode,label", "barcode,class"))
    with pytest.raises(DataError, match=r"metadata.csv: the column label is missing"):
        items("tils", tils)


def test_tils_partial_and_broken(tils):
    top = tils / "TCGA-TILs" / "images-tcga-tils"
    next((top / "brca" / "val" / "til-negative").iterdir()).unlink()
    with pytest.raises(DataError, match=r"brca/val/til-negative is empty"):
        items("tils", tils)
    (top / "brca" / "val" / "til-negative").rmdir()
    assert warned(items("tils", tils), "1 tiles of images-tcga-tils-metadata.csv have no file")
    image(top / "brca" / "val" / "til-negative" / "tile1.png")
    with pytest.raises(DataError, match=r"til-negative/tile1.png does not match"):
        items("tils", tils)
    with pytest.raises(CardError, match="no option sudy"):
        items("tils", tils, sudy="acc")


BRACS = {"train": ("0_N", "BRACS_264_N_5"), "val": ("5_DCIS", "BRACS_1228_DCIS_12"), "test": ("6_IC", "BRACS_77_IC_1")}


@pytest.fixture
def bracs(tmp_path) -> Path:
    root = tmp_path / "bracs"
    for split, (folder, name) in BRACS.items():
        image(root / "BRACS_RoI" / "latest_version" / split / folder / f"{name}.png", (500, 230))
        image(root / "BRACS_RoI" / "previous_versions" / "v1" / split / folder / f"{name}.png")
    image(root / "BRACS_RoI" / "latest_version" / "train" / "0_N" / "BRACS_77_N_2.png", (127, 500))
    return root


def sheet(path: Path, rows: list[list[str]]) -> None:
    """An .xlsx of two sheets, the second called WSI_Information, its texts shared as Excel writes them."""
    texts = sorted({c for row in rows for c in row})
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    cells = [
        "".join(f'<c r="{"ABCDEF"[i]}{n}" t="s"><v>{texts.index(c)}</v></c>' for i, c in enumerate(row) if c)
        for n, row in enumerate(rows, 1)
    ]
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "xl/workbook.xml",
            f'<workbook {main}><sheets><sheet name="Legend"/><sheet name="WSI_Information"/></sheets></workbook>',
        )
        book.writestr("xl/sharedStrings.xml", f"<sst {main}>{''.join(f'<si><t>{t}</t></si>' for t in texts)}</sst>")
        book.writestr("xl/worksheets/sheet1.xml", f"<worksheet {main}><sheetData/></worksheet>")
        book.writestr(
            "xl/worksheets/sheet2.xml",
            f"<worksheet {main}><sheetData>{''.join(f'<row>{c}</row>' for c in cells)}</sheetData></worksheet>",
        )


@pytest.mark.parametrize("below", ["", "BRACS_RoI", "BRACS_RoI/latest_version"])
def test_bracs_from_any_folder_and_never_an_older_version(bracs, below):
    table = items("bracs", bracs / below)
    assert len(table) == 4 and table.classes == ("N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC")
    got = dict(
        zip(table["id"].tolist(), zip(table["label"].tolist(), table["split"].tolist(), table["group"].tolist()))
    )
    assert got["BRACS_1228_DCIS_12"] == (5, "val", "BRACS_1228") and got["BRACS_264_N_5"] == (0, "train", "BRACS_264")
    assert got["BRACS_77_N_2"][2] == got["BRACS_77_IC_1"][2], "regions of one slide are one group"
    assert (
        warned(table, "4 regions of the official 4,539")
        and warned(table, "no BRACS.xlsx")
        and warned(table, "class PB has no items")
    )


def test_bracs_patients_come_from_the_table(bracs):
    head = ["WSI Filename", "Patient Id", "RoI", "Set"]
    rows = [
        head,
        ["BRACS_264", "12", "", "train"],
        ["BRACS_1228", "12", "1", "val"],
        ["BRACS_77.svs", "3", "2", "test"],
    ]
    sheet(bracs / "BRACS.xlsx", rows)
    table = items("bracs", bracs)
    got = dict(zip(table["slide"].tolist(), table["group"].tolist()))
    assert got == {"BRACS_264": "patient-12", "BRACS_1228": "patient-12", "BRACS_77": "patient-3"}
    sheet(bracs / "BRACS.xlsx", rows[:-1])
    with pytest.raises(DataError, match="BRACS_77 is not in BRACS.xlsx"):
        items("bracs", bracs)
    sheet(bracs / "BRACS.xlsx", [["Slide", "Person"]])
    with pytest.raises(DataError, match="no columns for"):
        items("bracs", bracs)
    (bracs / "BRACS.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="cannot be read as an Excel table"):
        items("bracs", bracs)


def test_bracs_names_what_is_wrong(bracs):
    top = bracs / "BRACS_RoI" / "latest_version"
    wrong = image(top / "train" / "0_N" / "BRACS_9_IC_1.png")
    with pytest.raises(DataError, match=r"BRACS_9_IC_1.png: it lies under 0_N, and its name says IC"):
        items("bracs", bracs)
    wrong.unlink()
    image(top / "val" / "0_N" / "BRACS_264_N_5.png")
    with pytest.raises(
        DataError, match=r"val/0_N/BRACS_264_N_5.png and .*train/0_N/BRACS_264_N_5.png are one and the same"
    ):
        items("bracs", bracs)
    (top / "val" / "0_N" / "BRACS_264_N_5.png").unlink()
    with pytest.raises(DataError, match="val/0_N is empty"):
        items("bracs", bracs)
    with pytest.raises(DataError, match="does not hold the official layout. Expected there:"):
        items("bracs", bracs / "BRACS_RoI" / "previous_versions")


def test_regions_are_cut_and_small_ones_padded(bracs):
    data = dataset("bracs")
    table = data.items(bracs)
    tiles = data.tiles(bracs, table)
    boxes = {
        (i, x, y, w, h, p)
        for i, x, y, w, h, p in zip(*(tiles[c].tolist() for c in ("item", "x", "y", "w", "h", "pad")))
    }
    assert {b for b in boxes if b[0] == "BRACS_264_N_5"} == {("BRACS_264_N_5", x, 0, 224, 224, 0) for x in (0, 224)}
    assert {b for b in boxes if b[0] == "BRACS_77_N_2"} == {("BRACS_77_N_2", 0, y, 127, 224, 224) for y in (0, 224)}
    assert set(tiles["item"].tolist()) == set(table["id"].tolist()), "at least one tile a region"
    assert warned(tiles, "1 regions are smaller") and len(set(tiles["id"].tolist())) == len(tiles)
    assert (tiles["label"] == [table["label"][table["id"].tolist().index(i)] for i in tiles["item"]]).all()
    dropped = dataset("bracs", pad="drop").tiles(bracs, table)
    assert "BRACS_77_N_2" not in dropped["item"].tolist() and warned(dropped, "left out")
    whole = dataset("bracs", tile=0).tiles(bracs, table)
    assert len(whole) == 4 and set(whole["w"].tolist()) == {500, 127}


def test_padding_is_white(bracs):
    from eosin.tiles import Reader

    data = dataset("bracs")
    tiles = data.tiles(bracs, data.items(bracs))
    i = tiles["item"].tolist().index("BRACS_77_N_2")
    pixels = np.asarray(Reader(bracs, tiles).read(i))
    assert pixels.shape == (224, 224, 3) and (pixels[:, 127:] == 255).all() and (pixels[:, :127] < 210).all()


def test_a_broken_region_is_named(bracs):
    data = dataset("bracs")
    table = data.items(bracs)
    (bracs / table["source"][0]).write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"BRACS_.*png cannot be read"):
        data.tiles(bracs, table)


def breakhis_file(root: Path, side: str, kind: str, code: str, slide: str, mag: str, seq: str = "001") -> Path:
    letter = "B" if side == "benign" else "M"
    folder = root / side / "SOB" / kind / f"SOB_{letter}_{code}_{slide}" / f"{mag}X"
    return image(folder / f"SOB_{letter}_{code}-{slide}-{mag}-{seq}.png", (70, 46))


@pytest.fixture
def breakhis(tmp_path) -> Path:
    """Letter suffixes, a slide under two types, four magnifications, and Kaggle's second copy."""
    top = tmp_path / "breakhis"
    for root in (
        top / "BreaKHis_v1" / "histology_slides" / "breast",
        top / "BreaKHis_v1" / "BreaKHis_v1" / "histology_slides" / "breast",
    ):
        breakhis_file(root, "benign", "adenosis", "A", "14-22549AB", "40")
        breakhis_file(root, "benign", "adenosis", "A", "14-22549CD", "400")
        breakhis_file(root, "malignant", "ductal_carcinoma", "DC", "14-13412", "400", "011")
        breakhis_file(root, "malignant", "lobular_carcinoma", "LC", "14-13412", "400", "011")
    return top


def test_breakhis_reads_names_and_one_copy(breakhis):
    table = items("breakhis", breakhis)
    assert len(table) == 4 and table.classes[:5] == (
        "adenosis",
        "fibroadenoma",
        "phyllodes_tumor",
        "tubular_adenoma",
        "ductal_carcinoma",
    )
    got = {
        i: r
        for i, *r in zip(
            *(table[c].tolist() for c in ("id", "label", "group", "slide", "magnification", "binary", "mpp"))
        )
    }
    assert got["SOB_B_A-14-22549AB-40-001"] == [0, "14-22549", "14-22549AB", "40", "benign", 0.49]
    assert got["SOB_B_A-14-22549CD-400-001"][1] == "14-22549", "letters are parts of one patient's slide"
    assert got["SOB_M_DC-14-13412-400-011"][:2] == [4, "14-13412"] and got["SOB_M_LC-14-13412-400-011"][:2] == [
        5,
        "14-13412",
    ]
    assert warned(table, "slide 14-13412 stands under two types") and warned(table, "second copy and was passed over")
    assert warned(table, "4 images of the official 7,909")
    assert table.counts["40"] == 1 and table.counts["malignant"] == 2 and table.counts["patient_folders"] == 4


def test_breakhis_nested_alone(breakhis):
    import shutil

    shutil.rmtree(breakhis / "BreaKHis_v1" / "histology_slides")
    assert len(items("breakhis", breakhis)) == 4


@pytest.mark.parametrize(
    ("side", "kind", "code", "mag", "says"),
    [
        ("benign", "fibroadenoma", "A", "40", "lies under fibroadenoma, and its name says adenosis"),
        ("malignant", "adenosis", "A", "40", "its name says malignant, and adenosis is not"),
    ],
)
def test_breakhis_folders_and_names_must_agree(breakhis, side, kind, code, mag, says):
    breakhis_file(breakhis / "BreaKHis_v1" / "histology_slides" / "breast", side, kind, code, "14-1", mag)
    with pytest.raises(DataError, match=says):
        items("breakhis", breakhis)


def test_breakhis_magnification_and_odd_names(breakhis):
    folder = (
        breakhis / "BreaKHis_v1" / "histology_slides" / "breast" / "benign" / "SOB" / "adenosis" / "SOB_B_A_14-22549AB"
    )
    wrong = image(folder / "40X" / "SOB_B_A-14-22549AB-100-001.png")
    with pytest.raises(DataError, match="lies under 40, and its name says 100"):
        items("breakhis", breakhis)
    wrong.rename(wrong.with_name("SOB_B_A_14-22549AB-40-002.png"))
    with pytest.raises(DataError, match="does not match SOB_"):
        items("breakhis", breakhis)


SLIDES = {
    "a1/TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF-D8FB-45CF-B4BD-C6B76294C291.svs",
    "a2/TCGA-3C-AALI-01Z-00-DX2.f6e9a5df-d8fb-45cf-b4bd-c6b76294c292.svs",
    "a3/TCGA-OL-A5RW-01Z-00-DX1.E16DE8EE-31AF-4EAF-A85F-DB3E3E2C3BFF.svs",
    "a4/TCGA-A7-A0CE-01A-01-TS1.E16DE8EE-31AF-4EAF-A85F-DB3E3E2C3BF0.svs",
    "a5/TCGA-A7-A0CE-06Z-00-DX1.E16DE8EE-31AF-4EAF-A85F-DB3E3E2C3BF1.svs",
    "a6/TCGA-B6-A0X1-01Z-00-DX1.svs",
    "a7/TCGA-B6-A0X1-01Z-00-DX3.svs.partial",
}


@pytest.fixture
def tp53(tmp_path) -> Path:
    root = tmp_path / "tp53"
    for slide in SLIDES:
        (root / "slides" / slide).parent.mkdir(parents=True)
        (root / "slides" / slide).write_bytes(b"svs")
    (root / "labels.csv").write_text("patient_id,TP53\nTCGA-3C-AALI,1\nTCGA-OL-A5RW,0\nTCGA-A7-A0CE,1\n")
    return root


def test_tp53_joins_labels_and_leaves_out_the_unknown(tp53):
    table = items("tp53", tp53)
    assert sorted(zip(table["slide"].tolist(), table["label"].tolist(), table["group"].tolist(), table["centre"].tolist())) == [
        ("TCGA-3C-AALI-01Z-00-DX1", 1, "TCGA-3C-AALI", "3C"), ("TCGA-3C-AALI-01Z-00-DX2", 1, "TCGA-3C-AALI", "3C"),
        ("TCGA-OL-A5RW-01Z-00-DX1", 0, "TCGA-OL-A5RW", "OL"),
    ]  # fmt: skip
    assert warned(table, "1 slides have no label and were left out: absent is not wild-type")
    assert warned(table, "2 slides are not DX of a primary tumour") and warned(table, "no exclude.txt")
    assert table.classes == ("wild-type", "mutant")


@pytest.mark.parametrize(
    "text",
    [
        "slide_id,TP53\nTCGA-3C-AALI-01Z-00-DX1.f6e9a5df-d8fb-45cf-b4bd-c6b76294c291.svs,mutant\nTCGA-OL-A5RW-01Z-00-DX1,WT\n",
        "STUDY_ID,SAMPLE_ID,TP53\nx,TCGA-3C-AALI-01,R175H\nx,TCGA-OL-A5RW-01,WT\nx,TCGA-B6-A0X1-01,NS\n",
        "STUDY_ID\tSAMPLE_ID\tTP53\nx\tTCGA-3C-AALI-01\tR175H, R213*\nx\tTCGA-OL-A5RW-01\tWT\n",
        "sampleId,TP53\nbrca_tcga_pan_can_atlas_2018:TCGA-3C-AALI-01,1.0\nTCGA-OL-A5RW-01A,0.0\n",
    ],
)
def test_tp53_tables_of_several_origins(tp53, text):
    (tp53 / "labels.csv").write_text(text)
    table = items("tp53", tp53)
    got = dict(zip(table["slide"].tolist(), table["label"].tolist()))
    assert (
        got["TCGA-3C-AALI-01Z-00-DX1"] == 1
        and got["TCGA-OL-A5RW-01Z-00-DX1"] == 0
        and "TCGA-B6-A0X1-01Z-00-DX1" not in got
    )


def test_tp53_refuses_a_patient_on_both_lists(tp53):
    (tp53 / "exclude.txt").write_text("# distilled on\nslides/TCGA-B6-A0X1-01Z-00-DX1.svs\n")
    assert warned(items("tp53", tp53), "1 slides are of patients in exclude.txt")
    (tp53 / "exclude.txt").write_text("TCGA-3C-AALI-01Z-00-DX9.F6E9A5DF-D8FB-45CF-B4BD-C6B76294C299.svs\n")
    with pytest.raises(DataError, match="1 patients are in labels.csv and in exclude.txt, such as TCGA-3C-AALI"):
        items("tp53", tp53)
    assert items("tp53", tp53, overlap="drop")["group"].tolist() == ["TCGA-OL-A5RW"]
    (tp53 / "exclude.txt").write_text("not a slide\n")
    with pytest.raises(DataError, match=r"exclude.txt, line 1: 'not a slide'"):
        items("tp53", tp53)
    with pytest.raises(DataError, match=r"no exclusion list at .*other.txt"):
        items("tp53", tp53, exclude="other.txt")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("patient_id,BRCA1\nTCGA-3C-AALI,1\n", "needs the columns"),
        ("patient_id,TP53\nTCGA-3C-AALI,perhaps\n", "line 2: TP53 is 'perhaps'"),
        ("patient_id,TP53\nsomebody,1\n", "line 2: 'somebody' is no TCGA barcode"),
        (
            "patient_id,TP53\nTCGA-3C-AALI,1\nTCGA-3C-AALI,0\n",
            "line 3: TCGA-3C-AALI is wild-type here and mutant above",
        ),
        ("slide_id,TP53\nTCGA-3C-AALI-01Z-00-DX1,1\nTCGA-3C-AALI-01Z-00-DX2,0\n", "patient TCGA-3C-AALI is"),
    ],
)
def test_tp53_labels_that_cannot_be(tp53, text, says):
    (tp53 / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        items("tp53", tp53)


def test_tp53_never_opens_a_pickle_and_asks_for_labels(tp53):
    (tp53 / "patient_mutation.pickle").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match="is a pickle, which may run code"):
        items("tp53", tp53, labels="patient_mutation.pickle")
    (tp53 / "labels.csv").unlink()
    with pytest.raises(DataError, match=r"no table of labels at .*labels.csv"):
        items("tp53", tp53)


def test_tp53_one_slide_twice(tp53):
    (tp53 / "slides" / "TCGA-3C-AALI-01Z-00-DX1.f6e9a5df-d8fb-45cf-b4bd-c6b76294c291.svs").write_bytes(b"svs")
    with pytest.raises(DataError, match="are one and the same slide"):
        items("tp53", tp53)
