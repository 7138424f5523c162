"""The store: what is published is whole, what is damaged is found, who works on what is known, a full disk loses nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from eosin import claims, store
from eosin.claims import Claims
from eosin.errors import StoreError
from eosin.store import Address, Damaged, Memory


def address(folder: Path, rows: int = 300) -> Address:
    return Address(folder / "m@1" / "d@2", rows, {"model": {"name": "m"}, "view": "original"})


def fill(a: Address, width: int = 5) -> np.ndarray:
    X = np.random.default_rng(0).normal(size=(a.rows, width)).astype(np.float32)
    ids = np.array([f"tile-{i}.png" for i in range(a.rows)])
    for b in a.blocks:
        span = slice(a.span(b).start, a.span(b).stop)
        store.write_part(a, b, ids[span], {"cls": X[span], "mean": X[span, :2]})
    return X


def test_what_is_written_is_read(tmp_path):
    a = address(tmp_path)
    X = fill(a)
    ids, broken, found = store.read(a, ["mean", "cls"])
    assert ids.tolist() == [f"tile-{i}.png" for i in range(300)] and not broken.any()
    np.testing.assert_array_equal(found["cls"], X)
    np.testing.assert_array_equal(found["mean"], X[:, :2])
    assert set(store.read(a, [])[2]) == {"cls", "mean"}
    assert store.given_readouts(a) == ("cls", "mean")


def test_equal_content_is_equal_bytes(tmp_path):
    for name in "ab":
        fill(address(tmp_path / name))
        time.sleep(0.01)  # no clock in the file
    files = [sorted((tmp_path / name).rglob("*.h5")) for name in "ab"]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


def test_ids_that_are_not_ascii_and_rows_that_are_broken(tmp_path):
    a = address(tmp_path, 3)
    broken = np.array([False, True, False])
    store.write_part(a, 0, np.array(["ä/1.png", "漢字", "c"]), {"cls": np.full((3, 2), np.nan)}, broken)
    ids, found, _ = store.read(a, [])
    assert ids.tolist() == ["ä/1.png", "漢字", "c"] and found.tolist() == broken.tolist()


def test_plain_hdf5_tools_read_a_part(tmp_path):
    import h5py

    a = address(tmp_path, 4)
    X = fill(a)
    with h5py.File(a.part(0), "r") as file:
        np.testing.assert_array_equal(file["cls"][:], X)
        assert file.attrs["encoding-type"] == "eosin-embeddings" and file.attrs["rows"] == 4


def test_blocks_cover_the_rows_once():
    for rows in (0, 1, 255, 256, 257, 65_536, 65_537, 3_000_000):
        a = Address(Path("x"), rows, {})
        assert [i for b in a.blocks for i in (a.span(b).start, a.span(b).stop)][-1:] == ([rows] if rows else [])
        assert a.rows_of(a.blocks) == rows and len(a.blocks) <= 512


def test_a_flipped_byte_anywhere_is_found(tmp_path):
    a = address(tmp_path, 40)
    fill(a)
    part = a.part(0)
    good = part.read_bytes()
    spots = [*range(0, len(good), 97), store.HEAD - 1, store.HEAD, len(good) - 1]
    missed = []
    for at in spots:
        bad = bytearray(good)
        bad[at] ^= 0x20
        part.write_bytes(bad)
        if store.sound(part):
            missed.append(at)
    assert not missed, f"bytes {missed[:5]} of {len(good)} can flip unseen"
    part.write_bytes(good)
    assert store.sound(part)


@pytest.mark.parametrize("harm", [b"", b"short", "cut", "longer", "directory"])
def test_a_damaged_part_is_named_and_set_aside(tmp_path, harm):
    a = address(tmp_path)
    fill(a)
    part, good = a.part(1), a.part(1).read_bytes()
    if harm == "directory":
        part.unlink()
        part.mkdir()
    else:
        part.write_bytes({"cut": good[:-1], "longer": good + b"\0"}.get(harm, harm))
    with pytest.raises(Damaged, match="part-000001.h5") as error:
        store.read(a, [])
    assert error.value.paths == [part]
    assert a.missing() == [1], "it no longer counts as published"
    assert part.with_name(part.name + ".damaged").exists(), "it can still be looked at"


def test_readouts_are_learnt_from_a_sound_part_only(tmp_path):
    """A flipped byte in a readout's name must lead to repair, not to 'this model has no cls'."""
    a = address(tmp_path)
    fill(a)
    raw = a.part(0).read_bytes()
    assert raw.count(b"cls\0") == 1
    a.part(0).write_bytes(raw.replace(b"cls\0", b"clt\0"))
    assert store.given_readouts(a) == ("cls", "mean")


def test_a_readout_that_is_not_there_is_said(tmp_path):
    a = address(tmp_path)
    fill(a)
    with pytest.raises(StoreError, match=r"no readout 'grid', only cls, mean.*--readout"):
        store.read(a, ["grid"])


def no_space(*args, **kw):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["replace", "fsync", "open"])
def test_disk_full_while_publishing(tmp_path, monkeypatch, where):
    a = address(tmp_path)
    X = np.zeros((256, 3), np.float32)
    ids = np.arange(300).astype(str)
    store.write_part(a, 0, ids[:256], {"cls": X})
    before = a.part(0).read_bytes()
    with monkeypatch.context() as patch:
        if where == "open":
            patch.setattr(store, "open", no_space, raising=False)
        else:
            patch.setattr(os, where, no_space)
        with pytest.raises(StoreError, match="No space left.*GB free.*--store"):
            store.write_part(a, 1, ids[256:], {"cls": X[:44]})
    assert [p.name for p in a.folder.iterdir()] == ["part-000000.h5"], "nothing half-written is left"
    assert a.part(0).read_bytes() == before and a.missing() == [1]


def test_disk_full_while_claiming(tmp_path, monkeypatch):
    a = address(tmp_path)
    monkeypatch.setattr(claims, "open", no_space, raising=False)
    with pytest.raises(StoreError, match="No space left.*--store"):
        Claims(a.folder).take(0)


def test_a_disk_that_is_really_full(tmp_path):
    """A file system of 128 kB; needs the right to mount."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        a = address(small, 2000)
        X = np.ones((256, 60), np.float32)
        with pytest.raises(StoreError, match="No space left.*0.00 GB free"):
            for b in a.blocks:
                store.write_part(a, b, np.arange(256).astype(str), {"cls": X})
        kept = sorted(p.name for p in a.folder.iterdir())
        assert kept and kept == [f"part-{b:06d}.h5" for b in range(len(kept))], "whole parts only"
        assert all(store.sound(a.part(b)) for b in a.present())
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_claim_is_one_at_a_time(tmp_path):
    a, b = Claims(tmp_path), Claims(tmp_path)
    assert a.take(3) and not b.take(3) and b.take(4)
    a.release(3)
    assert b.take(3)
    b.release_all()
    assert not list(tmp_path.glob("*.claim"))


def ended_process() -> str:
    """The claim text of a process that is gone."""
    code = "from eosin import claims; print(claims.me())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_claim_of_a_dead_process_is_void_at_once_and_its_rubbish_goes(tmp_path):
    owner = ended_process()
    (tmp_path / "part-000007.claim").write_text(owner)
    (tmp_path / f".part-000007.{owner}.tmp").write_text("half")
    (tmp_path / ".part-000008.other~1~2.tmp").write_text("somebody else's")
    assert Claims(tmp_path).take(7)
    assert sorted(p.name for p in tmp_path.glob(".*.tmp")) == [".part-000008.other~1~2.tmp"]


def test_a_void_claim_goes_to_one_of_all_who_find_it(tmp_path):
    """All see it void at the same moment; the slow ones must not clear away the claim of the one that was fastest."""
    ours, there = [Claims(tmp_path) for _ in range(6)], threading.Barrier(6)

    def take(claim: Claims, block: int) -> bool:
        there.wait()
        return claim.take(block)

    with ThreadPoolExecutor(6) as pool:
        for block in range(60):
            (tmp_path / f"part-{block:06d}.claim").write_text("elsewhere~1~1")
            os.utime(tmp_path / f"part-{block:06d}.claim", (time.time() - 2 * claims.STALE,) * 2)
            assert sum(pool.map(take, ours, [block] * 6)) == 1
            assert not list(tmp_path.glob("*.taking.claim"))


def test_one_killed_while_taking_over_stands_in_nobodys_way(tmp_path):
    for name in ("part-000003.claim", "part-000003.taking.claim"):
        (tmp_path / name).write_text(ended_process())
    claim = Claims(tmp_path)
    assert [claim.take(3), claim.take(3)] == [False, True]
    claim.release(3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("owner", ["elsewhere~1~1", ""])
def test_a_claim_of_the_future_is_void(tmp_path, owner):
    path = tmp_path / "part-000000.claim"
    path.write_text(owner)
    os.utime(path, (time.time() + 3600,) * 2)
    claim = Claims(tmp_path)
    assert claim.take(0)


def test_what_an_owner_writes_is_not_left_behind_while_its_claim_is_fresh(tmp_path):
    owner = "elsewhere~12~34"
    (tmp_path / "part-000000.claim").write_text(owner)
    begun = tmp_path / f".part-000000.{owner}.tmp"
    begun.touch()
    os.utime(begun, (time.time() - 2 * claims.STALE,) * 2)
    assert not Claims(tmp_path).gone(owner), "a slow disk: its claim shows life"
    os.utime(tmp_path / "part-000000.claim", (time.time() - 2 * claims.STALE,) * 2)
    assert Claims(tmp_path).gone(owner)


def test_one_that_thaws_leaves_the_claim_of_its_heir(tmp_path):
    claim = Claims(tmp_path)
    assert claim.take(0)
    (tmp_path / "part-000000.claim").write_text("elsewhere~1~1")
    claim.release(0)
    claim.release_all()
    assert (tmp_path / "part-000000.claim").read_text() == "elsewhere~1~1"


def test_a_claim_of_another_machine_holds_while_it_shows_life(tmp_path):
    path = tmp_path / "part-000000.claim"
    path.write_text("elsewhere~12~34")
    here = Claims(tmp_path)
    assert not here.take(0)
    os.utime(path, (time.time() - 2 * claims.STALE,) * 2)
    assert here.take(0)


def test_a_claim_from_another_container_of_this_host_name_is_not_judged_by_its_pid(tmp_path, monkeypatch):
    """Containers with --network host share the host's name and count processes each for itself."""
    monkeypatch.setattr(claims, "_namespace", lambda: "another")
    theirs = Claims(tmp_path)
    assert theirs.take(0)
    monkeypatch.undo()
    assert not Claims(tmp_path).take(0)


def test_an_empty_claim_gets_the_benefit_of_the_doubt_for_a_moment(tmp_path):
    path = tmp_path / "part-000000.claim"
    path.touch()
    assert not Claims(tmp_path).take(0)
    os.utime(path, (time.time() - 5,) * 2)
    assert Claims(tmp_path).take(0)


def test_a_heartbeat_renews_claims(tmp_path):
    mine = Claims(tmp_path)
    mine.take(0)
    os.utime(mine.path(0), (1, 1))
    mine.touch()
    assert time.time() - mine.path(0).stat().st_mtime < 60


def test_the_memory_of_hashes_costs_a_stat(tmp_path, monkeypatch):
    from eosin import extractor

    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    first = Memory(tmp_path / "hashes.json").hash(file)
    with monkeypatch.context() as patch:
        patch.setattr(extractor, "hash_file", lambda p: pytest.fail("read again"))
        assert Memory(tmp_path / "hashes.json").hash(file) == first
    file.write_bytes(b"another")
    assert Memory(tmp_path / "hashes.json").hash(file) != first


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 5}', "\0\0"])
def test_a_damaged_memory_is_made_again(tmp_path, text):
    file = tmp_path / "w"
    file.write_bytes(b"one")
    kept = tmp_path / "hashes.json"
    kept.write_text(text.replace("x", str(file)))
    assert Memory(kept).hash(file) == Memory(tmp_path / "fresh.json").hash(file)


def test_a_missing_weights_file_is_an_error_with_a_step(tmp_path):
    with pytest.raises(StoreError, match="Cannot read .*Check the path"):
        Memory(tmp_path / "hashes.json").hash(tmp_path / "absent")


def test_readouts_are_read_side_by_side_into_one_array(tmp_path):
    a = address(tmp_path)
    X = fill(a)
    _, _, joined, columns = store.read_joined(a, ["mean", "cls"])
    assert columns == {"mean": slice(0, 2), "cls": slice(2, 7)}
    np.testing.assert_array_equal(joined, np.concatenate([X[:, :2], X], axis=1))


def test_what_exceeds_half_the_free_memory_is_mapped_and_leaves_no_file(tmp_path, monkeypatch):
    a = address(tmp_path)
    X, before = fill(a), sorted(a.folder.iterdir())
    monkeypatch.setattr(store, "free_memory", lambda: 300 * 5 * 4 * 2 - 1)
    _, _, found = store.read(a, ["cls"])
    assert isinstance(found["cls"], np.memmap)
    np.testing.assert_array_equal(found["cls"], X)
    assert sorted(a.folder.iterdir()) == before
    monkeypatch.setattr(store, "free_memory", lambda: 300 * 5 * 4 * 2)
    assert not isinstance(store.read(a, ["cls"])[2]["cls"], np.memmap)


def test_neither_memory_nor_disk(tmp_path, monkeypatch):
    a = address(tmp_path)
    fill(a)
    monkeypatch.setattr(store, "free_memory", lambda: 0)
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(StoreError, match="no room to map it: No space left.*--store"):
        store.read(a, ["cls"])


def test_reading_holds_no_row_twice(tmp_path):
    """Peak of what Python allocates: the array, and little beside it."""
    import tracemalloc

    a = address(tmp_path, 2000)
    for b in a.blocks:
        n = len(a.span(b))
        store.write_part(a, b, np.arange(n).astype(str), {r: np.ones((n, 800), np.float32) for r in ("cls", "mean")})
    store.read_joined(a, ["cls"])
    tracemalloc.start()
    _, _, X, _ = store.read_joined(a, ["cls", "mean"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert X.nbytes <= peak < 1.25 * X.nbytes


def test_claims_that_nobody_wrote_stop_nobody_for_long(tmp_path):
    """Bytes that are no text, patterns, ways out of the folder: void when old, and no more than a file goes."""
    outside = tmp_path / "victim.tmp"
    outside.touch()
    folder = tmp_path / "m" / "d"
    (folder / ".part-000002.d").mkdir(parents=True)
    for block, content in enumerate((b"\xff\xfe", b"**", b"d/../../../victim")):
        path = folder / f"part-{block:06d}.claim"
        path.write_bytes(content)
        os.utime(path, (1, 1))
        claim = Claims(folder)
        assert claim.take(block)
        claim.release(block)
    assert outside.exists()
    (folder / "part-000003.claim").mkdir()
    os.utime(folder / "part-000003.claim", (1, 1))
    with pytest.raises(StoreError, match=r"part-000003.claim is in the way, and is no claim of ours .* Remove it"):
        Claims(folder).take(3)
    os.mkfifo(folder / "part-000004.claim")
    assert not Claims(folder).take(4), "not before its time"
    os.utime(folder / "part-000004.claim", (1, 1))
    assert Claims(folder).take(4)
