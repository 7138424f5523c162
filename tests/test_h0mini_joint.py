"""Two processes (gloo) on halves of a batch: loss, gradients, centre and fitted prototypes are those of one."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing as processes

from eosin import joint
from h0mini_models import pair, readouts, tokens


def step(share: slice, head: str) -> dict[str, torch.Tensor]:
    """Two steps of h0-mini on these rows of a batch of six."""
    torch.set_num_threads(1)
    recipe, module, _ = pair("rob-ibot", teacher_head=head, mask_probability=0.8)
    recipe.prepare(module, lambda n: ({k: v[share] for k, v in readouts(6, seed=s).items()} for s in (1, 2, 3)))
    generator, made = torch.Generator().manual_seed(4), {}
    for number in (4, 5):
        recipe.views(torch.zeros(6, 3, 32, 32)[share], generator)
        teacher = [{k: v[share] for k, v in readouts(6, seed=s).items()} for s in (5, 6)]
        student = [(tokens(6, 16, seed=s)[share], tokens(6, 16, 16, seed=s + 1)[share]) for s in (7, 9)]
        module.zero_grad()
        loss = recipe.loss(teacher, [{"dino": module.dino(c), "ibot": module.ibot(p)} for c, p in student], number)
        loss.backward()
        made[f"loss {number}"] = joint.mean(loss.detach())
        made |= {f"{n} {number}": joint.mean(p.grad) for n, p in module.named_parameters() if p.grad is not None}
    return made | {n: b.clone() for n, b in module.named_buffers()}


def one_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    made = {head: step(slice(3 * rank, 3 * rank + 3), head) for head in HEADS}
    torch.save(made, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


HEADS = ("prototypes", "regression", "learned")


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    processes.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    two = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for head in HEADS:
        one = step(slice(0, 6), head)
        assert "dino.head.mlp.0.weight 4" in one or head == "regression"
        for name, value in one.items():
            for rank in (0, 1):
                assert torch.allclose(two[rank][head][name], value, rtol=1e-6, atol=1e-9), (head, name)
