"""How much memory do H0-mini's heads take, in chunks of tokens and the naive way, and does the loss agree?

    python benchmarks/heads_memory.py [--tiles 16] [--prototypes 131072] [--chunk 256] [--ways chunked naive backbone]

One process's share of the paper's batch: `--tiles` tiles, two views, 256 patch tokens and a class token each; student
384- and 256-wide bottlenecks, a teacher's heads of the same widths. A way runs in a process of its own: value and
gradients once, then the peak beyond what the inputs took: torch.cuda's on a GPU, else the resident set's. `backbone` is
the student's own: forward and backward of a ViT-B/14 with registers on the same views (half precision on a GPU, with
the optimiser's two moments). Naive at the paper's size needs some 40 GB: choose fewer tiles or prototypes on a laptop.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

GB = 2**30
PATCHES = 256


def peak(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / GB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB


def now(device: str) -> float:
    """GB taken at this moment, after which `peak` counts anew on a GPU; a CPU's peak cannot be set back."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return peak(device)


def naive(student, prototypes, teacher, teacher_prototypes, centre, rows, temperature, warm, *_):
    target = torch.softmax((teacher @ teacher_prototypes.T - centre) / warm, dim=1)
    return -(rows * (target * torch.log_softmax(student @ prototypes.T / temperature, dim=1)).sum(dim=1)).sum()


def heads(way: str, tiles: int, prototypes: int, chunk: int, device: str) -> dict:
    """DINO's and iBOT's losses of one share, with gradients to tokens and prototypes."""
    from eosin_h0mini.chunked import cross_entropy

    torch.manual_seed(0)
    loss_of, sides = naive if way == "naive" else cross_entropy, []
    for tokens, width in ((2 * tiles, 384), (2 * tiles * PATCHES, 256)):
        unit = [
            torch.nn.functional.normalize(torch.randn(n, width, device=device), dim=1) for n in (tokens, prototypes)
        ]
        taught = [torch.nn.functional.normalize(torch.randn_like(u), dim=1) for u in unit]
        rows = torch.full((tokens,), 1 / tokens, device=device)
        sides.append([*(u.requires_grad_() for u in unit), *taught, torch.zeros(prototypes, device=device), rows])
    before, start, value = now(device), time.perf_counter(), 0.0
    for side in sides:
        loss = loss_of(*side, 0.1, 0.04, chunk, device == "cuda")
        loss.backward()
        value += loss.item()
    norm = sum(float(x.grad.double().square().sum()) for side in sides for x in side[:2]) ** 0.5
    return {"gb": peak(device) - before, "seconds": time.perf_counter() - start, "loss": value, "gradient": norm}


def backbone(tiles: int, device: str) -> dict:
    """The student's network on two views, its gradients and AdamW's moments."""
    import timm

    options = {"img_size": 224, "num_classes": 0, "init_values": 1e-5}
    before = now(device)
    model = timm.create_model("vit_base_patch14_reg4_dinov2", **options).to(device)
    optimiser = torch.optim.AdamW(model.parameters())
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(
            device, dtype=torch.float16 if device == "cuda" else torch.bfloat16, enabled=device == "cuda"
        ):
            out = [model.forward_features(torch.randn(tiles, 3, 224, 224, device=device)) for _ in range(2)]
        sum(o.float().square().mean() for o in out).backward()
        optimiser.step()
        optimiser.zero_grad()
    return {"gb": peak(device) - before, "seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=16)
    parser.add_argument("--prototypes", type=int, default=131_072)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ways", nargs="*", default=["chunked", "naive", "backbone"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one == "backbone":
        print(json.dumps(backbone(args.tiles, args.device)))
        return
    if args.one:
        print(json.dumps(heads(args.one, args.tiles, args.prototypes, args.chunk, args.device)))
        return
    print(
        f"{args.tiles} tiles, {2 * args.tiles * PATCHES:,} patch tokens, {args.prototypes:,} prototypes, {args.device}"
    )
    for way in args.ways:
        done = subprocess.run([sys.executable, *sys.argv, "--one", way], capture_output=True, text=True)
        if done.returncode:
            print(f"{way:9} {(done.stderr.strip().splitlines() or ['was killed: out of memory'])[-1][:100]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        more = f"  loss {found['loss']:.6f}  |gradient| {found['gradient']:.6f}" if "loss" in found else ""
        print(f"{way:9} {found['gb']:7.3f} GB {found['seconds']:8.2f} s{more}")


if __name__ == "__main__":
    main()
