"""A file of arrays: what was written or nothing, read or mapped, and never trusted when damaged."""

from __future__ import annotations

import pickle
import random
import struct
import zlib

import numpy as np
import pytest

from eosin import columns

ARRAYS = {
    "text": np.array(["a", "日本", "line\nbreak", ""]),
    "numbers": np.array([[1.5, np.nan], [2.0, -0.0]]),
    "whole": np.arange(7)[::2],
    "flags": np.array([True, False]),
    "none": np.empty((0, 3), np.float32),
    "no text": np.array([], str),
}


@pytest.fixture(params=["read", "mapped"])
def file(tmp_path, monkeypatch, request):
    monkeypatch.setattr(columns, "MAPPED", 1 if request.param == "mapped" else 2**40)
    path = tmp_path / "a.columns"
    columns.write(path, {"said": ["x", 1]}, ARRAYS)
    return path, request.param == "mapped"


def test_what_is_written_is_read(file):
    path, as_asked = file
    words, arrays, mapped = columns.read(path)
    assert words == {"said": ["x", 1]} and list(arrays) == list(ARRAYS) and mapped == as_asked
    for name, a in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], a)
        assert arrays[name].dtype == a.dtype and arrays[name].shape == a.shape
    with pytest.raises(ValueError, match="read-only"):
        arrays["whole"][0] = 1


def test_a_mapped_file_may_be_replaced(file):
    path, _ = file
    before = columns.read(path)[1]["text"]
    columns.write(path, {}, {"text": np.array(["other"])})
    assert before.tolist() == ARRAYS["text"].tolist() and columns.read(path)[1]["text"].tolist() == ["other"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_any_damage_is_seen(file):
    path, _ = file
    raw, rng = path.read_bytes(), random.Random(0)
    cut = [raw[:n] for n in (0, 1, 20, 24, 100, len(raw) - 1)] + [raw + b"\0"]
    for at in [*range(24), *rng.sample(range(len(raw)), 200)]:
        bad = bytearray(raw)
        bad[at] ^= 1 << rng.randrange(8)
        cut.append(bytes(bad))
    for bad in cut:
        path.write_bytes(bad)
        with pytest.raises(ValueError):
            columns.read(path)


@pytest.mark.parametrize(
    "place", [["<f8", [10**15], 0], ["<f8", [2], 10**9], ["|O", [1], 0], ["<U9", [2, 2], 8], ["zz", [1], 0]]
)  # fmt: skip
def test_a_head_that_lies_is_refused(tmp_path, place):
    import json

    data = b"\0" * 64
    head = json.dumps({"words": {}, "arrays": {"a": place}, "bytes": 64, "crc": zlib.crc32(data)}).encode()
    path = tmp_path / "a.columns"
    path.write_bytes(columns.MAGIC + struct.pack("<QQ", len(head), zlib.crc32(head)) + head + data)
    with pytest.raises((ValueError, TypeError)):
        columns.read(path)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.columns"
    columns.write(path, {}, {"a": np.arange(3)})
    real = columns._pieces
    monkeypatch.setattr(columns, "_pieces", lambda a: [*real(a), "not bytes"] if a.nbytes > 50 else real(a))
    with pytest.raises(TypeError):
        columns.write(path, {}, {"b": np.arange(100)})
    assert columns.read(path)[1]["a"].tolist() == [0, 1, 2] and len(list(tmp_path.iterdir())) == 1


def test_objects_are_not_for_files(tmp_path):
    with pytest.raises((ValueError, TypeError)):
        columns.write(tmp_path / "a.columns", {}, {"a": np.array([{}, []], object)})
    assert not list(tmp_path.iterdir())


def test_an_array_read_here_can_be_sent(file):
    arrays = columns.read(file[0])[1]
    again = pickle.loads(pickle.dumps(arrays["text"]))  # noqa: S301
    np.testing.assert_array_equal(again, ARRAYS["text"])
