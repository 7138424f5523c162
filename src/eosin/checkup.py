"""What `bench doctor` looks at, each with its fix."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import Any

from . import environment
from .places import Places


def checkup(places: Places) -> list[dict[str, str]]:
    """[{what, state: PASS | WARN | FAIL, found, fix}]."""
    checks = [_python(), *_torch(), *_libraries(), *_folders(places), _disk(places), _hub(), *_registry(places)]
    return [
        {"what": what, "state": state, "found": found, "fix": fix if state != "PASS" else ""}
        for what, state, found, fix in checks
    ]


def models_checkup(catalogue: Any) -> list[dict[str, str]]:
    """The same rows, one a model: PASS when it can be loaded now, WARN when weights are wanting, FAIL when it cannot be built.

    Networks are built on the meta device, so that no memory is taken and no weight is read; nothing is asked of the network.
    """
    rows = []
    for name, model in catalogue.models.things.items():
        if name != model.card.name:
            continue  # an alias
        state, what, fix = "PASS", "weights are here", ""
        problem = _unbuildable(model) if hasattr(model, "skeleton") else ""
        if problem:
            state, what, fix = "FAIL", "cannot be loaded", problem
        elif (weights := model.available()) != "here":
            state, what, fix = "WARN", f"weights are {weights}", _how_to_get(model)
        rows.append({"what": f"model {name}", "state": state, "found": what, "fix": fix})
    for name, text in catalogue.models.problems.items():
        rows.append({"what": f"model {name}", "state": "FAIL", "found": "no plugin provides it", "fix": text})
    return rows


def _unbuildable(model: Any) -> str:
    """Why a network cannot be built, or is larger than this machine's memory; "" when it can be."""
    from .errors import EosinError

    try:
        needed = sum(t.numel() * t.element_size() for t in model.skeleton().state_dict().values()) / 1e9
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        return f"its weights take {needed:.1f} GB, this machine has {there:.1f}" if needed > there else ""
    except EosinError as error:
        return str(error)
    except (AttributeError, ValueError, OSError):  # a system that does not tell its memory
        return ""


def _how_to_get(model: Any) -> str:
    """The error of a model without weights; for one on the hub a sentence, since the hub is not asked here."""
    card = model.card
    if not card.hub:
        return str(model.missing_weights())
    page = f"https://huggingface.co/{card.hub}"
    terms = (
        f"accept its terms at {page} (licence: {card.licence}), log in with `hf auth login`, then "
        if card.gated
        else ""
    )
    return f"{terms}`bench run` fetches them from {page}"


Check = tuple[str, str, str, str]


def _python() -> Check:
    good = sys.version_info >= (3, 11)
    return "python", "PASS" if good else "FAIL", sys.version.split()[0], "install Python 3.11 or later"


def _torch() -> list[Check]:
    fix = "pip install --upgrade torch torchvision timm (in one command, so that they match)"
    try:
        import torch
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        return [("torch", "FAIL", str(error).splitlines()[0], fix)]
    rows: list[Check] = [("torch", "PASS", f"{torch.__version__}, {torch.get_num_threads()} threads", fix)]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            rows.append(
                (
                    f"cuda:{i}",
                    "PASS",
                    f"{torch.cuda.get_device_name(i)}, {free / 2**30:.1f} of {total / 2**30:.1f} GB free",
                    "",
                )
            )
    elif torch.backends.mps.is_available():
        rows.append(("mps", "PASS", "Apple GPU", ""))
    else:
        rows.append(
            (
                "gpu",
                "WARN",
                "none that torch can use",
                "large models are slow on a processor; on a machine with a GPU install the torch build for it",
            )
        )
    return rows


def _libraries() -> list[Check]:
    found = environment.versions()
    lacking = [n for n in environment.LIBRARIES if n not in found]
    state = "FAIL" if lacking else "PASS"
    return [
        (
            "libraries",
            state,
            f"missing {', '.join(lacking)}" if lacking else ", ".join(f"{n} {v}" for n, v in found.items()),
            "pip install --upgrade eosin",
        )
    ]


def _folders(places: Places) -> list[Check]:
    rows: list[Check] = []
    for name, folder in (("home", places.home), ("store", places.store), ("results", places.results)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
            rows.append((name, "PASS", str(folder), ""))
        except OSError as error:
            rows.append((name, "FAIL", f"{folder}: {error.strerror}", "set EOSIN_HOME to a folder that you may write"))
    there = places.data.is_dir()
    names = sorted(p.name for p in places.data.iterdir() if p.is_dir()) if there else []
    text = (
        f"{places.data}: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}"
        if there
        else f"{places.data} does not exist yet"
    )
    rows.append(
        (
            "data",
            "PASS" if names else "WARN",
            text,
            "put datasets there, one folder each, or pass --data; `bench data list` names them",
        )
    )
    return rows


def _disk(places: Places) -> Check:
    folder = next(p for p in (places.store, *places.store.parents) if p.exists())
    free = shutil.disk_usage(folder).free / 2**30
    state = "PASS" if free > 10 else "WARN" if free > 1 else "FAIL"
    return (
        "disk",
        state,
        f"{free:.1f} GB free at {folder}",
        "make room, or pass --store; a million tiles of width 1,536 take 6 GB",
    )


def _hub() -> Check:
    if os.environ.get("HF_HUB_OFFLINE"):
        return (
            "hub",
            "WARN",
            "HF_HUB_OFFLINE is set: only cached weights are used",
            "unset HF_HUB_OFFLINE to fetch weights",
        )
    with contextlib.suppress(ImportError):
        from huggingface_hub import get_token

        if get_token():
            return "hub", "PASS", "a token is set", ""
    return "hub", "WARN", "no token", "gated models need one: `hf auth login`"


def _registry(places: Places) -> list[Check]:
    from .errors import EosinError
    from .plugins import Catalogue

    try:
        catalogue = Catalogue(places.registries)
        for shelf in ("models", "datasets", "protocols", "benchmarks", "recipes", "suites"):
            getattr(catalogue, shelf)
    except EosinError as error:
        return [("registry", "FAIL", str(error), "correct that file")]
    rows: list[Check] = []
    for plugin in catalogue.plugins:
        state = "FAIL" if plugin.error else "PASS"
        rows.append(
            (
                f"plugin {plugin.name}",
                state,
                plugin.error or f"{plugin.distribution} {plugin.version}",
                f"update or uninstall {plugin.distribution}",
            )
        )
    for things in (catalogue.models, catalogue.datasets, catalogue.benchmarks):
        rows += [
            (f"{things.word} {n}", "FAIL", f"provided twice, by {' and '.join(who)}", "uninstall or rename one")
            for n, who in things.clashes.items()
        ]
        rows += [
            (f"{things.word} {n}", "FAIL", text, "install the plugin, or correct `kind`")
            for n, text in things.problems.items()
        ]
    return rows
