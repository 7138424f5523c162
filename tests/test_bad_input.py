"""Bad input of every kind: a clear sentence, the next step, the right exit code, no traceback, nothing lost."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import TINT, bench, bench_process, install, make_tiles, parts, read_table, tile, write_table


@pytest.fixture(autouse=True)
def world(home, tmp_path, monkeypatch):
    """The traced model, its dataset of 60 tiles, and benchmarks of the built-in protocols on it."""
    install(monkeypatch, tmp_path / "site", "eosin_tint", TINT)
    (home / "data").mkdir(parents=True)
    (home / "registry.yaml").write_text(
        "datasets: {tiny: {kind: manifest}}\n"
        "benchmarks:\n"
        "  tiny-knn: {dataset: tiny, protocol: g2l-knn@1, metric: accuracy}\n"
        "  tiny-linear: {dataset: tiny, protocol: g2l-linear@1, metric: auroc}\n"
        "  tiny-ridge: {dataset: tiny, protocol: hest-ridge@1, metric: pearson}\n"
    )
    return make_tiles(home / "data" / "tiny")


def refuses(code: int, *words: str, args: tuple = ("run", "-m", "tint", "-b", "tint-mean")):
    """The command ends with the code, says the words on stderr and nothing of Python's."""
    done = bench(*args)
    assert done.code == code, done
    for word in words:
        assert re.search(word, done.err, re.S), f"{word!r} is not in:\n{done.err}"
    assert "Traceback" not in done.err
    last = done.err.strip().splitlines()[-1]
    assert last.endswith((".", "?")) or "How to get it" in done.err, f"no next step: {last}"
    return done


# ---- names


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("run", "-m", "tnit", "-b", "tint-mean"), r"no model called 'tnit'. Did you mean tint.*bench list models"),
        (("run", "-m", "efficientnet", "-b", "tint-mean"), r"Did you mean efficientnet-lite0"),
        (
            ("run", "-m", "tint", "-b", "tint-maen"),
            r"no benchmark called 'tint-maen'. Did you mean tint-mean.*bench list benchmarks",
        ),
        (("run", "-m", "tint", "-s", "phantm"), r"no suite called 'phantm'. Did you mean phantom"),
        (("embed", "-m", "tint", "-d", "tniy"), r"no dataset called 'tniy'. Did you mean tiny"),
        (("embed", "-m", "tint", "-d", "tiny", "--view", "jpg-30"), r"no view called 'jpg-30'. Views: original"),
        (("embed", "-m", "tint", "-d", "tiny", "--view", "jpeg-300"), r"strength of jpeg lies between 1 and 95"),
        (("embed", "-m", "tint", "-d", "tiny", "--shard", "4/3"), r"write i/n"),
        (("embed", "-m", "tint", "-d", "tiny", "--shard", "0/3"), r"write i/n"),
        (("embed", "-m", "tint", "-d", "tiny", "--geometry", "big"), r"Geometry 'big' is not understood"),
        (("score", "-p", "g2l-knm@1", "-e", "x.npz"), r"no protocol called 'g2l-knm@1'. Did you mean g2l-knn@1"),
        (("score", "-p", "g2l-knn@99", "-e", "x.npz"), r"no protocol called 'g2l-knn@99'"),
        (("run", "-b", "tint-mean"), r"No model: add --model"),
        (("run", "-m", "tint"), r"Nothing to run: add --benchmark"),
        (("run", "-m", "tint", "-b", "tiny-knn", "--option", "kk=3"), r"option kk.*Options: .*bench show"),
        (("run", "-m", "tint", "-b", "tiny-knn", "--option", "k=many"), r"option k takes int, not 'many'"),
        (("run", "-m", "tint", "-b", "tiny-knn", "--option", "k"), r"write name=value"),
        (("rnu",), r"no command called 'rnu'. Did you mean run"),
        (("show", "tnit"), r"Did you mean .*tint"),
        (("data", "where", "tniy"), r"Did you mean tiny"),
        (("run", "-m", "timm:no_such_net", "-b", "tint-mean"), r"timm has no architecture 'no_such_net'"),
        (("run", "-m", "tint", "-b", "tint-mean", "--precision", "fp8"), r"fp8"),
        (("run", "-m", "tint", "-b", "tint-mean", "--batch-size", "-1"), r"-1"),
    ],
)
def test_unknown_names_and_options_are_usage_errors_with_a_suggestion(args, said):
    refuses(2, said, args=args)


def test_files_that_must_be_fetched(tmp_path):
    run = ("run", "-b", "tint-mean")
    refuses(3, r"There is no file .*absent.yaml.*--model", args=(*run, "-m", tmp_path / "absent.yaml"))
    refuses(3, r"nothing at .*absent", args=(*run, "-m", f"precomputed:{tmp_path / 'absent'}"))
    refuses(3, r"no weights file", args=(*run, "-m", "resnet50", "--weights", tmp_path / "absent.pth"))
    refuses(3, r"There is no file .*--registry", args=(*run, "-m", "tint", "--registry", tmp_path / "absent.yaml"))


# ---- data


def test_missing_data_shows_the_expected_tree_and_how_to_get_it(tmp_path):
    done = refuses(
        3,
        "idc is missing",
        r"279 patient folders",
        "kaggle datasets download",
        "Kaggle account",
        args=("run", "-m", "tint", "-b", "idc-knn"),
    )
    assert str(Path("data") / "idc") in done.err
    refuses(3, "idc is missing", args=("data", "index", "idc"))
    refuses(3, "idc is missing", args=("embed", "-m", "tint", "-d", "idc"))


def test_everything_missing_is_listed_at_once(home):
    (home / "registry.yaml").write_text(
        "datasets: {one: {kind: manifest}, two: {kind: manifest}, tiny: {kind: manifest}}\nbenchmarks: {one-knn: {dataset: one, protocol: g2l-knn@1, metric: accuracy}, two-knn: {dataset: two, protocol: g2l-knn@1, metric: accuracy}}\n"
    )
    done = refuses(3, "one is missing.*two is missing", args=("run", "-m", "tint", "-b", "one-knn", "-b", "two-knn"))
    assert done.err.count("is missing") == 2
    found = bench("run", "-m", "tint", "-b", "one-knn", "-b", "two-knn", "-b", "tint-mean", "--json")
    assert found.code == 3 and len(found.json["missing"]) == 2
    refuses(3, "one is missing.*two is missing", args=("embed", "-m", "tint", "-d", "one", "-d", "two"))


def write_bytes(root: Path, text: bytes) -> None:
    (root / "tiles.csv").write_bytes(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"file,label\nt/0000.png,a\n", r"tiles.csv: the column path is missing; there are file, label"),
        (b"", r"the column path is missing"),
        (b"path,label\n", r"the table has no rows"),
        (b"path;label\nt/0000.png;a\n", r"separated by semicolons. Save it as CSV with commas"),
        (b"path\tlabel\nt/0000.png\ta\n", r"separated by tabs"),
        (b"path,label\nt/0000.png,a\nt/0001.png\n", r"line 3: 1 values for 2 columns"),
        (b"path,label\nt/0000.png,a,b\n", r"line 2: 3 values for 2 columns"),
        (b"path,label,label\nt/0000.png,a,b\n", r"a column name stands twice"),
        (b"path,label\nt/0000.png,caf\xe9\n", r"not UTF-8.*Save it as CSV UTF-8"),
        ("path,label\nt/0000.png,a\n".encode("utf-16"), r"not UTF-8"),
        (b"path,label\nt/0000.png,a\nt/0000.png,b\n", r"1 tile ids stand more than once, such as t/0000.png"),
        (b"path,label\nt/0000.png,a\nt/nowhere.png,b\n", r"1 of 2 files .*not below .*nowhere.png"),
        (b"path,label\n../../secret.png,a\n", r"line 2: path .* must be relative"),
    ],
)
def test_a_bad_table_names_file_line_and_column(world, text, said):
    write_bytes(world, text)
    refuses(1, said)
    refuses(1, said, args=("data", "index", "tiny"))


def test_a_byte_order_mark_is_no_part_of_a_name(world):
    write_bytes(world, b"\xef\xbb\xbf" + (world / "tiles.csv").read_bytes())
    assert bench("run", "-m", "tint", "-b", "tint-mean").code == 0


def test_a_missing_tiles_csv(world):
    (world / "tiles.csv").unlink()
    refuses(3, r"tiles.csv")


def test_labels_outside_the_classes_of_the_card(home):
    (home / "registry.yaml").write_text("datasets: {tiny: {kind: manifest, classes: [a, c]}}\n")
    refuses(1, r"line 3: label 'b' is not one of the classes a, c")


def huge_header(path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 90_000, 90_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b""))


IMAGES = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:200]), "t/0007.png: "),
    "empty": (lambda p: p.write_bytes(b""), r"t/0007.png: is empty \(0 bytes\)"),
    "text": (lambda p: p.write_text("404 not found"), "t/0007.png: is not an image"),
    "cmyk": (
        lambda p: Image.new("CMYK", (16, 16)).save(p, "JPEG"),
        "t/0007.png: is a CMYK image; convert it to 8-bit RGB",
    ),
    "16-bit": (
        lambda p: Image.fromarray(np.zeros((16, 16), np.uint16)).save(p),
        "t/0007.png: is a 16-bit .* image; convert it",
    ),
    "huge": (huge_header, "t/0007.png: has .* pixels.*cut it into tiles"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_a_tile_that_cannot_be_read_is_named(world, kind):
    harm, said = IMAGES[kind]
    harm(world / "t" / "0007.png")
    refuses(1, "1 tile cannot be read", said, "--skip-broken")
    done = bench("run", "-m", "tint", "-b", "tint-mean", "--skip-broken", "--json")
    assert done.code == 0 and json.loads(Path(done.json["records"][0]).read_text())["dataset"]["left_out"] == 1


def test_alpha_is_no_error(world):
    alpha = np.dstack([tile(7, 1), np.full((16, 16), 200, np.uint8)])
    Image.fromarray(alpha).save(world / "t" / "0007.png")
    assert bench("run", "-m", "tint", "-b", "tint-mean").code == 0


# ---- labels that no protocol can use


def relabel(root: Path, labels) -> None:
    rows = read_table(root)
    for i, r in enumerate(rows):
        r["label"] = labels(i)
    write_table(root, rows)


@pytest.mark.parametrize("name", ["tiny-knn", "tiny-linear"])
def test_one_class_only(world, name):
    relabel(world, lambda i: "a")
    refuses(1, f"failed: tint on {name}: .*class", args=("run", "-m", "tint", "-b", name))


def test_fewer_samples_than_folds(world):
    name = "tiny-knn"
    relabel(world, lambda i: "b" if i < 3 else "a")
    done = bench("run", "-m", "tint", "-b", name, "--json")
    if done.code:  # a protocol may refuse, then it says what to do; or score, then it says what it could not
        refuses(1, f"failed: tint on {name}: .*fold", args=("run", "-m", "tint", "-b", name))
    else:
        record = json.loads(Path(done.json["records"][0]).read_text())
        assert record["notes"], "three samples in more folds are worth a note"


@pytest.mark.parametrize("name", ["tiny-knn", "tiny-linear"])
def test_no_labels_at_all(world, name):
    relabel(world, lambda i: "")
    refuses(1, f"failed: tint on {name}: .*label", args=("run", "-m", "tint", "-b", name))


def test_a_single_tile(world):
    write_table(world, read_table(world)[:1])
    for name in ("tiny-knn", "tiny-linear", "tiny-ridge"):
        refuses(1, f"failed: tint on {name}", args=("run", "-m", "tint", "-b", name))


def test_no_targets_to_regress(world):
    refuses(1, "tiny-ridge: .*target", args=("run", "-m", "tint", "-b", "tiny-ridge"))


def test_what_fails_on_labels_keeps_the_embeddings(world, home):
    relabel(world, lambda i: "a")
    bench("run", "-m", "tint", "-b", "tiny-knn")
    kept = parts(home / "embeddings")
    relabel(world, lambda i: "ab"[i % 2])
    done = bench("run", "-m", "tint", "-b", "tiny-knn", "--json")
    assert done.code == 0 and done.json["embedded"] == 0 and parts(home / "embeddings") == kept


# ---- models


def test_a_model_whose_output_does_not_match_its_card(tmp_path, monkeypatch):
    install(monkeypatch, tmp_path / "site", "eosin_tint", TINT.replace("dim=6", "dim=7"))
    refuses(1, r"readout cls is 6 wide, the card says dim=7")


def test_nan_names_model_dataset_and_first_tiles(tmp_path, monkeypatch):
    install(
        monkeypatch,
        tmp_path / "site",
        "eosin_tint",
        TINT.replace("/ 255\n        return", "/ 255\n        both[::5] = np.nan\n        return"),
    )
    refuses(1, r"tint gave NaN or infinite cls for \d+ tiles of tiny, first t/0000.png, t/0005.png, t/0010.png")


def test_weights_that_do_not_fit(tmp_path):
    import torch

    torch.save({"nothing": torch.zeros(1)}, tmp_path / "w.pth")
    (tmp_path / "evil.pth").write_bytes(f"cos\nsystem\n(S'touch {tmp_path}/owned'\ntR.".encode())
    for name, said in {"w.pth": "does not fit test_vit", "evil.pth": "cannot be loaded safely"}.items():
        (tmp_path / "card.yaml").write_text(f"kind: timm\narch: test_vit\nweights: {name}\n")
        refuses(1, said, args=("run", "-m", tmp_path / "card.yaml", "-b", "tint-mean"))
    assert not (tmp_path / "owned").exists()


# ---- places


def test_a_home_that_cannot_be_written(world, home, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EOSIN_HOME", str(tmp_path / "file" / "home"))
    refuses(
        1,
        "EOSIN_HOME",
        args=("run", "-m", "tint", "-b", "tint-mean", "--data", home / "data", "--registry", home / "registry.yaml"),
    )


def test_a_read_only_data_folder_is_enough(world, home):
    """Permissions do not stop root; so compare what is below the data folder, times of folders included."""

    def state() -> dict[str, tuple[int, int]]:
        data = home / "data"
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in [data, *data.rglob("*")]}

    before = state()
    assert bench("run", "-m", "tint", "-b", "tint-mean").code == 0
    assert state() == before


# ---- embeddings made elsewhere


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": [0, 1]}, "must be called X"),
        ({"X": np.zeros((4, 2, 2)), "y": [0, 1, 0, 1]}, r"X has shape \(4, 2, 2\)"),
        ({"X": np.full((4, 2), np.nan), "y": [0, 1, 0, 1]}, "4 rows of X hold NaN"),
        ({"X": np.zeros((4, 2)), "y": [0, 1]}, "y has 2 rows, X has 4"),
        ({"X": np.array([["a", "b"]] * 4), "y": [0, 1, 0, 1]}, "X has shape .* not .* numbers"),
        ({"X": np.zeros((4, 2))}, "label|y"),
        ({"X": np.zeros((0, 2)), "y": np.zeros(0)}, ""),
    ],
)
def test_bad_arrays_for_score(tmp_path, arrays, said):
    np.savez(tmp_path / "e.npz", **arrays)
    refuses(1, said, args=("score", "-p", "g2l-knn@1", "-e", tmp_path / "e.npz"))


def test_files_that_hold_no_arrays(tmp_path):
    (tmp_path / "e.npz").write_bytes(b"not a zip")
    (tmp_path / "e.h5").write_bytes(b"not hdf5")
    (tmp_path / "e.txt").write_text("1 2")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    np.savez(tmp_path / "pickled.npz", X=np.array([{}], dtype=object))
    for name in ("e.npz", "e.h5", "e.txt", "pickled.npz", "absent.npz"):
        done = refuses(
            1 if name != "absent.npz" else bench("score", "-p", "g2l-knn@1", "-e", tmp_path / name).code,
            name,
            args=("score", "-p", "g2l-knn@1", "-e", tmp_path / name),
        )
        assert done.code in (1, 3)


def test_a_user_process_sees_no_traceback(world):
    """Once as a user starts it."""
    (world / "t" / "0007.png").write_bytes(b"")
    done = bench_process("run", "-m", "color-stats", "-b", "tiny-knn", "--json")
    assert done.code == 1 and "Traceback" not in done.err and "t/0007.png" in done.err
    assert json.loads(done.out)["failed"][0]["benchmark"] == "tiny-knn"


def test_columns_that_are_called_otherwise_are_named(world):
    rows = (world / "tiles.csv").read_text().splitlines()
    (world / "tiles.csv").write_text(
        "\n".join(["path,Label,Patient,remark", *(r.split(",")[0] + ",a,p,x" for r in rows[1:])]) + "\n"
    )
    said = [w["message"] for w in bench("data", "index", "tiny", "--json").json["warnings"]]
    assert said == [f"the column {a} is kept and read by nothing: if it is the {b}, call it {b}" for a, b in (("Label", "label"), ("Patient", "group"))]  # fmt: skip


def test_a_patient_on_both_sides_is_named(world):
    rows = [r.split(",")[0] for r in (world / "tiles.csv").read_text().splitlines()[1:]]
    text = [f"{p},{'ab'[i % 2]},{'train' if i % 3 else 'test'},p{i // 4}" for i, p in enumerate(rows)]
    (world / "tiles.csv").write_text("\n".join(["path,label,split,group", *text]) + "\n")
    (said,) = [w["message"] for w in bench("data", "index", "tiny", "--json").json["warnings"]]
    assert "groups (patients) have rows both in train or val and in test, such as p0" in said


def test_a_readout_that_nobody_has_is_a_slip(world):
    refuses(
        2,
        r"tint has no readout clss: it gives cls, mean",
        args=("run", "-m", "tint", "-b", "tint-mean", "--readout", "clss"),
    )
