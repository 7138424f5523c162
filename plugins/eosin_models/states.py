"""Reading a weights file: safetensors, or torch's with `weights_only=True`; nothing in a file is ever executed."""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from pathlib import Path

from eosin.errors import ModelError

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher")


def read(path: Path, name: str) -> dict:
    """{key: tensor} of a file, on the CPU. Memory is bounded by the file's size, whatever it claims to hold.

    Args:
        name: the model's name, for the error.

    Raises:
        ModelError: a damaged file, one that needs unpickling of code, or tensors that claim more than the file holds.
    """
    import torch

    try:
        if _is_safetensors(path):
            from safetensors.torch import load_file

            return load_file(path)
        _no_page(path)
        _no_bomb(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on formats is for those who write them
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # safetensors, zipfile and the unpickler each have errors of their own
        raise ModelError(
            f"{name}: {path} cannot be loaded safely: {_reason(error)}. Use a .safetensors file, or save plain tensors where you trust the file: torch.save(model.state_dict(), FILE)."
        ) from error
    for _ in range(2):
        inside = next(
            (content[k] for k in WRAPPERS if isinstance(content, dict) and isinstance(content.get(k), dict)), None
        )
        content = content if inside is None else inside
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(k, str) and torch.is_tensor(v) for k, v in content.items())
    ):
        raise ModelError(
            f"{name}: {path} holds no state dict (names to tensors). Save torch.save(model.state_dict(), FILE)."
        )
    odd = [k for k, v in content.items() if not _plain(v)]
    if odd:
        raise ModelError(
            f"{name}: {path} holds tensors that claim more than the file has, or are not dense ({', '.join(odd[:3])}). Use another file."
        )
    return dict(content)


def _is_safetensors(path: Path) -> bool:
    """By suffix or by content: eight bytes of length and a JSON object."""
    with open(path, "rb") as handle:
        head = handle.read(9)
    return path.suffix == ".safetensors" or (head[8:9] == b"{" and not head.startswith(b"PK"))


def _no_page(path: Path) -> None:
    """What a browser or git leaves where a weights file should be."""
    with open(path, "rb") as handle:
        head = handle.read(200).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError("it is a web page, such as a login or warning page; download the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError("it is a git-lfs pointer; run `git lfs pull`")


def _no_bomb(path: Path) -> None:
    """torch stores its records uncompressed: a compressed or overlapping one is no honest file."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if (
        any(e.compress_type != zipfile.ZIP_STORED for e in entries)
        or sum(e.file_size for e in entries) > path.stat().st_size
    ):
        raise ValueError("its records are compressed or overlap, which torch never writes (a zip bomb?)")


def _plain(tensor) -> bool:
    """Dense, with memory behind every element: no stride of zero that turns four bytes into a gigabyte when copied."""
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def _reason(error: Exception) -> str:
    """The first sentence; for a refused pickle the global it asked for."""
    text = str(error)
    asked = re.search(r"GLOBAL (\w+\.[\w.]*\w)", text)
    if asked:
        return f"it asks Python to call {asked[1]}, which a weights file has no need for"
    broken = re.search(r"WeightsUnpickler error:\s*(.+)", text)
    if broken:
        return f"it is no plain pickle of tensors ({broken[1].rstrip('. ')})"
    return f"{type(error).__name__}: {text.splitlines()[0]}".rstrip(". ") if text else type(error).__name__


def sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
