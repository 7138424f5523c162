"""Broken and malicious weights files: refused with a sentence, nothing executed, memory bounded by the file."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import struct
import tarfile
import zipfile

import pytest
import timm
import torch
from safetensors.torch import save_file

from eosin.errors import MissingError, ModelError
from model_files import TINY, load, near, tiles


def good():
    return timm.create_model("vit_base_patch16_224", num_classes=0, **TINY).state_dict()


class Bomb:
    """A pickle of this runs a command where it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def refused(path, *words):
    with pytest.raises(ModelError) as caught:
        load(path, arch_options=TINY).build()
    text = str(caught.value)
    assert text.startswith("ours: ") and str(path) in text
    for word in words:
        assert word in text, text
    return text


def zipped(path, pickled: bytes, method=zipfile.ZIP_STORED, **records):
    """A file of torch's zip format with a pickle of one's own."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for name, value in records.items():
            archive.writestr(f"archive/data/{name}", value)


@pytest.mark.parametrize("form", ["plain", "torch", "torch-old", "zip", "tar"])
def test_code_in_a_pickle_is_not_run(tmp_path, form):
    path, trace = tmp_path / "weights.bin", tmp_path / "was-here"
    content = {"state_dict": good(), "extra": Bomb(trace)}
    if form == "plain":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    elif form == "zip":
        zipped(path, pickle.dumps(Bomb(trace)))
    elif form == "tar":
        data = pickle.dumps(Bomb(trace))
        with tarfile.open(path, "w") as archive:
            for name in ("sys_info", "pickle", "storages", "tensors"):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    text = refused(path, "cannot be loaded safely", "safetensors")
    assert not trace.exists()
    if form.startswith("torch"):
        assert "it asks Python to call posix.system" in text or "nt.system" in text


def test_a_training_checkpoint_with_its_arguments_is_refused_with_the_reason(tmp_path):
    import argparse

    torch.save({"model": good(), "args": argparse.Namespace(lr=1)}, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", "argparse.Namespace", "torch.save(model.state_dict(), FILE)")


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    """Half a gigabyte of zeros in half a megabyte: refused by its table of contents."""
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        with archive.open("archive/data/0", "w") as record:
            for _ in range(512):
                record.write(bytes(2**20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, "zip bomb")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_a_tensor_that_is_one_number_repeated_is_not_copied_out(tmp_path):
    """Strides of zero: a terabyte by its shape, four bytes on disk."""
    torch.save({**good(), "pos_embed": torch.zeros(1).expand(2**38)}, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", "claim more than the file has", "pos_embed")


def test_sparse_tensors_are_refused(tmp_path):
    torch.save({**good(), "pos_embed": torch.eye(3).to_sparse()}, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", "pos_embed")


def header(**entries) -> bytes:
    return json.dumps(
        {k: dict(zip(("dtype", "shape", "data_offsets"), v, strict=True)) for k, v in entries.items()}
    ).encode()


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2**31) + b"{}" + bytes(50),
        struct.pack("<Q", 3) + b"{]}",
        (h := header(a=("F32", [2**40], [0, 2**42])), struct.pack("<Q", len(h)) + h + bytes(16))[1],
        (h := header(a=("F32", [4], [0, 4])), struct.pack("<Q", len(h)) + h + bytes(4))[1],
        (h := header(a=("F32", [4], [-16, 0])), struct.pack("<Q", len(h)) + h + bytes(16))[1],
        (h := header(a=("F32", [1], [0, 4]), b=("F32", [1], [0, 4])), struct.pack("<Q", len(h)) + h + bytes(4))[1],
        b"",
        b"\x01",
    ],
    ids=["endless", "too-long", "not-json", "terabytes", "shape", "negative", "overlap", "empty", "one-byte"],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path, content):
    (tmp_path / "weights.safetensors").write_bytes(content)
    refused(tmp_path / "weights.safetensors", "cannot be loaded safely")


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"weights.{suffix}"
    save_file(good(), path) if suffix == "safetensors" else torch.save(good(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path, "cannot be loaded safely")


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>Sign in</html>", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_a_web_page_or_a_pointer_in_place_of_the_file_is_named(tmp_path, content):
    (tmp_path / "weights.bin").write_bytes(content)
    refused(tmp_path / "weights.bin", "web page" if b"html" in content else "git-lfs")


def test_renamed_keys_and_other_shapes_are_listed(tmp_path):
    state = good()
    renamed = {k.replace("blocks.0.", "block0."): v for k, v in state.items()}
    save_file(renamed, tmp_path / "a.safetensors")
    refused(
        tmp_path / "a.safetensors", "12 missing in the file", "blocks.0.norm1.weight", "12 left over, first block0."
    )
    save_file({**state, "pos_embed": torch.zeros(1, 5, 32)}, tmp_path / "b.safetensors")
    refused(tmp_path / "b.safetensors", "1 of another shape, first pos_embed (1, 5, 32) for (1, 17, 32)")
    save_file({**state, "decoder.weight": torch.zeros(1)}, tmp_path / "c.safetensors")
    refused(tmp_path / "c.safetensors", "1 left over, first decoder.weight")
    torch.save([1, 2], tmp_path / "d.pth")
    refused(tmp_path / "d.pth", "holds no state dict")
    torch.save({"epoch": 3}, tmp_path / "e.pth")
    refused(tmp_path / "e.pth", "holds no state dict")


def test_only_a_classification_head_may_be_left_over(tmp_path):
    state = {**good(), "head.weight": torch.zeros(5, 32), "head.bias": torch.zeros(5)}
    save_file(state, tmp_path / "weights.safetensors")
    assert load(tmp_path, arch_options=TINY).embed(tiles())["cls"].shape == (3, 32)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_are_taken_in_the_network_s_own_precision(tmp_path, kind):
    state = good()
    save_file({k: v.to(kind) for k, v in state.items()}, tmp_path / "weights.safetensors")
    ours = load(tmp_path, arch_options=TINY)
    assert {p.dtype for p in ours.module.parameters()} == {torch.float32}
    near(ours.module.pos_embed, state["pos_embed"].to(kind).float())


def test_a_safetensors_file_by_another_name_is_known_by_its_content(tmp_path):
    save_file(good(), tmp_path / "pytorch_model.bin")
    assert load(tmp_path / "pytorch_model.bin", arch_options=TINY).build() is not None


def test_a_wrong_key_map_names_the_format_and_the_file(tmp_path):
    save_file({f"net.{k}": v for k, v in good().items()}, tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match="not in the format hf_clip_vision .*Correct `key_map`"):
        load(tmp_path, arch_options=TINY, key_map="hf_clip_vision").build()


def test_no_file_and_a_folder_of_several(tmp_path):
    with pytest.raises(MissingError, match="pass --weights FILE"):
        load(tmp_path / "nowhere.pth").build()
    for name in ("a.pth", "b.pth"):
        torch.save(good(), tmp_path / name)
    with pytest.raises(MissingError):
        load(tmp_path, arch_options=TINY).build()
    assert load(tmp_path, arch_options=TINY, file="b.pth").weight_file() == tmp_path / "b.pth"
