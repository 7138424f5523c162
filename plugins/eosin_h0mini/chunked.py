"""Cross-entropy between two heads' scores against very many prototypes, a chunk of tokens at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


def cross_entropy(
    student: torch.Tensor,
    prototypes: torch.Tensor,
    teacher: torch.Tensor,
    teacher_prototypes: torch.Tensor,
    centre: torch.Tensor,
    rows: torch.Tensor,
    temperature: float,
    teacher_temperature: float,
    chunk: int = 256,
    coarse: bool = False,
) -> torch.Tensor:
    """sum_i rows_i H(p_i, q_i), p = softmax((teacher W_t' - centre) / T_t), q = softmax(student W_s' / T_s).

    H0-mini's H (arXiv:2501.16239, 3.1). Differentiable in `student` and `prototypes` only. No more than two chunks of
    scores exist at a time: the gradient of a chunk, which is rows (q - p) / T_s, is taken to tokens and prototypes as soon as its
    value is known, so that the backward pass needs no scores and computes none again.

    Args:
        student: (n, b). prototypes: (k, b), W_s. teacher: (n, c). teacher_prototypes: (k, c), W_t. centre: (k,).
        rows: (n,) what each token counts.
        chunk: tokens at a time.
        coarse: products may be TF32 on a GPU that has it, for runs in half precision.
    """
    return CrossEntropy.apply(
        student, prototypes, teacher.detach(), teacher_prototypes.detach(), centre, rows,
        float(temperature), float(teacher_temperature), chunk, coarse,
    )  # fmt: skip


class CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student, prototypes, teacher, teacher_prototypes, centre, rows, temperature, warm, chunk, coarse
    ) -> torch.Tensor:
        of_tokens, of_prototypes = torch.zeros_like(student), torch.zeros_like(prototypes)
        value = rows.new_zeros((), dtype=torch.promote_types(student.dtype, torch.float32))
        with _products(student.device.type, coarse):
            for first in range(0, len(student), chunk):
                at = slice(first, first + chunk)
                target = (teacher[at] @ teacher_prototypes.T).sub_(centre).div_(warm)
                _softmax(target)
                scores = (student[at] @ prototypes.T).div_(temperature)
                scores.sub_(scores.amax(dim=1, keepdim=True))
                agreed = torch.linalg.vecdot(target, scores)
                scores.exp_()
                mass = scores.sum(dim=1)
                value += (rows[at] * (mass.log() - agreed)).sum()
                if any(ctx.needs_input_grad):
                    slope = scores.div_(mass[:, None]).sub_(target)
                    share = (rows[at] / temperature)[:, None]
                    of_tokens[at] = share * (slope @ prototypes)
                    of_prototypes.addmm_(slope.T, share * student[at])
        ctx.save_for_backward(of_tokens, of_prototypes)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        of_tokens, of_prototypes = ctx.saved_tensors
        # in place: of 131,072 prototypes another copy is 200 MB; a second backward pass is refused by autograd
        return of_tokens.mul_(gradient), of_prototypes.mul_(gradient), *[None] * 8


def _softmax(scores: torch.Tensor) -> None:
    """Of each row, in place."""
    scores.sub_(scores.amax(dim=1, keepdim=True)).exp_()
    scores.div_(scores.sum(dim=1, keepdim=True))


@contextlib.contextmanager
def _products(device: str, coarse: bool) -> Iterator[None]:
    """Products of float32 as they come, or as TF32: ten bits as fp16 has, with the range of float32."""
    before = torch.get_float32_matmul_precision()
    if coarse and device == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        if coarse and device == "cuda":
            torch.set_float32_matmul_precision(before)
