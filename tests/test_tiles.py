"""Pixels: what is read as it is, what is refused, and that no damaged file does more than be named."""

from __future__ import annotations

import random
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from eosin.errors import DataError
from eosin.table import Table
from eosin.tiles import BrokenTile, Reader, load_rgb
from helpers import tile

RGB = tile(3, 0, 24)


def read(path):
    """As the harness reads: through a table, where every failure must be a BrokenTile."""
    return Reader(path.parent, Table({"id": ["the-tile"], "source": [path.name]})).read(0)


def refused(path) -> str:
    with pytest.raises(BrokenTile, match="^the-tile: ") as error:
        read(path)
    return str(error.value)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_files_are_read_as_they_are(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    image = read(tmp_path / f"a.{suffix}")
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), RGB)


def test_grey_palette_and_black_and_white_become_rgb(tmp_path):
    grey = Image.fromarray(RGB[..., 0])
    for name, image in {"l": grey, "p": Image.fromarray(RGB).quantize(16), "one": grey.convert("1")}.items():
        image.save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(np.asarray(read(tmp_path / f"{name}.png")), np.asarray(image.convert("RGB")))


def test_transparent_pixels_are_glass(tmp_path):
    alpha = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    alpha[:4] = (0, 0, 0, 0)
    Image.fromarray(alpha).save(tmp_path / "a.png")
    pixels = np.asarray(read(tmp_path / "a.png"))
    assert (pixels[:4] == 255).all()
    np.testing.assert_array_equal(pixels[4:], RGB[4:])


def png(color: int, depth: int, width: int, height: int, raw: bytes, extra: bytes = b"") -> bytes:
    """A PNG by hand, for what Pillow will not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def transparency(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))


@pytest.mark.parametrize(
    ("color", "channels", "extra"),
    [
        (0, 1, b""),
        (2, 3, b""),
        (4, 2, b""),
        (6, 4, b""),
        (0, 1, transparency(b"\0\1")),
        (2, 3, transparency(b"\0\1" * 3)),
    ],
    ids=["grey", "rgb", "grey+alpha", "rgba", "grey+key", "rgb+key"],
)
def test_sixteen_bits_are_refused(tmp_path, color, channels, extra):
    row = b"\0" + b"\x12\x34" * channels * 8
    (tmp_path / "a.png").write_bytes(png(color, 16, 8, 8, row * 8, extra))
    assert "16-bit" in refused(tmp_path / "a.png") and "convert it to 8-bit RGB" in refused(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "image", "word"),
    [
        ("c.jpg", Image.new("CMYK", (9, 9)), "CMYK"),
        ("c.tif", Image.new("CMYK", (9, 9)), "CMYK"),
        ("lab.tif", Image.new("LAB", (9, 9)), "LAB"),
        ("f.tif", Image.fromarray(np.zeros((9, 9), np.float32)), "F image"),
        ("i.tif", Image.fromarray(np.zeros((9, 9), np.int32)), "I image"),
        ("i16.tif", Image.fromarray(np.zeros((9, 9), np.uint16)), "16-bit"),
    ],
)
def test_colours_that_would_be_a_guess_are_refused(tmp_path, name, image, word):
    image.save(tmp_path / name)
    assert word in refused(tmp_path / name) and "convert it to 8-bit RGB" in refused(tmp_path / name)


@pytest.mark.parametrize("size", [(100_000, 100_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_a_huge_header_is_refused_unread(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png(2, 8, *size, b"\0"))
    assert "pixels" in refused(tmp_path / "a.png") and "cut it into tiles" in refused(tmp_path / "a.png")


def test_empty_foreign_and_absent_files(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    assert "empty (0 bytes)" in refused(tmp_path / "empty.png")
    assert "not an image" in refused(tmp_path / "text.png")
    assert "No such file" in refused(tmp_path / "absent.png")
    (tmp_path / "folder.png").mkdir()
    refused(tmp_path / "folder.png")


FORMATS = {
    "png": {},
    "jpg": {"quality": 90},
    "tif": {"compression": "tiff_lzw"},
    "bmp": {},
    "webp": {},
    "gif": {},
    "jp2": {},
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_anywhere_is_a_broken_tile(tmp_path, suffix):
    Image.fromarray(RGB).save(whole := tmp_path / f"a.{suffix}", **FORMATS[suffix])
    raw, path = whole.read_bytes(), tmp_path / f"b.{suffix}"
    for end in range(0, len(raw) * 9 // 10, max(1, len(raw) // 60)):
        path.write_bytes(raw[:end])
        if suffix == "gif" or suffix == "jp2":  # these may decode what is there: either answer is clean
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome(path)
        else:
            refused(path)


def outcome(path) -> None:
    """An RGB image or a BrokenTile, never anything else."""
    try:
        assert read(path).mode == "RGB"
    except BrokenTile as error:
        assert error.tile == "the-tile" and error.why


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", FORMATS)
def test_random_damage_is_an_image_or_a_broken_tile(tmp_path, suffix):
    rng = random.Random(1)
    Image.fromarray(RGB).save(whole := tmp_path / f"a.{suffix}", **FORMATS[suffix])
    raw, path = whole.read_bytes(), tmp_path / f"b.{suffix}"
    for _ in range(150):
        bad = bytearray(raw)
        for _ in range(rng.choice([1, 1, 3, 20])):
            bad[rng.randrange(min(len(bad), rng.choice([40, 200, len(bad)])))] = rng.randrange(256)
        path.write_bytes(bad)
        outcome(path)


def test_boxes_cut_what_they_say_and_leave_no_image(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    boxes = {"x": [0, 5, 20, -1], "y": [0, 6, 0, 0], "w": [24, 7, 5, 4], "h": [24, 8, 5, 4]}
    reader = Reader(tmp_path, Table({"id": list("abcd"), "source": ["a.png"] * 4, **boxes}))
    np.testing.assert_array_equal(np.asarray(reader.read(1)), RGB[6:14, 5:12])
    np.testing.assert_array_equal(np.asarray(reader.read(0)), RGB)
    for i in (2, 3):
        with pytest.raises(BrokenTile, match="leaves the image of 24x24"):
            reader.read(i)


def test_rows_of_an_array(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.stack([RGB, RGB[::-1]])
        file["deep"] = np.zeros((2, 8, 8, 3), np.uint16)
    columns = {"id": list("abc"), "source": ["a.h5"] * 3, "key": ["x", "deep", "x"], "row": [1, 0, 7]}
    reader = Reader(tmp_path, Table(columns))
    np.testing.assert_array_equal(np.asarray(reader.read(0)), RGB[::-1])
    with pytest.raises(BrokenTile, match="uint16"):
        reader.read(1)
    with pytest.raises(BrokenTile, match="^c: "):
        reader.read(2)


def test_threads_share_a_reader(tmp_path):
    for i in range(40):
        Image.fromarray(tile(i, 0)).save(tmp_path / f"{i}.png")
    reader = Reader(tmp_path, Table({"id": list(map(str, range(40))), "source": [f"{i}.png" for i in range(40)]}))
    with ThreadPoolExecutor(8) as pool:
        for i, image in enumerate(pool.map(reader.read, range(40))):
            np.testing.assert_array_equal(np.asarray(image), tile(i, 0))


def test_a_refusal_says_no_path_twice(tmp_path):
    with pytest.raises(DataError, match="^is empty"):
        (tmp_path / "a.png").touch()
        load_rgb(tmp_path / "a.png")


def test_what_other_programs_would_have_to_draw_is_no_image(tmp_path):
    (tmp_path / "t.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n")
    with pytest.raises(DataError, match="is not an image in any of PNG, JPEG"):
        load_rgb(tmp_path / "t.png")
