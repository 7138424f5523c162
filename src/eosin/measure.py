"""What a network is, counted: parameters, width, floating-point operations and memory for one tile."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

from .errors import EosinError, UsageError
from .extractor import FeatureExtractor, default_readout, dense

MEGA = 1e6
MOST = 128  # tiles a batch; more gains nothing on any card we know


def measure(extractor: FeatureExtractor, size: int = 0) -> dict[str, Any]:
    """{params, tensors, dim, gflops, prefix_tokens, readouts, memory}; {"problem": why} when it cannot be built.

    `gflops` is 2 x multiply-adds of one tile; `memory` is megabytes for the weights and for a tile on its way through, both
    in fp32 (half precision needs less). An extractor with a `skeleton()` (the network without weights, on the meta device)
    is measured without taking that memory.

    Args:
        size: pixels of the tile's side where a benchmark imposes them; 0 for the card's.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    extractor = copy.copy(extractor)
    card, skeleton = extractor.card, getattr(extractor, "skeleton", None)
    extractor.device = "cpu" if skeleton is None else "meta"
    extractor._module = None
    try:
        if skeleton is not None:
            extractor._module = skeleton().eval().requires_grad_(False)
        side = size or card.size
        with FlopCounterMode(display=False) as counter, torch.no_grad(), _live(extractor._module) as live:
            out = extractor.embed(torch.zeros(1, 3, side, side, device=extractor.device))
        found = out if isinstance(out, dict) else {"pooled": out}
        vectors = tuple(k for k in found if not dense(k))
        state = extractor._module.state_dict() if extractor._module is not None else {}
        parameters = list(extractor._module.parameters()) if state else []
        weights = sum(v.numel() * v.element_size() for v in state.values())
        return {
            "params": sum(p.numel() for p in parameters) if extractor._module is not None else card.params,
            "tensors": len(state) or None,
            "dim": sum(int(found[p].shape[1]) for p in default_readout(card, vectors).split("+")),
            "gflops": round(counter.get_total_flops() / 1e9, 3),
            "prefix_tokens": getattr(extractor._module, "num_prefix_tokens", card.prefix_tokens),
            "readouts": list(found),
            "memory": {"weights_mb": round(weights / MEGA, 1), "tile_mb": round(live.peak / MEGA, 3)},
        }
    except EosinError as error:
        return {"problem": str(error)}
    except Exception as error:  # a stranger's network may raise anything
        return {"problem": f"{type(error).__name__}: {error}"}


@contextlib.contextmanager
def _live(module: Any) -> Any:
    """Watch a forward pass: `.peak` is the most bytes of results that were alive at once, views and weights left out."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Live(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            state = [] if module is None else [*module.parameters(), *module.buffers()]
            self.weights = {tensor.untyped_storage()._cdata for tensor in state}
            self.alive: dict[int, int] = {}
            self.now = self.peak = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    self.born(tensor)
            return out

        def born(self, tensor: torch.Tensor) -> None:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self.weights:
                return
            self.alive[key] = self.alive.get(key, 0) + 1
            self.now += size if self.alive[key] == 1 else 0
            self.peak = max(self.peak, self.now)
            weakref.finalize(tensor, self.gone, key, size)

        def gone(self, key: int, size: int) -> None:
            self.alive[key] -= 1
            if not self.alive[key]:
                del self.alive[key]
                self.now -= size

    with Live() as live:
        yield live


def largest_batch(tile_mb: float, free_mb: float, most: int = MOST) -> int:
    """The largest power of two of tiles that go through at once in four fifths of the free memory; at least 1."""
    batch = most
    while batch > 1 and batch * tile_mb > 0.8 * free_mb:
        batch //= 2
    return batch


def free_mb(device: str) -> float | None:
    """Megabytes that a device has left; None where it does not say (a processor)."""
    import torch

    kind = device.split(":")[0]
    if kind == "cuda":
        return float(torch.cuda.mem_get_info(torch.device(device))[0] / MEGA)
    if kind == "mps":
        return float((torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()) / MEGA)
    return None


def fit(measured: dict[str, Any], room: str) -> dict[str, Any]:
    """Whether a model fits into a card's memory, and with which batch: {room, fits, batch_size}.

    Args:
        measured: what `measure` gave. room: such as `24GB`, of which half a gigabyte goes to the driver.

    Raises:
        UsageError: a room that is no size.
    """
    text = room.upper().removesuffix("B").removesuffix("I").strip()
    scale = {"G": 1000, "M": 1, "T": 1e6}.get(text[-1:], 1000)
    try:
        megabytes = float(text.rstrip("GMT")) * scale
    except ValueError:
        raise UsageError(f"--fit {room}: write the memory of the card, as in --fit 24GB.") from None
    if "problem" in measured:
        return {"room": room, "fits": False, "why": measured["problem"]}
    left = megabytes - 500 - measured["memory"]["weights_mb"]
    tile = measured["memory"]["tile_mb"]
    if tile > 0.8 * left:
        return {
            "room": room,
            "fits": False,
            "why": f"weights take {measured['memory']['weights_mb']:.0f} MB, a tile {tile:.0f} MB",
        }
    return {"room": room, "fits": True, "batch_size": largest_batch(tile, left)}
