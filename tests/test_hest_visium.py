"""A section as other tools leave it: spots are boxes of the image, at the scale that the file tells."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from eosin.errors import CardError, DataError
from eosin.tiles import Reader
from eosin_hest.visium import Visium

anndata = pytest.importorskip("anndata")


@pytest.fixture
def section(tmp_path):
    """Five spots on 300 x 200 px at .5 um, one of them at the border; gene 2 varies most, then gene 0."""
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[:, :, 0] = np.arange(300) // 2
    Image.fromarray(pixels).save(tmp_path / "image.png")
    counts = np.array([[1, 2, 30], [9, 2, 0], [1, 2, 5], [4, 2, 90], [1, 3, 7]], np.float32)
    data = anndata.AnnData(counts)
    data.obs_names, data.var_names = [f"spot{i}" for i in range(5)], ["a", "b", "c"]
    data.obsm["spatial"] = np.array([(60, 60), (150, 80), (200, 120), (240, 140), (290, 100)])
    data.uns["spatial"] = {"lib": {"scalefactors": {"spot_diameter_fullres": 110.0}}}
    data.write_h5ad(tmp_path / "data.h5ad")
    return tmp_path


def test_spots_are_boxes(section):
    table = Visium("v", options={"um": 40, "genes": 2}).items(section)
    assert table["id"].tolist() == ["spot0", "spot1", "spot2", "spot3"] and set(table["mpp"]) == {0.5}
    assert set(table["w"]) == {80} and (table["x"][0], table["y"][0]) == (20, 20)
    assert table.target_names == ("a", "c") and table.target[:, 1] == pytest.approx(np.log1p([30, 0, 5, 90]))
    assert table.warnings == ["1 spots at the border of the image were left out"]
    image = Reader(section, table).read(1)
    assert image.size == (80, 80) and image.getpixel((0, 0))[0] == 110 // 2


def test_values_that_are_no_counts_are_taken_as_they_are(section):
    data = anndata.read_h5ad(section / "data.h5ad")
    data.X = np.log1p(data.X)
    data.write_h5ad(section / "data.h5ad")
    table = Visium("v", options={"um": 10, "genes": 1}).items(section)
    assert table.target[:, 0] == pytest.approx(np.log1p([30, 0, 5, 90, 7])) and "not whole" in table.warnings[0]


def test_what_cannot_be_read(section):
    with pytest.raises(CardError, match="no option px"):
        Visium("v", options={"px": 3}).items(section)
    data = anndata.read_h5ad(section / "data.h5ad")
    with pytest.raises(DataError, match="no spot of 20000 px lies on image.png"):
        Visium("v", mpp=0.0056).items(section)
    del data.uns["spatial"]
    data.write_h5ad(section / "data.h5ad")
    with pytest.raises(DataError, match="Give the card `mpp:`"):
        Visium("v").items(section)
    del data.obsm["spatial"]
    data.write_h5ad(section / "data.h5ad")
    with pytest.raises(DataError, match="lacks obsm spatial"):
        Visium("v", mpp=0.5).items(section)
    (section / "image.png").write_bytes(b"no image")
    anndata.AnnData(np.ones((1, 1), np.float32), obsm={"spatial": np.ones((1, 2))}).write_h5ad(section / "data.h5ad")
    with pytest.raises(DataError, match="cannot be read as an image"):
        Visium("v", mpp=0.5).items(section)
    (section / "more.png").write_bytes(b"")
    with pytest.raises(DataError, match="holds 2 files"):
        Visium("v").items(section)


@pytest.mark.real
def test_squidpys_sample(shared):
    table = Visium("v").items(shared("realdata", "visium_tiny"))
    assert len(table) == 49 and table.target.shape == (49, 50) and set(table["w"]) == {182}
