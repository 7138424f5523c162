"""The index: built once, then a stat a file; built again when anything has changed; never trusted when damaged."""

from __future__ import annotations

import importlib
import os
import pickle
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin import columns
from eosin import files as files_module
from eosin import index as index_module
from eosin.cards import DatasetCard
from eosin.dataset import Dataset
from eosin.errors import DataError, EosinError, MissingError, StoreError
from eosin.folders import Array, ImageFolder
from eosin.index import open_index
from eosin.manifest import Manifest
from eosin.table import Table
from helpers import install, make_tiles, read_table, tile, write_table


@pytest.fixture
def look(tmp_path):
    """look(): the index of the folder `tiny` as a fresh process sees it."""
    make_tiles(tmp_path / "data" / "tiny", 20)
    return lambda **fields: open_index(Manifest("tiny", **fields), tmp_path / "data", tmp_path / "indexes")


@pytest.fixture
def root(tmp_path, look) -> Path:
    return tmp_path / "data" / "tiny"


def settle(root: Path) -> None:
    """Give everything an age, as data on disk have; what changed a moment ago is looked at again."""
    for path in [root, *root.rglob("*")]:
        os.utime(path, (time.time() - 100,) * 2)


def test_a_second_look_reads_nothing(look, root, monkeypatch):
    settle(root)
    first = look()
    monkeypatch.setattr(Manifest, "items", lambda *a: pytest.fail("the table was built again"))
    monkeypatch.setattr(index_module, "_content", lambda *a: pytest.fail("a tile was read again"))
    second = look()
    assert (first.tiles, first.rows) == (second.tiles, second.rows)
    assert {n: v.tolist() for n, v in first.table.columns.items()}.keys() == second.table.columns.keys()
    for name, values in first.table.columns.items():
        np.testing.assert_array_equal(values, second.table[name])
    assert second.table.classes == ("a", "b")


def test_only_changed_files_are_read_again(look, root, monkeypatch):
    settle(root)
    look()
    read = []
    real = index_module._content
    monkeypatch.setattr(index_module, "_content", lambda p: read.append(p.name) or real(p))
    Image.fromarray(tile(77, 1)).save(root / "t" / "0004.png")
    look()
    assert read == ["0004.png"]


def test_a_table_rewritten_at_once_is_seen(look, root):
    """Within one tick of the file system's clock, or while the first look still reads."""
    labels = []
    for label in "abab":
        rows = read_table(root)
        for r in rows[:5]:
            r["label"] = label
        write_table(root, rows)
        labels.append(look().table["label"][:5].tolist())
    assert labels == [[0] * 5, [1] * 5] * 2


def test_a_table_that_changes_while_it_is_indexed_is_looked_at_again(look, root, monkeypatch):
    settle(root)
    real = index_module._content

    def meanwhile(path):
        if path.name == "0000.png":
            rows = read_table(root)
            rows[0]["label"] = "b"
            write_table(root, rows)
        return real(path)

    monkeypatch.setattr(index_module, "_content", meanwhile)
    look()
    monkeypatch.undo()
    assert look().table["label"][0] == 1


def test_the_root_may_move(look, root, tmp_path):
    before = look().tiles
    (tmp_path / "other").mkdir()
    root.rename(tmp_path / "other" / "tiny")
    after = open_index(Manifest("tiny"), tmp_path / "other", tmp_path / "indexes")
    assert after.tiles == before, "content counts, not place"


def test_raw_folders_are_only_read(look, root):
    before = {p: p.stat().st_mtime_ns for p in [root, *root.rglob("*")]}
    look()
    assert before == {p: p.stat().st_mtime_ns for p in [root, *root.rglob("*")]}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_data_folder(look, root):
    os.chmod(root, 0o555)
    try:
        assert len(look().table) == 20
    finally:
        os.chmod(root, 0o755)


def test_a_place_for_indexes_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Cannot write the index .*EOSIN_HOME"):
        open_index(Manifest("tiny"), tmp_path / "data", tmp_path / "file" / "indexes")


def test_a_full_disk_leaves_no_half_index(look, root, tmp_path, monkeypatch):
    import errno

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StoreError, match="No space left"):
            look()
    assert not [p for p in (tmp_path / "indexes").rglob("*") if p.is_file()]
    assert len(look().table) == 20


def test_a_damaged_index_is_made_again(look, root, tmp_path):
    settle(root)
    good = look()
    (kept,) = (tmp_path / "indexes").rglob(index_module.KEPT)
    raw, rng = kept.read_bytes(), random.Random(0)
    harms = [b"", b"x", raw[:100], raw[: len(raw) // 2], raw[:-1]]
    for _ in range(150):
        bad = bytearray(raw)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        harms.append(bytes(bad))
    for harm in harms:
        kept.write_bytes(harm)
        again = look()
        assert (again.tiles, again.rows) == (good.tiles, good.rows)


def test_a_large_index_is_mapped_and_shared(look, root, monkeypatch):
    settle(root)
    small = look()
    by_value = pickle.loads(pickle.dumps(small))  # noqa: S301
    assert not small.mapped and by_value.table["id"].tolist() == small.table["id"].tolist()
    monkeypatch.setattr(columns, "MAPPED", 1)
    large = look()
    assert large.mapped and (large.tiles, large.rows) == (small.tiles, small.rows)
    sent = pickle.dumps(large)
    assert large.table["source"][3].encode() not in sent, "a worker looks it up where it lies"
    again = pickle.loads(sent)  # noqa: S301
    assert again.mapped and again.rows == large.rows and again.root == root
    for name, values in small.table.columns.items():
        np.testing.assert_array_equal(again.table[name], values)
    rows = read_table(root)
    rows[0]["label"] = "b" if rows[0]["label"] == "a" else "a"
    write_table(root, rows)
    assert look().mapped and large.table["label"][0] == small.table["label"][0], "what is mapped stays what it was"
    with pytest.raises(DataError, match="tiny: the index .* is not the one .* Run it again"):
        pickle.loads(sent)  # noqa: S301


def test_a_table_for_people_that_is_gone_is_made_again(look, root):
    settle(root)
    path = look().path
    text = path.read_text()
    path.unlink()
    assert look().path.read_text() == text


def test_a_loader_that_was_mended_makes_another_table(tmp_path, monkeypatch):
    (tmp_path / "data" / "own").mkdir(parents=True)
    (tmp_path / "data" / "own" / "x").write_bytes(b"pixels")
    settle(tmp_path / "data" / "own")
    found = []
    for label in (0, 1):
        (tmp_path / "own_loader.py").write_text(
            "import eosin\n\nclass Own(eosin.Dataset):\n    def items(self, root):\n"
            f"        return eosin.Table({{'id': ['a'], 'source': ['x'], 'label': [{label}]}}, ('p', 'q'))\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        sys.modules.pop("own_loader", None)
        importlib.invalidate_caches()
        own = importlib.import_module("own_loader").Own("own")
        found.append(open_index(own, tmp_path / "data", tmp_path / "i").table["label"][0])
    assert found == [0, 1]


def test_odd_text_survives(root, look):
    rows = read_table(root)
    for i, text in enumerate(
        ["line\nbreak", "carriage\rreturn", "tab\there", "日本", 'quote"', "a,b", " nbsp\u00a0", "\u2028"]
    ):
        rows[i]["group"] = text
        rows[i]["remark"] = text * 2
    rows[9]["label"] = "two\nlines"
    write_table(root, rows)
    settle(root)
    first, second = look(), look()
    assert first.rows == second.rows and first.table.classes == second.table.classes
    for name in first.table.columns:
        np.testing.assert_array_equal(first.table[name], second.table[name])
    assert first.table["group"][0] == "line\nbreak"


def test_targets_counts_and_warnings_survive(tmp_path):
    class Own(Dataset):
        kind = "own"

        def items(self, root):
            return Table({"id": ["a", "b"], "source": ["x", "x"], "label": [0, 1], "age": [1.5, np.nan], "n": [3, 4]}, ("p", "q"),
                         np.array([[1.0, 2.0], [3.0, np.nan]]), ("g", "h"), ["odd\nindeed"], {"all": 2})  # fmt: skip

    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "x").write_bytes(b"pixels")
    settle(tmp_path / "own")
    first, second = (open_index(Own("own"), tmp_path, tmp_path / "i") for _ in range(2))
    assert first.rows == second.rows and first.tiles == second.tiles
    assert (
        second.table.counts == {"all": 2}
        and second.table.warnings == ["odd\nindeed"]
        and second.table.target_names == ("g", "h")
    )
    np.testing.assert_array_equal(first.table.target, second.table.target)
    np.testing.assert_array_equal(first.table["age"], second.table["age"])


@pytest.mark.parametrize(
    "error", [AttributeError, ZeroDivisionError, RuntimeError, KeyError, UnicodeDecodeError, AssertionError]
)
def test_a_strangers_loader_may_raise_anything(tmp_path, error):
    class Own(Dataset):
        kind = "own"

        def items(self, root):
            raise error("utf-8", b"", 0, 1, "bad") if error is UnicodeDecodeError else error("a slip")

    (tmp_path / "own").mkdir()
    with pytest.raises(DataError, match=f"own: .*{error.__name__}.*bench data where own"):
        open_index(Own("own"), tmp_path, tmp_path / "i")


def test_a_loader_that_gives_no_table(tmp_path):
    class Own(Dataset):
        def items(self, root):
            return [1, 2]

    (tmp_path / "own").mkdir()
    with pytest.raises(DataError, match="gave list, not an eosin.Table"):
        open_index(Own("own"), tmp_path, tmp_path / "i")


def test_large_files_count_by_size_head_and_tail(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "WHOLE_FILE", 1000)
    monkeypatch.setattr(files_module, "END", 100)
    path = tmp_path / "slide.svs"
    seen = set()
    for content in (b"a" * 5000, b"b" + b"a" * 4999, b"a" * 4999 + b"b", b"a" * 5001):
        path.write_bytes(content)
        seen.add(index_module._content(path))
    assert len(seen) == 4


def test_classes_of_a_card_change_the_record_not_the_tiles(look):
    one, other = look(), look(classes=("b", "a"))
    assert one.tiles == other.tiles and one.rows != other.rows


def test_missing_says_where_it_looked_and_what_it_expected(tmp_path):
    card = DatasetCard("gone", tree="gone/\n└── x.png", how="fetch it from example.org", registration="an account")
    with pytest.raises(
        MissingError,
        match=r"(?s)gone is missing.*Expected there:\n    gone/\n    └── x.png\nHow to get it: fetch.*Registration: an account",
    ):
        open_index(Manifest(card), tmp_path, tmp_path / "i")


def test_image_folders_with_and_without_splits(tmp_path):
    for path in ("a/1.png", "b/2.png", "b/.hidden.png", "__MACOSX/x.png", "b/notes.txt"):
        (tmp_path / "plain" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tile(1, 0)).save(tmp_path / "plain" / path, "png")
    plain = open_index(ImageFolder("plain"), tmp_path, tmp_path / "i").table
    assert (
        plain["id"].tolist() == ["a/1.png", "b/2.png"]
        and plain["label"].tolist() == [0, 1]
        and plain.classes == ("a", "b")
    )
    for path in ("Train/a/1.png", "valid/b/1.png", "test/a/2.png"):
        (tmp_path / "split" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tile(1, 0)).save(tmp_path / "split" / path)
    split = open_index(ImageFolder("split"), tmp_path, tmp_path / "i").table
    assert split["split"].tolist() == ["train", "test", "val"] or sorted(split["split"].tolist()) == [
        "test",
        "train",
        "val",
    ]
    Image.fromarray(tile(2, 0)).save(tmp_path / "plain" / "a" / "3.png")
    assert len(open_index(ImageFolder("plain"), tmp_path, tmp_path / "i").table) == 3, (
        "a new file in a class folder is seen"
    )


@pytest.mark.parametrize("n", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_tiles(home, tmp_path, monkeypatch, capsys, n):
    """Resume decides what is missing from stats and one listing: no image is opened, no tile is read."""
    from eosin.store import write_part
    from helpers import TINT, job

    install(monkeypatch, tmp_path / "site", "eosin_tint", TINT)
    root = home / "data" / "tiny"
    for k in range(100):
        (root / f"{k:02d}").mkdir(parents=True)
    content = b"\x89PNG not really"
    rows = [{"path": f"{i % 100:02d}/{i:06d}.png", "label": "ab"[i % 2], "group": f"p{i % 50}"} for i in range(n)]
    for r in rows:
        with open(root / r["path"], "wb") as handle:
            handle.write(content)
    write_table(root, rows)
    time.sleep(0.1)  # so that nothing is a moment old
    (home / "registry.yaml").write_text("datasets: {tiny: {kind: manifest}}\n")
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("an image was opened"))
    start = time.perf_counter()
    address = job(home).address
    first = time.perf_counter() - start
    for b in list(address.blocks)[::2]:
        write_part(address, b, np.array(["x"]), {"cls": np.zeros((1, 2))})
    monkeypatch.setattr(index_module, "_content", lambda *a: pytest.fail("a tile was read"))
    monkeypatch.setattr(Manifest, "items", lambda *a: pytest.fail("the table was built again"))
    start = time.perf_counter()
    missing = job(home).address.missing()
    seconds = time.perf_counter() - start
    with capsys.disabled():
        print(f"\n{n:,} tiles: first look {first:.2f} s, resume {seconds:.2f} s")
    assert missing == list(address.blocks)[1::2]
    assert seconds < 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "../outside.png"}, "line 2: path '../outside.png' must be relative and stay inside"),
        ({"path": "/etc/passwd"}, "must be relative"),
        ({"path": ""}, "must be relative"),
        ({"path": "t/absent.png"}, "1 of 20 files that the table names are not below .*absent.png"),
        ({"path": "t/nul\0byte.png"}, "nul"),
        ({"path": "t/0001.png"}, "1 tile ids stand more than once, such as t/0001.png"),
        ({"fold": "one"}, "line 2: fold is 'one', not a whole number"),
        ({"fold": "9" * 30}, "line 2: fold is '999"),
        ({"mpp": "fine"}, "line 2: mpp is 'fine', not a number"),
        ({"id": "a\nb"}, "line break"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be(look, root, change, said):
    rows = read_table(root)
    (name,) = change
    for r in rows:
        r.setdefault(name, "" if name != "id" else r["path"])
    rows[0] |= change
    write_table(root, rows)
    with pytest.raises(EosinError, match=said):
        look()


def test_a_quote_that_is_never_closed_loses_no_rows(look, root):
    table = (root / "tiles.csv").read_text().splitlines()
    table[4] = table[4].replace(",p", ',"p')
    (root / "tiles.csv").write_text("\n".join(table))
    with pytest.raises(DataError, match="tiles.csv, line .*Close every quote"):
        look()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 3, 16, 16), np.uint8), ((4, 16, 16, 3), np.float32), ((4, 16, 16), np.uint8)]
)
def test_arrays_that_are_no_tiles_are_refused_at_once(tmp_path, shape, dtype):
    import h5py

    (tmp_path / "data" / "x").mkdir(parents=True)
    with h5py.File(tmp_path / "data" / "x" / "x.h5", "w") as file:
        file["images"] = np.zeros(shape, dtype)
    with pytest.raises(DataError, match=r"images is .* of shape .*uint8 \(n, height, width, 3\)"):
        open_index(Array("x"), tmp_path / "data", tmp_path / "indexes")


def test_words_of_a_split_that_nobody_knows_are_said(look, root):
    write_table(root, [r | {"split": "trian" if i < 3 else "dev"} for i, r in enumerate(read_table(root))])
    found = look()
    assert set(found.table["split"]) == {"trian", "val"}
    assert any("split says 'trian' (3 rows)" in w for w in found.warnings)
