"""TIGER's tissue regions and their twin BCSS: names, patches by purity, centres, what is left out, what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from eosin import DatasetCard
from eosin.errors import CardError, DataError
from eosin.plugins import Catalogue
from eosin.tiles import Reader
from eosin_phantom.twins_robustness import tiger
from eosin_robustness.tiger import Bcss, Tiger

NAME = "TCGA-OL-A5RW-01Z-00-DX1.E16DE8EE-31AF-4EAF-A85F-DB3E3E2C3BFF_[2888, 3422, 3494, 3935].png"
CELL = 32


def loader(kind=Tiger, **options):
    return kind(DatasetCard("mine", kind=kind.kind, options=options))


def region(top, name=NAME, mask=None, size=None, images="images"):
    """A region of cells of one mask number each; the image has the number as its grey level."""
    mask = np.array([[1, 3, 2], [6, 5, 7]]) if mask is None else np.asarray(mask)
    drawn = np.kron(mask, np.ones((CELL, CELL))).astype(np.uint8)
    for kind in (images, "masks"):
        (top / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn).save(top / "masks" / name)
    shown = drawn if size is None else drawn[: size[1], : size[0]]
    Image.fromarray(np.repeat(shown[..., None], 3, axis=2)).save(top / images / name)
    return drawn


def test_names_with_spaces_commas_and_brackets(tmp_path):
    top = tmp_path / "wsirois" / "roi-level-annotations" / "tissue-bcss"
    region(top)
    region(top, "TCGA-A2-A0CM-01Z-00-DX1.AC4901DE-4B6D-4185-BB9F-156033839828_[18562,56852,21229,59191].png")
    table = loader(patch=CELL).items(tmp_path)
    assert len(table) == 10 and set(table["centre"].tolist()) == {"OL", "A2"}
    one = table["centre"] == "OL"
    assert set(table["slide"][one].tolist()) == {NAME.partition("_[")[0]}
    assert set(table["group"][one].tolist()) == {"TCGA-OL-A5RW"}
    at = sorted(zip(table["y"][one].tolist(), table["x"][one].tolist(), table["label"][one].tolist(), strict=True))
    assert at == [(0, 0, 0), (0, 32, 1), (0, 64, 2), (32, 0, 3), (32, 32, 4)]
    assert set(table["roi_x"][one].tolist()) == {2888} and set(table["mpp"].tolist()) == {0.5}
    reader, dataset = Reader(tmp_path, table), loader(patch=CELL)
    for i in range(len(table)):
        number = {0: 1, 1: 3, 2: 2, 3: 6, 4: 5}[int(table["label"][i])]
        assert set(np.unique(np.asarray(reader.read(i)))) == {number}
        assert set(np.unique(dataset.mask(tmp_path, table, i))) == {table["label"][i] + 1}
    assert any("2 patches are to less than" in w for w in table.warnings)


def test_purity_and_stride(tmp_path):
    drawn = region(tmp_path)
    table = loader(patch=CELL, stride=8, purity=0.75).items(tmp_path)
    want = {}
    for y in range(0, CELL + 1, 8):
        for x in range(0, 2 * CELL + 1, 8):
            box = drawn[y : y + CELL, x : x + CELL]
            share = {c: (box == n).mean() for n, c in Tiger.labels.items()}
            best = max(share, key=share.get)
            if share[best] >= 0.75:
                want[x, y] = best, share[best]
    found = {
        (x, y): (c, p) for x, y, c, p in zip(*(table[n].tolist() for n in ("x", "y", "label", "purity")), strict=True)
    }
    assert found == want and len(want) > 5
    assert len(loader(patch=CELL, purity=1.0, stride=8).items(tmp_path)) == 5


def test_what_is_left_out_is_counted(tmp_path):
    region(tmp_path)
    region(tmp_path, "TC_S01_P000054_C0001_B101_[1, 2, 3, 4].png")
    region(tmp_path, "100B_[35129, 6567, 36429, 7757].png")
    (tmp_path / "images" / "._x.png").write_bytes(b"macOS")
    table = loader(patch=CELL).items(tmp_path)
    assert table.counts == {"regions": 1, "slides": 1, "centres": 1} and len(table) == 5
    assert any(w.startswith("2 regions are of RUMC or JB") for w in table.warnings)
    assert any("official 151" in w for w in table.warnings)


def test_a_mask_may_differ_by_a_pixel_or_two(tmp_path):
    region(tmp_path, size=(3 * CELL - 1, 2 * CELL - 2))
    table = loader(patch=CELL - 2, stride=CELL).items(tmp_path)
    assert len(table) == 5 and any("pixel or two" in w for w in table.warnings)
    Reader(tmp_path, table).read(4)
    region(tmp_path, size=(3 * CELL - 5, 2 * CELL))
    with pytest.raises(DataError, match="of another region"):
        loader(patch=CELL).items(tmp_path)


def test_tissue_cells_are_not_read(tmp_path):
    region(tmp_path / "a" / "tissue-bcss")
    region(tmp_path / "a" / "tissue-cells", NAME.replace("OL", "A2"))
    assert set(loader(patch=CELL).items(tmp_path)["centre"].tolist()) == {"OL"}


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(DataError, match="no folder with images and masks"):
        loader().items(tmp_path)
    region(tmp_path)
    with pytest.raises(CardError, match="no option size"):
        loader(size=3).items(tmp_path)
    with pytest.raises(CardError, match="purity"):
        loader(purity=0.3).items(tmp_path)
    with pytest.raises(DataError, match="none holds a patch of 224 px"):
        loader().items(tmp_path)
    (tmp_path / "images" / "strange.png").write_bytes((tmp_path / "images" / NAME).read_bytes())
    with pytest.raises(DataError, match="does not match"):
        loader(patch=CELL).items(tmp_path)
    (tmp_path / "images" / "strange.png").unlink()
    (tmp_path / "masks" / NAME).write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        loader(patch=CELL).items(tmp_path)
    (tmp_path / "masks" / NAME).unlink()
    with pytest.raises(DataError, match="has no mask"):
        loader(patch=CELL).items(tmp_path)


def test_bcss(tmp_path):
    name = "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500.png"
    region(tmp_path, name, mask=[[1, 20, 2], [3, 4, 0]], images="rgbs")
    table = loader(Bcss, patch=CELL).items(tmp_path)
    assert table["label"].tolist() == [0, 1, 2, 3, 4] and set(table["mpp"].tolist()) == {0.25}
    assert set(table["slide"].tolist()) == {"TCGA-A1-A0SK-DX1"} and set(table["centre"].tolist()) == {"A1"}


def test_the_twin_is_read_like_the_original(tmp_path):
    tiger(tmp_path / "tiger", 0, cell=48)
    dataset = Catalogue().datasets.get("tiger", "")
    assert dataset.card.title and dataset.present(tmp_path)
    table = loader(patch=48).items(tmp_path / "tiger")
    assert np.bincount(table["label"]).tolist() == [11] * 5
    assert table.counts == {"regions": 11, "slides": 11, "centres": 6}
    assert not any("RUMC" in w for w in table.warnings)


def test_the_twin_has_a_strength(tmp_path):
    """Between centres colours are as far apart as the strength says; the same seed gives the same bytes."""
    apart = []
    for strength in (0, 2):
        top = tmp_path / str(strength)
        tiger(top, 3, strength, cell=32)
        table = loader(patch=32).items(top)
        reader = Reader(top, table)
        colour = np.stack([np.asarray(reader.read(i)).mean((0, 1)) for i in range(len(table))])
        means = [colour[table["centre"] == c].mean(0) for c in np.unique(table["centre"])]
        apart.append(np.std(means, axis=0).mean())
    assert apart[1] > 1.5 * apart[0]
    tiger(tmp_path / "again", 3, 2, cell=32)
    files = sorted(p.relative_to(tmp_path / "2") for p in (tmp_path / "2").rglob("*.png"))
    assert all((tmp_path / "2" / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
