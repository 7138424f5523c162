"""The projection head of DINO and iBOT: three layers to a unit vector, then scores against prototypes of learned length.

As dinov2/layers/dino_head.py of facebookresearch/dinov2 describes it. The last layer is apart, because scores of all
tokens against 131,072 prototypes are never held at once (`chunked`).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from eosin.errors import MissingError, UsageError

LAST = re.compile(r"last_layer\.(?:weight_|parametrizations\.weight\.original)([gv01])$")


class Head(nn.Module):
    """Tokens (..., dim) to unit vectors (..., bottleneck); `weights()` are the prototypes that score them.

    Args:
        dim: width of the tokens. out: how many prototypes. hidden: width of the two hidden layers.
    """

    def __init__(self, dim: int, out: int, hidden: int, bottleneck: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.direction = nn.Parameter(torch.empty(out, bottleneck).uniform_(-1, 1) * bottleneck**-0.5)
        self.length = nn.Parameter(torch.ones(out, 1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out = self.mlp(tokens)
        return F.normalize(out.to(torch.promote_types(out.dtype, torch.float32)), dim=-1)

    def stand(self, still: bool) -> None:
        """Whether the prototypes stay as they are: neither gradients nor weight decay reach them."""
        for parameter in (self.direction, self.length):
            parameter.requires_grad_(not still)

    def weights(self) -> torch.Tensor:
        """(out, bottleneck): the last layer, weight-normed and without bias."""
        return self.length * F.normalize(self.direction, dim=-1)


def frozen(head: nn.Module) -> nn.Module:
    """The same head with buffers for parameters: kept with the module, never trained."""
    for part in head.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach().clone())
    return head


def read_heads(file: str) -> dict[str, dict[str, torch.Tensor]]:
    """{`dino`: …, `ibot`: …} of a file with a teacher's heads: a state dict, .safetensors or torch (weights only).

    Names are DINOv2's, whatever stands before: `dino_head.mlp.0.weight` … `dino_head.last_layer.weight_v`; `ibot_head.`
    alike. A file without `ibot_head` has one head for both.

    Raises:
        MissingError: no such file. UsageError: it is not a state dict, or has no DINO head.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise MissingError(
            f"teacher_head=path:{file}: there is no such file. Give a state dict of the teacher's heads."
        )
    try:
        state = _read(path)
    except Exception as error:
        raise UsageError(
            f"{path} cannot be read as plain tensors ({str(error).splitlines()[0]}). Save the heads with "
            "`torch.save(heads.state_dict(), FILE)` or safetensors."
        ) from error
    found = {
        kind: {n.split(f"{kind}_head.", 1)[1]: t.float() for n, t in state.items() if f"{kind}_head." in n}
        for kind in ("dino", "ibot")
    }
    if not found["dino"]:
        raise UsageError(
            f"{path} has no tensor named dino_head.…: its names begin with {', '.join(list(state)[:3])}. Rename them as "
            "DINOv2 does."
        )
    return {"dino": found["dino"], "ibot": found["ibot"] or found["dino"]}


def _read(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("teacher", "state_dict", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]
    return {n: t for n, t in state.items() if isinstance(t, torch.Tensor)}


def head_of(state: dict[str, torch.Tensor], dim: int) -> Head:
    """A head with the shapes and weights of a state dict in DINOv2's names.

    Raises:
        UsageError: it is not a head of three layers, or not for tokens of this width.
    """
    named = {n: t for n, t in state.items() if n.startswith("mlp.")}
    for name, tensor in state.items():
        if match := LAST.search(name):
            named["length" if match[1] in "g0" else "direction"] = tensor
    if "direction" not in named and "last_layer.weight" in state:
        named["direction"] = state["last_layer.weight"]
        named["length"] = named["direction"].norm(dim=1, keepdim=True)
    try:
        (hidden, width), (out, bottleneck) = named["mlp.0.weight"].shape, named["direction"].shape
        named["length"] = named.get("length", torch.ones(out, 1)).reshape(out, 1)
        head = Head(width, out, hidden, bottleneck)
        head.load_state_dict(named)
    except (KeyError, RuntimeError) as error:
        raise UsageError(
            f"The teacher's head is not DINOv2's, of three layers and a weight-normed last one ({str(error).splitlines()[0]})."
            f" It has {', '.join(state)}."
        ) from error
    if width != dim:
        raise UsageError(
            f"The teacher's head takes tokens of width {width}, the teacher's have {dim}. Give its own heads."
        )
    return head
