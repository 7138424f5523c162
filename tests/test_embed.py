"""Filling an address: killed, raced, sharded, repaired, it ends with the same bytes; and every question has its address."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from eosin import store
from eosin.embed import Engine, fill
from eosin.errors import DataError, EosinError, ModelError, NotApplicable, StoreError
from helpers import TINT, bench, fork, install, job, make_tiles, parts, read_table, tile, uninstall, write_table

BLOCK = 256
CPU = Engine(device="cpu")


@pytest.fixture
def tint(home, tmp_path, monkeypatch):
    """The traced model, and a maker of its dataset `tiny` in the data folder; returns the folder of traces."""
    traces = tmp_path / "traces"
    traces.mkdir()
    monkeypatch.setenv("TINT_TRACES", str(traces))
    install(monkeypatch, tmp_path / "site", "eosin_tint", TINT)
    (home / "data").mkdir(parents=True)
    (home / "registry.yaml").write_text("datasets: {tiny: {kind: manifest}}\n")
    return traces


@pytest.fixture
def tiny(tint, home):
    return make_tiles(home / "data" / "tiny")


@pytest.fixture
def long(tint, home):
    """1,300 tiles: five blocks and a rest."""
    import torch  # noqa: F401 (before any fork)

    return make_tiles(home / "data" / "tiny", 1300)


def seen(traces: Path) -> Counter:
    """How often the model met each tile."""
    return Counter(map(int, (traces / "seen").read_text().split())) if (traces / "seen").exists() else Counter()


def reference(home, engine: Engine = CPU) -> dict[str, bytes]:
    """The parts of an undisturbed run, which are then taken away."""
    undisturbed = job(home)
    assert fill(undisturbed, engine) == undisturbed.address.rows
    kept = parts(home / "embeddings")
    assert kept
    clear(home)
    return kept


def clear(home) -> None:
    import shutil

    shutil.rmtree(home / "embeddings", ignore_errors=True)


def forget(traces: Path) -> None:
    (traces / "seen").unlink(missing_ok=True)


def killed_runs(home, traces, kills: int, longest: float, seed: int) -> list[int]:
    """Kill that many runs at random moments; tiles that each had embedded and lost."""
    rng = random.Random(seed)
    lost = []
    while len(lost) < kills:
        address = job(home).address
        if not address.missing():
            clear(home)
        before = address.rows_of(address.present())
        forget(traces)
        pid = fork(lambda: fill(job(home), CPU))
        time.sleep(rng.uniform(0, longest))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        met = seen(traces)
        assert not met or max(met.values()) == 1, "no tile twice in one run"
        lost.append(met.total() - (address.rows_of(address.present()) - before))
        assert all(store.sound(address.part(b)) for b in address.present()), "what is published is whole"
    return lost


def survives(home, traces, monkeypatch, kills: int, pause: str, longest: float) -> None:
    whole = reference(home)
    monkeypatch.setenv("TINT_SLEEP", pause)
    lost = killed_runs(home, traces, kills, longest, seed=7)
    print("tiles lost by each kill:", lost)
    assert max(lost) <= BLOCK, f"a kill costs at most one block: {lost}"
    assert sum(n > 0 for n in lost) >= kills / 4, "the kills must fall into the work for this test to mean something"
    monkeypatch.setenv("TINT_SLEEP", "0")
    fill(job(home), CPU)
    assert parts(home / "embeddings") == whole
    assert not list((home / "embeddings").rglob(".*.tmp")), "what killed runs left is cleared"


def test_killed_ten_times_it_ends_bit_equal(home, tint, long, monkeypatch):
    survives(home, tint, monkeypatch, 10, "0.01", 0.9)


@pytest.mark.slow
def test_killed_fifty_times_it_ends_bit_equal(home, tint, long, monkeypatch):
    survives(home, tint, monkeypatch, 50, "0.01", 0.9)


def test_killed_while_it_writes(home, tint, long, monkeypatch):
    """SIGKILL between the temporary file and its rename, of every block in turn."""
    whole = reference(home)
    real = os.replace

    def die(source, target):
        if str(target).endswith(".h5"):
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        pid = fork(lambda: fill(job(home), CPU))
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    assert not parts(home / "embeddings")
    fill(job(home), CPU)
    assert parts(home / "embeddings") == whole
    assert not list((home / "embeddings").rglob(".*.tmp"))


def test_two_processes_fill_one_address(home, tint, long, monkeypatch):
    whole = reference(home)
    forget(tint)
    monkeypatch.setenv("TINT_SLEEP", "0.01")
    pids = [fork(lambda: fill(job(home), CPU)) for _ in range(2)]
    assert [os.waitpid(p, 0)[1] for p in pids] == [0, 0], "both end well"
    assert parts(home / "embeddings") == whole
    met = seen(tint)
    assert len(met) == 1300 and max(met.values()) == 1, f"{met.total() - 1300} tiles embedded twice"
    assert not list((home / "embeddings").rglob("*.claim"))


def test_one_of_two_is_killed_and_the_other_finishes(home, tint, long, monkeypatch):
    whole = reference(home)
    forget(tint)
    monkeypatch.setenv("TINT_SLEEP", "0.01")
    first, second = (fork(lambda: fill(job(home), CPU)) for _ in range(2))
    time.sleep(0.4)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    assert os.waitpid(second, 0)[1] == 0
    assert parts(home / "embeddings") == whole
    assert seen(tint).total() - 1300 <= BLOCK


def test_shards_make_the_whole(home, tint, long):
    whole = reference(home)
    forget(tint)
    for i in (2, 3, 1):
        fill(job(home), Engine(device="cpu", shard=(i, 3)))
    assert parts(home / "embeddings") == whole
    assert seen(tint).total() == 1300


def test_workers_do_not_change_a_byte(home, tint, long):
    assert reference(home, Engine(device="cpu", workers=1)) == reference(home, Engine(device="cpu", workers=7))


def test_another_batch_size_moves_nothing_visible(home, tint, tiny):
    fill(a := job(home), Engine(device="cpu", batch_size=7))
    X = store.read(a.address, ["cls"])[2]["cls"]
    clear(home)
    fill(a, CPU)
    np.testing.assert_allclose(X, store.read(a.address, ["cls"])[2]["cls"], atol=1e-5)


def test_the_row_of_a_tile_is_that_tile(home, tint, long):
    fill(a := job(home), CPU)
    ids, _, found = store.read(a.address, ["cls"])
    for i in (0, 1, 255, 256, 700, 1299):
        assert ids[i] == f"t/{i:04d}.png"
        np.testing.assert_allclose(found["cls"][i, :3], tile(i, i % 2).reshape(-1, 3).mean(0) / 255, atol=1e-6)


def test_a_full_disk_keeps_what_is_stored_and_the_next_run_goes_on(home, tint, long, monkeypatch):
    import errno

    whole = reference(home)
    real, calls = os.replace, []

    def third_fails(source, target):
        if str(target).endswith(".h5"):
            calls.append(target)
            if len(calls) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", third_fails)
        with pytest.raises(StoreError, match="No space left"):
            fill(job(home), CPU)
    kept = parts(home / "embeddings")
    assert 2 <= len(kept) < len(whole) and all(whole[k] == v for k, v in kept.items())
    assert not list((home / "embeddings").rglob(".*.tmp")) and not list((home / "embeddings").rglob("*.claim"))
    fill(job(home), CPU)
    assert parts(home / "embeddings") == whole


# ---- addresses


def folder(home, **need) -> str:
    return job(home, **need).address.folder.relative_to(home / "embeddings").as_posix()


def test_the_same_question_has_the_same_address(home, tint, tiny):
    assert folder(home) == folder(home)


def test_a_changed_tile_is_another_address(home, tint, tiny):
    before = folder(home)
    Image.fromarray(tile(999, 0)).save(tiny / "t" / "0005.png")
    assert folder(home) != before


def test_a_tile_changed_in_one_byte_of_equal_size_and_later_time_is_another_address(home, tint, tiny):
    before = folder(home)
    path = tiny / "t" / "0005.png"
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    time.sleep(0.02)
    path.write_bytes(raw)
    assert folder(home) != before


def test_a_tile_removed_or_added_is_another_address(home, tint, tiny):
    before = folder(home)
    rows = read_table(tiny)
    write_table(tiny, rows[:-1])
    fewer = folder(home)
    assert fewer != before
    write_table(tiny, rows)
    assert folder(home) == before


def test_a_changed_label_is_the_same_address_and_another_record(home, tint, tiny):
    before, first = folder(home), job(home).index.rows
    rows = read_table(tiny)
    rows[0]["label"] = "b"
    write_table(tiny, rows)
    assert folder(home) == before and job(home).index.rows != first


def test_view_geometry_and_grid_are_in_the_address(home, tint, tiny):
    kinds = [{}, {"view": "jpeg-30"}, {"view": "jpeg-31"}, {"geometry": "224"}, {"readout": "grid"}]
    assert len({folder(home, **k) for k in kinds}) == len(kinds)
    assert folder(home, readout="mean") == folder(home, readout="cls"), "one forward pass serves all vector readouts"


@pytest.mark.parametrize(
    "change",
    [
        "size=17",
        "mean=(.1, 0, 0)",
        "std=(1, 1, 0.5)",
        "interpolation='nearest'",
        "crop=0.9",
        "precision='bf16'",
        "version=2",
        "dim=7",
        "readout='mean'",
    ],
)
def test_a_changed_card_is_another_address(home, tint, tiny, tmp_path, monkeypatch, change):
    before = folder(home)
    key = change.partition("=")[0]
    source = TINT.replace("class Tint(eosin", "import dataclasses\n\nclass Tint(eosin")
    source = source.replace(
        "    def build(self):", f"    card = dataclasses.replace(card, {change})\n\n    def build(self):", 1
    )
    assert f"replace(card, {key}" in source
    install(monkeypatch, tmp_path / "site", "eosin_tint", source)
    assert folder(home) != before


def test_changed_code_is_another_address_and_a_changed_title_is_not(home, tint, tiny, tmp_path, monkeypatch):
    before = folder(home)
    install(monkeypatch, tmp_path / "site", "eosin_tint", TINT.replace("flat.std(2)", "flat.max(2)"))
    assert folder(home) != before
    install(monkeypatch, tmp_path / "site", "eosin_tint", TINT)
    assert folder(home) == before


def test_a_changed_weights_file_is_another_address(home, tint, tiny, tmp_path):
    import timm
    from safetensors.torch import save_file

    arch = timm.create_model("test_vit", num_classes=0)
    card = tmp_path / "ours.yaml"
    card.write_text("kind: timm\narch: test_vit\nweights: ours.safetensors\n")
    found = []
    for _ in range(2):
        save_file(arch.state_dict(), tmp_path / "ours.safetensors")
        found.append(job(home, str(card)).address.folder)
        arch.cls_token.data += 1
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "ours.safetensors").rename(moved / "w.safetensors")
    card.write_text("kind: timm\narch: test_vit\nweights: elsewhere/w.safetensors\ntitle: moved\n")
    found.append(job(home, str(card)).address.folder)
    assert found[0] != found[1] and found[1] == found[2], "content counts, not place or title"


def test_precision_on_the_command_line_is_another_address(home, tint, tiny):
    rows = [
        bench("embed", "-m", "tint", "-d", "tiny", "--status", "--json", *more).json["jobs"][0]["address"]
        for more in ([], ["--precision", "bf16"])
    ]
    assert rows[0] != rows[1]


def test_float16_halves_the_store_and_has_its_own_address(home, tint, tiny):
    exact, half = (
        bench("run", "-m", "tint", "-b", "tint-mean", "--json", *more).json for more in ([], ["--stored", "float16"])
    )
    assert exact["embedded"] == half["embedded"] > 0 and exact["records"] != half["records"]
    folders = sorted((home / "embeddings").glob("tint@*/tiny@*"))
    kept = [store.stored(folder) for folder in folders]
    kept.sort(key=lambda a: a.about["model"]["stored"])
    with h5py.File(kept[0].part(0), "r") as file:
        assert file["cls"].dtype == np.float16
    (_, _, rounded), (_, _, whole) = (store.read(a, ["cls"]) for a in kept)
    assert rounded["cls"].dtype == np.float32
    assert np.array_equal(rounded["cls"], whole["cls"].astype(np.float16).astype(np.float32))
    assert {a.about["model"]["stored"] for a in kept} == {"float16", "float32"}
    again = bench("run", "-m", "tint", "-b", "tint-mean", "--stored", "float16", "--json").json
    assert again["embedded"] == 0
    assert "another fingerprint" not in bench("store", "ls", "--json").out and len(folders) == 2


def test_what_float16_cannot_hold_is_refused(home, tint, tiny, tmp_path, monkeypatch):
    strange(monkeypatch, tmp_path, "return torch.full((n, 4), 1e5)")
    done = bench("embed", "-m", "odd", "-d", "tiny", "--stored", "float16")
    assert done.code == 1 and "65,504" in done.err and "--stored float32" in done.err
    assert not list((home / "embeddings").rglob("part-*"))


# ---- models that do not keep their word


def strange(monkeypatch, tmp_path, embed: str, card: str = "") -> None:
    """A model `odd` whose embed() ends with the given lines; `n` is the batch, `torch` and `np` are there."""
    body = "\n".join("        " + line for line in embed.splitlines())
    install(
        monkeypatch,
        tmp_path / "site",
        "eosin_odd",
        f"import eosin\n\nclass Odd(eosin.FeatureExtractor):\n    card = eosin.ModelCard('odd', size=16, mean=(0, 0, 0), std=(1, 1, 1){card})\n"
        f"    def embed(self, batch):\n        import numpy as np, torch\n        n = len(batch)\n{body}\n"
        "@eosin.hookimpl\ndef provide_models():\n    return [Odd()]\n",
    )


@pytest.mark.parametrize(
    ("embed", "card", "said"),
    [
        (
            "out = torch.zeros(n, 4)\nout[n // 2, 1] = float('nan')\nreturn out",
            "",
            r"NaN or infinite pooled for 4 tiles of tiny, first t/0008.png, t/0024.png, t/0040.png",
        ),
        (
            "return torch.full((n, 4), float('inf'))",
            "",
            r"NaN or infinite .* for 60 tiles of tiny, first t/0000.png, t/0001.png",
        ),
        ("return torch.zeros(n, 4)", ", dim=5", r"readout pooled is 4 wide, the card says dim=5"),
        ("return torch.zeros(n, 4, 4)", "", r"readout pooled has shape \(16, 4, 4\) for 16 tiles"),
        ("return torch.zeros(n - 1, 4)", "", r"shape \(15, 4\) for 16 tiles"),
        ("return torch.zeros(4)", "", r"shape \(4,\) for 16 tiles"),
        (
            "return {'cls': torch.zeros(n, 4)}",
            ", readouts=('cls', 'mean')",
            r"lists readout mean, .*the model gave cls",
        ),
        ("return torch.zeros(n, 4 + (n < 16))", "", r"shape \(4,\) in one batch and \(5,\) in another"),
        ("return {'cls': torch.zeros(n, 4), 'id': torch.zeros(n, 2)}", "", r"readout .?id"),
        ("return {'cls': torch.zeros(n, 4), 'a/b': torch.zeros(n, 2)}", "", r"readout .?a/b"),
        ("return {'cls': torch.zeros(n, 0)}", "", r"shape \(16, 0\)"),
        ("return {}", "", r"gave nothing|no readout"),
        ("return {'grid': torch.zeros(n, 4, 2, 2)}", "", r"only grid|no vector|grid"),
        ("return None", "", r"NoneType"),
        ("raise SystemExit(0)", "", r"odd: embed failed with SystemExit: 0"),
        (
            "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute",
            "",
            r"odd: embed failed with Mute\. Run",
        ),
        ("return [torch.zeros(n, 4), torch.zeros(n, 4)]", "", r"shape|list"),
        ("return {'cls': 'text'}", "", r"cls"),
        ("raise IndexError('deep inside')", "", r"embed failed with IndexError: deep inside"),
    ],
)
def test_a_model_that_does_not_keep_its_word(home, tint, tiny, tmp_path, monkeypatch, embed, card, said):
    strange(monkeypatch, tmp_path, embed, card)
    with pytest.raises(ModelError, match=said) as error:
        fill(job(home, "odd"), CPU)
    assert "odd" in str(error.value) and str(error.value).rstrip().endswith("."), (
        "it names the model and ends with a step"
    )
    assert not parts(home / "embeddings"), "nothing of it is published"
    assert not list((home / "embeddings").rglob("*.claim")), "no claim stays"


def test_nan_in_a_later_block_keeps_the_earlier_ones(home, tint, long, tmp_path, monkeypatch):
    strange(
        monkeypatch,
        tmp_path,
        "out = batch.mean((2, 3))\nif batch[0, 0, 0, 0] * 255 >= 3:\n    out = out / 0 * 0\nreturn out",
    )
    with pytest.raises(ModelError, match=r"NaN .* of tiny, first t/0768.png"):
        fill(job(home, "odd"), CPU)
    assert len(parts(home / "embeddings")) == 3


def test_a_model_without_a_grid_says_so(home, tint, tiny):
    with pytest.raises(NotApplicable, match="gives no grid: cls, mean"):
        fill(job(home, readout="grid"), CPU)


def test_numpy_half_precision_and_whole_numbers_are_taken(home, tint, tiny, tmp_path, monkeypatch):
    for made in (
        "np.ones((n, 3))",
        "torch.ones(n, 3).half()",
        "torch.ones(n, 3, dtype=torch.int64)",
        "torch.ones(n, 3).bfloat16()",
    ):
        strange(monkeypatch, tmp_path, f"return {made}")
        fill(a := job(home, "odd"), CPU)
        X = store.read(a.address, [])[2]["pooled"]
        assert X.dtype == np.float32 and (X == 1).all()


def test_a_device_that_is_not_there(home, tint, tiny):
    with pytest.raises(EosinError, match=r"Device 'cuda:77' cannot be used.*--device"):
        fill(job(home), Engine(device="cuda:77"))


# ---- tiles that cannot be read


def test_a_broken_tile_is_named_and_the_other_blocks_are_kept(home, tint, long):
    (long / "t" / "0300.png").write_bytes(b"")
    (long / "t" / "0301.png").write_bytes((long / "t" / "0301.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"2 tiles cannot be read.*t/0300.png.*0 bytes.*t/0301.png.*--skip-broken"):
        fill(job(home), CPU)
    assert job(home).address.missing() == [1], "all blocks but theirs are published"


def test_skip_broken_marks_them_and_goes_on(home, tint, long):
    (long / "t" / "0300.png").write_bytes(b"")
    assert fill(a := job(home), Engine(device="cpu", skip_broken=True)) == 1300
    _, broken, found = store.read(a.address, ["cls"])
    assert np.flatnonzero(broken).tolist() == [300]
    assert np.isnan(found["cls"][300]).all() and np.isfinite(np.delete(found["cls"], 300, 0)).all()
    clear(home)
    before = seen(tint)
    fill(job(home), Engine(device="cpu", skip_broken=True, workers=1))
    assert seen(tint).total() - before.total() == 1299


def test_a_whole_block_of_broken_tiles_does_not_stop_the_rest(home, tint, long):
    for i in range(256, 512):
        (long / "t" / f"{i:04d}.png").write_bytes(b"")
    with pytest.raises(DataError, match="256 tiles cannot be read.*cannot leave out whole blocks"):
        fill(job(home), Engine(device="cpu", skip_broken=True))
    assert job(home).address.missing() == [1]


def test_a_long_thin_image_is_refused_and_does_not_exhaust_memory(home, tint, tiny):
    Image.new("RGB", (60_000, 1)).save(tiny / "t" / "0004.png")
    with pytest.raises(DataError, match=r"t/0004.png.*60000 ?x ?1"):
        fill(job(home, "color-stats"), CPU)


def test_an_empty_box_is_a_broken_tile(home, tint, tiny):
    rows = read_table(tiny)
    for r in rows:
        r |= {"x": 0, "y": 0, "w": 8, "h": 8}
    rows[3]["h"] = 0
    rows[4]["x"] = 9
    write_table(tiny, rows)
    with pytest.raises(DataError, match=r"2 tiles cannot be read"):
        fill(job(home), CPU)


def test_uninstalling_leaves_no_trace(monkeypatch, tint, tiny, home):
    """The helper itself: a rewritten plugin is read again."""
    uninstall(monkeypatch, "eosin_tint")
    assert folder(home)


def test_what_is_taken_away_meanwhile_is_embedded_again(home, tint, long, monkeypatch):
    """A part that `verify` sets aside, or somebody removes, while a run is at another."""
    work, publish = job(home), store.write_part
    fill(work, CPU)
    for block in (2, 3):
        work.address.part(block).unlink()

    def disturbed(address, block, *rest):
        publish(address, block, *rest)
        if block == 3:
            address.part(0).unlink()

    monkeypatch.setattr(store, "write_part", disturbed)
    assert fill(work, CPU) == 3 * BLOCK and not work.address.missing()


def test_tiles_that_are_missing_at_the_end_are_no_success(home, tint, tiny, monkeypatch):
    monkeypatch.setattr(store, "write_part", lambda *a: None)
    monkeypatch.setattr("eosin.embed.fill", lambda job, engine, progress=None: 0)
    done = bench("embed", "-m", "tint", "-d", "tiny")
    assert done.code == 1 and "60 tiles were taken away" in done.err and "Run it again" in done.err
    assert bench("embed", "-m", "tint", "-d", "tiny", "--status").code == 0


def test_what_embed_does_not_do_is_refused(home, tint, tiny):
    done = bench("embed", "-m", "tint", "-d", "tiny", "--readout", "gird")
    assert done.code == 0 and "--readout gird changes nothing" in done.err
    (home / "features").mkdir()
    (home / "features" / "x.csv").write_text("id,f0,f1\nt/0000.png,1,2\n")
    done = bench("embed", "-m", f"precomputed:{home / 'features'}", "-d", "tiny")
    assert done.code == 2 and "`bench run` reads them" in done.err
    assert "problem" not in bench("show", f"precomputed:{home / 'features'}", "--json").json


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_instead_of_a_file_keeps_nobody_waiting(home, tint, tiny):
    (tiny / "t" / "0003.png").unlink()
    os.mkfifo(tiny / "t" / "0003.png")
    done = bench("data", "index", "tiny")
    assert done.code == 1 and "it is no plain file" in done.err and "0003.png" in done.err
