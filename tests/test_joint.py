"""Two processes (gloo) on halves of a batch: sums, batch norm, draws and gradients are those of one on the whole."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing as processes

from eosin import augment, joint

EPS = 1e-4


def batch() -> torch.Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def loss_of(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A function of batch norm and total that is not linear in the batch."""
    normal = joint.batch_norm(x @ weight, EPS)
    return torch.log(joint.total((normal - x.detach() @ weight.detach()).abs().pow(4).sum()))


def weights() -> torch.Tensor:
    return torch.eye(5, dtype=torch.float64) + 0.1 * batch()[:5].T


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x, weight = batch()[3 * rank : 3 * rank + 3].requires_grad_(), weights().requires_grad_()
    loss = loss_of(x, weight)
    loss.backward()
    generator = torch.Generator().manual_seed(0)
    tiles = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(5))[3 * rank : 3 * rank + 3]
    made = {
        "who": (joint.rank(), joint.world()),
        "total": joint.total(x.detach()),
        "mean": joint.mean(x.detach().mean()),
        "norm": joint.batch_norm(x.detach(), EPS),
        "loss": loss.detach(),
        "of x": x.grad,
        "of weight": weight.grad,
        "drawn": augment.uniform(generator, 3, 2, low=-1, high=1),
        "views": augment.flip(augment.random_crop(tiles, 8, generator), generator),
    }
    torch.save(made, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    processes.spawn(one_of_two, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_alone_there_is_nothing_to_share():
    x = batch()
    assert (joint.rank(), joint.world()) == (0, 1)
    assert joint.total(x) is x and torch.equal(joint.mean(x), x)
    expected = torch.nn.BatchNorm1d(5, eps=EPS, affine=False).double()(x)
    torch.testing.assert_close(joint.batch_norm(x, EPS), expected)
    assert joint.batch_norm(x.bfloat16(), 0).dtype == torch.float32


def test_two_processes_know_themselves(two):
    assert [made["who"] for made in two] == [(0, 2), (1, 2)]


def test_totals_and_means_are_of_the_joint_batch(two):
    x = batch()
    for made in two:
        torch.testing.assert_close(made["total"], x[:3] + x[3:])
        torch.testing.assert_close(made["mean"], x.mean())
    torch.testing.assert_close(torch.cat([made["norm"] for made in two]), joint.batch_norm(x, EPS))


def test_the_mean_of_gradients_is_the_joint_gradient(two):
    x, weight = batch().requires_grad_(), weights().requires_grad_()
    loss = loss_of(x, weight)
    loss.backward()
    for made in two:
        torch.testing.assert_close(made["loss"], loss.detach())
    torch.testing.assert_close((two[0]["of weight"] + two[1]["of weight"]) / 2, weight.grad)
    torch.testing.assert_close(torch.cat([made["of x"] for made in two]) / 2, x.grad)
    assert not torch.allclose(two[0]["of weight"], two[1]["of weight"]), "each has its own share"


def test_each_process_has_its_rows_of_the_draws(two):
    generator = torch.Generator().manual_seed(0)
    tiles = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.cat([made["drawn"] for made in two]), augment.uniform(generator, 6, 2, low=-1, high=1))
    views = augment.flip(augment.random_crop(tiles, 8, generator), generator)
    assert torch.equal(torch.cat([made["views"] for made in two]), views)
