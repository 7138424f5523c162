"""The network that reads a bag of embeddings: gated attention after Ilse et al. 2018 (arXiv:1802.04712), as eva has it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class ABMIL(nn.Module):
    """Project each row, weigh the rows of a bag by gated attention, classify their mean. State dicts carry eva's names.

    kaiko-ai/eva, vision/models/networks/abmil.py; 156,418 parameters for d = 768 and one output. Its dropouts are 0.

    Args:
        d: of the rows. outputs: logits of a bag. width: of the projection, the attention and the first hidden layer;
            the second has half of it.
    """

    def __init__(self, d: int, outputs: int, width: int = 128) -> None:
        super().__init__()
        self.projector = nn.Sequential(nn.Linear(d, width))
        self.gated_attention = nn.ModuleDict(
            {
                "attention_a": nn.Sequential(nn.Linear(width, width), nn.Tanh()),
                "attention_b": nn.Sequential(nn.Linear(width, width), nn.Sigmoid()),
                "attention_c": nn.Linear(width, 1),
            }
        )
        layers = (
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.Linear(width // 2, outputs),
        )
        self.classifier = nn.ModuleDict({"_network": nn.Sequential(*layers)})

    def forward(self, bags: Sequence[torch.Tensor] | torch.Tensor) -> torch.Tensor:
        """(bags, outputs) logits.

        Args:
            bags: (rows, d) each, at least one row; or in eva's form (bags, most, d), short bags filled up with -inf.
        """
        if isinstance(bags, torch.Tensor):
            bags = [bag[(bag > -torch.inf).any(1)] for bag in bags]
        gate, lengths = self.gated_attention, [len(bag) for bag in bags]
        h = torch.cat([self.projector(bag) for bag in bags])
        attention = gate["attention_c"](gate["attention_a"](h) * gate["attention_b"](h))
        parts = zip(attention.split(lengths), h.split(lengths), strict=True)
        return self.classifier["_network"](torch.cat([a.softmax(0).T @ own for a, own in parts]))
