"""What commands that run models are asked for: which models, and by how many hands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .cli import Desk
from .errors import MissingError, UsageError


def compute(command: Any) -> Any:
    """The options of commands that run models."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress and no remarks."),
        click.option(
            "--skip-broken", is_flag=True, help="Leave out tiles that cannot be read; the record counts them."
        ),
        click.option(
            "--workers", default=0, type=click.IntRange(min=0), help="Threads that read tiles (default: by machine)."
        ),
        click.option(
            "--channels-last", is_flag=True, help="Pixels in the order that convolutions like; for CNNs on a GPU."
        ),
        click.option(
            "--compile", is_flag=True, help="torch.compile: a minute more to start, then faster; for long runs."
        ),
        click.option("--batch-size", default=0, type=click.IntRange(min=0), help="Tiles a batch (default: what fits)."),
        click.option(
            "--address", help="A Ray cluster for --engine ray (default: RAY_ADDRESS, else one on this machine)."
        ),
        click.option(
            "--engine", "kind", default="local", type=click.Choice(["local", "ray"]), help="Who places the workers."
        ),
        click.option("--devices", help="One process each: 0,1,2,3 (CUDA), auto for all, or names as in cuda:0,cpu."),
        click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps."),
        click.option(
            "--precision",
            type=click.Choice(["fp32", "fp16", "bf16"]),
            help="Override the card's precision; another address.",
        ),
        click.option(
            "--stored",
            type=click.Choice(["float32", "float16"]),
            help="How embeddings are stored, float16 in half the space; another address.",
        ),
        click.option(
            "--weights", type=click.Path(), help="A local weights file instead of the card's; for one --model."
        ),
        click.option(
            "--model",
            "-m",
            "models",
            multiple=True,
            help="A name, timm:ARCH, precomputed:DIR, or a card's path; may be given again.",
        ),
    ):
        command = option(command)
    return command


def chosen_models(desk: Desk, o: dict[str, Any]) -> list[Any]:
    """The extractors that the options name."""
    if not o["models"]:
        raise UsageError("No model: add --model NAME. `bench list models` shows them all.")
    if o["weights"] and len(o["models"]) > 1:
        raise UsageError("--weights belongs to one model: give one --model, or name weights in cards.")
    if o["weights"] and not Path(o["weights"]).exists():
        raise MissingError(f"There is no weights file {o['weights']}. Check the path.")
    return [
        desk.catalogue.model(
            m,
            weights=o["weights"] and str(Path(o["weights"]).absolute()),
            precision=o["precision"],
            stored=o["stored"],
        )
        for m in dict.fromkeys(o["models"])
    ]


def engine(o: dict[str, Any], console: Any, shard: tuple[int, int] = (1, 1)) -> Any:
    """How to compute: here on one device, in a crew of processes, or on a Ray cluster."""
    from .embed import Engine

    if o["devices"] and (o["device"] != "auto" or o["kind"] == "ray"):
        raise UsageError("--devices goes with neither --device nor --engine ray: leave one of them out.")
    if o["address"] and o["kind"] != "ray":
        raise UsageError("--address names a Ray cluster: add --engine ray.")
    names = ("device", "batch_size", "workers", "skip_broken", "compile", "channels_last")
    common = {**{n: o[n] for n in names}, "shard": shard}
    if o["kind"] == "ray":
        from .cluster import Cluster

        cluster = Cluster(**common, address=o["address"] or "", say=console.warn)
        click.get_current_context().call_on_close(cluster.leave)  # Ray's own remarks come before stdout is ours again
        return cluster
    if o["devices"]:
        from .crew import Crew, devices

        found = devices(o["devices"])
        return Crew(**{**common, "device": found[0]}, devices=found, say=console.warn)
    return Engine(**common)


def read_shard(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise UsageError(f"--shard {text}: write i/n with i from 1 to n, as in --shard 3/16.")
    return int(i), int(n)
