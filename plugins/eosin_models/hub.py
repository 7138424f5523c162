"""The Hugging Face hub: what its cache holds (by paths alone), and fetching through huggingface_hub's public functions.

Cache folder, offline mode, endpoint and token are the client's own settings (HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eosin.errors import MissingError

SAFE_FIRST = ("model.safetensors", "pytorch_model.bin")


def files(card) -> tuple[str, ...]:
    """The file that the card names; where that is a usual name or none, the usual ones too: caches hold either."""
    return (
        tuple(dict.fromkeys((card.file or SAFE_FIRST[0], *SAFE_FIRST)))
        if card.file in ("", *SAFE_FIRST)
        else (card.file,)
    )


def cached(card) -> Path | None:
    """The card's file in the hub's cache; a look at two or three paths, light enough for a list of all models.

    The layout is documented: models--ORG--NAME / refs / REVISION holds a commit, snapshots / COMMIT / FILE the file.
    """
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if not cache:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(os.environ.get("HF_HOME") or Path(base) / "huggingface") / "hub"
    repo = Path(os.path.expandvars(cache)).expanduser() / f"models--{card.hub.replace('/', '--')}"
    revision = card.revision or "main"
    ref = repo / "refs" / revision
    commit = ref.read_text().strip() if ref.is_file() else revision
    return next((p for p in (repo / "snapshots" / commit / f for f in files(card)) if p.is_file()), None)


def fetch(card) -> Path:
    """The card's file from the cache, else from the hub: with progress, resumed after an interruption, checked by its hash.

    Raises:
        MissingError: gated, unknown, unreachable, without the file, or damaged on the way; with what to do.
    """
    found = cached(card)
    if found is not None:
        return found
    from huggingface_hub import hf_hub_download

    return _first(
        card, lambda file: _sound(card, Path(hf_hub_download(card.hub, file, revision=card.revision or None)))
    )


def refused(card) -> MissingError | None:
    """Why the hub would not give the file, asked with one small request; None when it would."""
    if cached(card) is not None:
        return None
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return _unreachable(card, "HF_HUB_OFFLINE is set")
    try:
        _first(
            card,
            lambda file: get_hf_file_metadata(hf_hub_url(card.hub, file, revision=card.revision or None), token=None),
        )
    except MissingError as error:
        return error
    return None


def _first(card, ask: Callable[[str], Any]) -> Any:
    """The answer for the first of the card's files that the repository has; the client's errors as sentences."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{card.hub}"
    terms = f" (licence: {card.licence})" if card.licence else ""
    for file in files(card):
        try:
            return ask(file)
        except errors.GatedRepoError as error:
            raise MissingError(
                f"{card.name}: {card.hub} is gated. Accept its terms{terms} at {page}, wait for approval where the page says so, then log in with `hf auth login` (or set HF_TOKEN) and run again."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise MissingError(
                f"{card.name}: the hub shows no {card.hub} to you: it is private, gone, or needs a login. Open {page}, accept its terms{terms} if it asks, log in with `hf auth login`, or pass --weights FILE."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise MissingError(
                f"{card.name}: {page} has no revision {card.revision}. Correct `revision:` in the card, or pass --weights FILE."
            ) from error
        except MissingError:
            raise
        except Exception as error:  # the client's HTTP library changes with its version, and so do its errors
            cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
            status = getattr(getattr(cause, "response", None), "status_code", None)
            if status in (401, 403):
                raise MissingError(
                    f"{card.name}: {page} refuses ({status}). Accept its terms{terms} there, log in with `hf auth login` "
                    "(or set HF_TOKEN) and run again, or pass --weights FILE."
                ) from error
            if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
                continue
            raise _unreachable(card, _line(cause)) from error
    raise MissingError(
        f"{card.name}: {page} has no {' or '.join(files(card))}. Correct `file:` in the card, or pass --weights FILE."
    )


def _unreachable(card, why: str) -> MissingError:
    page = f"https://huggingface.co/{card.hub}"
    gate = (
        f" The model is gated ({card.gated}): accept its terms at that page and log in with `hf auth login` first."
        if card.gated
        else ""
    )
    return MissingError(
        f"{card.name}: {' or '.join(files(card))} of {page} is not in the cache and cannot be fetched ({why}).{gate} Connect and run again (a download resumes where it stopped), or pass --weights FILE."
    )


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(". ") if text else type(error).__name__


def _sound(card, path: Path) -> Path:
    """A large file's name in the cache is its SHA-256: what arrived must hash to it, else it goes and an error says so."""
    from .states import sha256

    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and sha256(blob) != blob.name:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise MissingError(
            f"{card.name}: {path.name} from https://huggingface.co/{card.hub} arrived damaged: its hash is not the published one. It was removed; run again, or pass --weights FILE."
        )
    return path
