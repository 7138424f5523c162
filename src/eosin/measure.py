"""What a network is, counted: parameters, width, floating-point operations for one tile."""

from __future__ import annotations

from typing import Any

from .errors import EosinError
from .extractor import FeatureExtractor, default_readout


def measure(extractor: FeatureExtractor) -> dict[str, Any]:
    """{params, dim, gflops (2 x multiply-adds of one tile), prefix_tokens, readouts}; {"problem": why} when it cannot be built.

    An extractor with a `skeleton()` (the network without weights, on the meta device) is measured without memory.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    card = extractor.card
    skeleton = getattr(extractor, "skeleton", None)
    device = "meta" if skeleton is not None else "cpu"
    try:
        if skeleton is not None:
            extractor._module = skeleton().eval().requires_grad_(False)
        extractor.device = device
        with FlopCounterMode(display=False) as counter, torch.inference_mode(skeleton is None), torch.no_grad():
            out = extractor.embed(torch.zeros(1, 3, card.size, card.size, device=device))
        found = out if isinstance(out, dict) else {"pooled": out}
        vectors = tuple(k for k in found if k != "grid")
        width = sum(int(found[p].shape[1]) for p in default_readout(card, vectors).split("+"))
        module = getattr(extractor, "_module", None)
        return {
            "params": sum(p.numel() for p in module.parameters()) if module is not None else card.params,
            "dim": width,
            "gflops": round(counter.get_total_flops() / 1e9, 3),
            "prefix_tokens": getattr(module, "num_prefix_tokens", card.prefix_tokens),
            "readouts": list(found),
        }
    except EosinError as error:
        return {"problem": str(error)}
    except Exception as error:  # a stranger's network may raise anything
        return {"problem": f"{type(error).__name__}: {error}"}
    finally:
        extractor._module = None
