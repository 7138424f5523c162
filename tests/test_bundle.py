"""Bundles: what is exported comes back the same elsewhere; what was tampered with, or is unknown, or is there, does not."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from eosin import record
from eosin.cli import main
from report_cases import keep, made, own_options

KNN = "idc-knn"


def run(*words: object):
    return CliRunner().invoke(main, [str(w) for w in words])


def one(model: str, values: list[float], **more) -> dict:
    return made(model, KNN, "g2l-knn@1", {"accuracy": values}, options=own_options(KNN), **more)


@pytest.fixture
def results(tmp_path) -> Path:
    """Two records of idc-knn, one with predictions, one that names a folder of its machine."""
    folder = tmp_path / "results"
    keep(folder, one("phikon", [0.7, 0.8]), {"id": np.array(["a", "b"]), "y": np.array([0, 1])})
    private = one("virchow2", [0.8, 0.9])
    private["model"]["weights"] = "/secret/of/ours/weights.pt"
    private["dataset"]["base"] = "C:\\Users\\us\\data"
    keep(folder, private)
    return folder


@pytest.fixture
def bundle(results, tmp_path) -> Path:
    done = run("export", tmp_path / "bundle", "--results", results)
    assert done.exit_code == 0, done.output
    return tmp_path / "bundle"


def manifest(bundle: Path) -> dict:
    return json.loads((bundle / "manifest.json").read_text())


def change(bundle: Path, place: str, content: bytes, row: dict | None = None) -> None:
    """Another content of a file, with a manifest that agrees with it."""
    said = manifest(bundle)
    (bundle / place).write_bytes(content)
    for r in said["records"]:
        if r["path"] == place:
            r |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **(row or {})}
    (bundle / "manifest.json").write_text(json.dumps(said))


def bring(bundle: Path, into: Path) -> dict:
    done = run("import", bundle, "--results", into, "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == (1 if said["conflicts"] or said["refused"] else 0), done.output
    return said


# --- there and back


@pytest.mark.parametrize("name", ["b", "b.zip"])
def test_what_is_exported_comes_back(results, tmp_path, name):
    done = run("export", tmp_path / name, "--results", results, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["records"] == 2
    said = bring(tmp_path / name, tmp_path / "there")
    assert len(said["added"]) == 2
    for path in record.find(results):
        there = tmp_path / "there" / path.relative_to(results)
        assert record.read(there)["scores"] == record.read(path)["scores"]
    (npz,) = (tmp_path / "there").glob("*/*.npz")
    assert npz.read_bytes() == next(results.glob("*/*.npz")).read_bytes()
    again = bring(tmp_path / name, tmp_path / "there")
    assert len(again["here"]) == 2 and not again["added"]


def test_the_manifest_says_what_is_in_it(bundle):
    said = manifest(bundle)
    assert (said["encoding-type"], said["encoding-version"], said["record-version"]) == ("eosin-bundle", "1", "1")
    assert said["protocols"] == ["g2l-knn@1"] and said["eosin"]
    files = [r for r in said["records"]] + [r["predictions"] for r in said["records"] if "predictions" in r]
    assert len(files) == 3
    for f in files:
        content = (bundle / f["path"]).read_bytes()
        assert (f["sha256"], f["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))


def test_no_folder_of_the_machine_goes_along(bundle):
    text = "".join(p.read_text() for p in bundle.rglob("*.json"))
    assert "secret" not in text and "Users" not in text
    assert '"weights": "weights.pt"' in text and '"base": "data"' in text


def test_predictions_can_stay_at_home(results, tmp_path):
    assert run("export", tmp_path / "b", "--results", results, "--no-predictions").exit_code == 0
    assert not list((tmp_path / "b").rglob("*.npz"))
    assert bring(tmp_path / "b", tmp_path / "there")["added"]
    assert all(record.read(p)["predictions"] is None for p in record.find(tmp_path / "there"))


def test_only_what_is_asked_for(results, tmp_path):
    assert run("export", tmp_path / "b", "--results", results, "--model", "phikon").exit_code == 0
    assert [r["model"] for r in manifest(tmp_path / "b")["records"]] == ["phikon"]
    done = run("export", tmp_path / "c", "--results", results, "--suite", "hest")
    assert done.exit_code == 1 and "nothing to export" in done.stderr and not (tmp_path / "c").exists()


def test_a_target_is_never_written_over(results, bundle, tmp_path):
    done = run("export", bundle, "--results", results)
    assert done.exit_code == 1 and "there already" in done.stderr
    (tmp_path / "x.zip").write_text("mine")
    assert run("export", tmp_path / "x.zip", "--results", results).exit_code == 1
    assert (tmp_path / "x.zip").read_text() == "mine"
    assert run("export", "--results", results).exit_code == 2


def test_a_zip_that_fails_leaves_nothing(results, tmp_path):
    next(results.glob("*/*.npz")).unlink()
    done = run("export", tmp_path / "b.zip", "--results", results)
    assert done.exit_code == 1 and "--no-predictions" in done.stderr
    assert not [p for p in tmp_path.iterdir() if "b.zip" in p.name]


# --- places that cannot be written


def denied(*args, **more):
    raise PermissionError(errno.EACCES, "Permission denied")


def cannot(done, place: Path, step: str) -> None:
    assert done.exit_code == 1, done.output
    assert f"error: Cannot write {place}: " in done.stderr and step in done.stderr and "--debug" not in done.stderr


@pytest.mark.parametrize("name", ["b", "b.zip"])
def test_an_export_that_cannot_be_written(results, tmp_path, monkeypatch, name):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / name
    cannot(run("export", place, "--results", results), place, "Name another folder or .zip")
    monkeypatch.setattr(Path, "mkdir", denied)  # permissions do not stop root
    cannot(run("export", tmp_path / "x" / name, "--results", results), tmp_path / "x" / name, "Permission denied.")


def test_a_zip_for_which_the_disk_is_too_small_leaves_nothing(results, tmp_path, monkeypatch):
    whole = zipfile.ZipFile.close

    def full(self):
        opened = self.fp is not None
        whole(self)
        if opened:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as held:
        held.setattr(zipfile.ZipFile, "close", full)
        cannot(run("export", tmp_path / "b.zip", "--results", results), tmp_path / "b.zip", "No space left on device.")
    assert not [p for p in tmp_path.iterdir() if "b.zip" in p.name]


def test_predictions_that_cannot_be_read_are_not_the_bundles_fault(results, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", denied)
    done = run("export", tmp_path / "b", "--results", results)
    assert done.exit_code == 1 and "Cannot read" in done.stderr and "--no-predictions" in done.stderr


def test_an_import_into_a_place_that_cannot_be_written(bundle, tmp_path):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "results"
    cannot(run("import", bundle, "--results", place), place, "--results")


# --- what does not come in


def test_a_conflict_is_named_and_nothing_is_replaced(bundle, tmp_path):
    mine = keep(tmp_path / "there", one("phikon", [0.1, 0.2]))
    before = mine.read_bytes()
    said = bring(bundle, tmp_path / "there")
    assert len(said["added"]) == 1 and len(said["conflicts"]) == 1
    assert "0.150 ± 0.071 here and 0.750 ± 0.071 in the bundle" in said["conflicts"][0]
    assert mine.read_bytes() == before


def test_a_damaged_record_is_named_and_the_others_come(bundle, tmp_path):
    place = manifest(bundle)["records"][0]["path"]
    (bundle / place).write_bytes((bundle / place).read_bytes().replace(b"0.7", b"0.9"))
    said = bring(bundle, tmp_path / "there")
    assert len(said["added"]) == 1 and said["refused"][0].startswith(f"{place}: {place} is damaged")


def edited(bundle: Path, **blocks) -> str:
    """The first record with other blocks, and hashes that agree."""
    place = manifest(bundle)["records"][0]["path"]
    content = json.loads((bundle / place).read_text())
    for block, values in blocks.items():
        content[block] = {**content[block], **values} if isinstance(values, dict) else values
    change(bundle, place, json.dumps(content).encode())
    return place


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        ({"scores": {"accuracy": {"mean": 0.99, "std": 0.1, "low": None, "high": None, "values": [0.7, 0.8]}}}, "the mean of accuracy"),
        ({"model": {"name": "h-optimus-0"}}, "its place is h-optimus-0@"),
        ({"benchmark": {"fingerprint": "../../../etc"}}, "its place is"),
        ({"protocol": {"name": "strange@1"}}, "no protocol strange@1"),
        ({"protocol": {"options": {"k": 15, "magic": 1}}}, "magic"),
        ({"protocol": {"options": {"folds": "lucky"}}}, "lucky"),
        ({"encoding-version": "2"}, "version 2"),
        ({"encoding-type": "other"}, "not a record"),
        ({"scores": []}, "lacks scores"),
        ({"scores": {"accuracy": {"mean": 1e999, "std": None, "low": None, "high": None, "values": []}}}, "accuracy"),
        ({"predictions": "else.npz"}, ""),
    ],
)  # fmt: skip
def test_a_record_that_is_not_right_is_refused(bundle, tmp_path, blocks, why):
    place = edited(bundle, **blocks)
    said = bring(bundle, tmp_path / "there")
    if not why:  # it has predictions in the bundle, whatever it calls them
        assert len(said["added"]) == 2
        return
    assert len(said["refused"]) == 1 and said["refused"][0].startswith(place) and why in said["refused"][0]
    assert len(said["added"]) == 1 and len(list(record.find(tmp_path / "there"))) == 1


def test_predictions_that_are_named_must_be_there(bundle, tmp_path):
    npz = next(bundle.rglob("*.npz"))
    npz.write_bytes(b"other")
    said = bring(bundle, tmp_path / "there")
    assert len(said["refused"]) == 1 and "damaged" in said["refused"][0]
    npz.unlink()
    assert "cannot be read" in bring(bundle, tmp_path / "there")["refused"][0]
    assert not list((tmp_path / "there").rglob("*.npz"))


@pytest.mark.parametrize("place", ["../out@abcd/x@abcd.json", "/etc/x@abcd.json", "a@abcd/../../x@abcd.json", "a@abcd/x.json", "a@abcd\\x@abcd.json", ".hid@abcd/x@abcd.json"])  # fmt: skip
def test_a_path_that_leads_elsewhere_stops_everything(bundle, tmp_path, place):
    said = manifest(bundle)
    said["records"][0]["path"] = place
    (bundle / "manifest.json").write_text(json.dumps(said))
    done = run("import", bundle, "--results", tmp_path / "there")
    assert done.exit_code == 1 and "not safe" in done.stderr and not (tmp_path / "there").exists()


@pytest.mark.parametrize("name", ["../evil.json", "/evil.json", "a/../../evil", "C:evil.json", "..\\evil.json"])
def test_a_zip_with_hostile_names_is_refused(bundle, tmp_path, name):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as book:
        for path in bundle.rglob("*"):
            if path.is_file():
                book.write(path, path.relative_to(bundle).as_posix())
        book.writestr(name, "{}")
    done = run("import", tmp_path / "b.zip", "--results", tmp_path / "there")
    assert done.exit_code == 1 and "leads elsewhere" in done.stderr and not (tmp_path / "there").exists()


def test_links_are_not_followed(bundle, tmp_path):
    place = bundle / manifest(bundle)["records"][0]["path"]
    shutil.move(place, tmp_path / "elsewhere.json")
    place.symlink_to(tmp_path / "elsewhere.json")
    assert "link" in bring(bundle, tmp_path / "there")["refused"][0]


def test_a_file_larger_than_it_says_is_not_read_whole(bundle, tmp_path):
    said = manifest(bundle)
    place = said["records"][0]["path"]
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as book:
        for path in bundle.rglob("*"):
            if path.is_file() and path.relative_to(bundle).as_posix() != place:
                book.write(path, path.relative_to(bundle).as_posix())
        book.writestr(place, b" " * 50_000_000)
    said = bring(tmp_path / "b.zip", tmp_path / "there")
    assert "more than" in said["refused"][0] and len(said["added"]) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no bundle"),
        ("[]", "no bundle"),
        ('{"encoding-type": "eosin-bundle", "encoding-version": "9", "record-version": "1"}', "version 9"),
        ('{"encoding-type": "eosin-bundle", "encoding-version": "1", "record-version": "7"}', "version 7"),
        ('{"encoding-type": "eosin-bundle", "encoding-version": "1", "record-version": "1", "records": [3]}', "lists no records"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none(bundle, tmp_path, text, why):
    (bundle / "manifest.json").write_text(text)
    done = run("import", bundle, "--results", tmp_path / "there")
    assert done.exit_code == 1 and why in done.stderr and "Traceback" not in done.stderr


def test_what_is_no_bundle(tmp_path):
    (tmp_path / "x").write_text("not a zip")
    assert "neither" in run("import", tmp_path / "x").stderr
    (tmp_path / "d").mkdir()
    assert "no bundle" in run("import", tmp_path / "d").stderr


def test_twice_in_one_manifest(bundle, tmp_path):
    said = manifest(bundle)
    said["records"].append(said["records"][0])
    (bundle / "manifest.json").write_text(json.dumps(said))
    found = bring(bundle, tmp_path / "there")
    assert len(found["added"]) == 2 and "twice" in found["refused"][0]


# --- the hub


def test_the_hub_reads_our_metadata(results):
    from huggingface_hub.repocard_data import model_index_to_eval_results

    keep(results, made("phikon", "hest-idc", "hest-ridge@1", {"pearson": [0.4, 0.5]}, options=own_options("hest-idc")))
    done = run("export", "--format", "hf-model-index", "--model", "phikon", "--results", results)
    assert done.exit_code == 0, done.output
    name, found = model_index_to_eval_results(yaml.safe_load(done.stdout)["model-index"])
    assert name == "phikon"
    by = {r.metric_type: r for r in found}
    assert by["accuracy"].metric_value == pytest.approx(0.75) and by["accuracy"].task_type == "image-classification"
    assert by["accuracy"].metric_args["protocol"] == "g2l-knn@1" and by["accuracy"].metric_args["values"] == 2
    assert by["pearsonr"].dataset_name == "Made-up tissue" and by["pearsonr"].task_type == "image-feature-extraction"


def test_metadata_are_of_one_model(results):
    done = run("export", "--format", "hf-model-index", "--results", results)
    assert done.exit_code == 2 and "phikon, virchow2" in done.stderr
    assert run("export", "--format", "hf-model-index", "--model", "nobody", "--results", results).exit_code == 2
