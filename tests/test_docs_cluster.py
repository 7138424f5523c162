"""The job scripts of docs/cluster.md, run on this machine: SLURM's own commands are stood in for, everything else is real."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from helpers import parts
from test_crew import crew  # noqa: F401
from test_distill import room, same, weights, words  # noqa: F401
from test_docs import blocks
from test_embed import forget, long, reference, seen, tint  # noqa: F401

SRUN = """#!/bin/bash
# as many tasks as --ntasks says, or one a node
n=$SLURM_NNODES
while [[ $1 == -* ]]; do
  case $1 in --ntasks=*) n=${1#*=} ;; -w) shift ;; esac
  shift
done
trap 'kill $(jobs -p)' TERM
for _ in $(seq "$n"); do "$@" & done
wait
"""
SLURM = {
    "srun": SRUN,
    "scontrol": "#!/bin/bash\necho localhost; echo localhost\n",
    "hostname": "#!/bin/bash\necho 127.0.0.1\n",
    "bench": f'#!/bin/bash\nexec {sys.executable} -m eosin.cli "$@"\n',
}


@pytest.fixture
def node(tmp_path, home, monkeypatch):
    """A machine with SLURM's commands; returns what starts a script of the page, given its job's name."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in SLURM.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SCRATCH", str(home.parent))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    monkeypatch.setenv("SLURM_NNODES", "2")
    scripts = {t.split("--job-name=")[1].split()[0]: t for _, kind, t in blocks("cluster.md") if kind == "bash"}
    assert list(scripts) == ["embed", "bench-ray", "distill"]

    def start(name: str, changes: dict[str, str], **env: str) -> subprocess.Popen:
        text = scripts[name]
        for old, new in {"$SCRATCH/eosin": str(home), **changes}.items():
            assert old in text, f"the script has changed: {old}"
            text = text.replace(old, new)
        (tools / f"{name}.sh").write_text(text)
        job = subprocess.Popen(
            ["bash", tools / f"{name}.sh"], stdout=(out := tempfile.TemporaryFile("w+")),
            stderr=(err := tempfile.TemporaryFile("w+")), env={**os.environ, **env}, cwd=tmp_path, start_new_session=True,
        )  # fmt: skip
        job.told = out, err
        return job

    return start


def ended(job: subprocess.Popen, seconds: float = 240) -> dict:
    """The fact that a job printed, when it has ended as it should; like SLURM, leaves none of its processes."""
    try:
        code = job.wait(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGTERM)
        out, err = (f.seek(0) or f.read() for f in job.told)
    assert code == 0, err[-3000:]
    return json.loads(out[out.index("{") :])


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@pytest.mark.slow
def test_the_array_fills_the_address(home, crew, node):  # noqa: F811
    whole = reference(home)
    forget(crew)
    ours = {"h-optimus-0": "tint", "tcga-brca": "tiny", "--workers 8": "--workers 1 --json"}
    jobs = [node("embed", ours, SLURM_ARRAY_TASK_ID=str(i), SLURM_ARRAY_TASK_COUNT="3") for i in (1, 2, 3)]
    told = [ended(job) for job in jobs]
    assert parts(home / "embeddings") == whole and sum(t["embedded"] for t in told) == 1300
    assert max(seen(crew).values()) == 1, "no tile twice"


@pytest.mark.slow
def test_ray_on_two_nodes_runs_the_suite(home, crew, node):  # noqa: F811
    pytest.importorskip("ray")
    whole = reference(home)
    forget(crew)
    ours = {
        "-m h-optimus-0 -m uni -s breast": "-m tint -b tint-mean --json",
        "6379": str(port()),
        "--nodes=3 --ntasks=3": "--nodes=1 --ntasks=1",
        "--num-gpus=4 --num-cpus=32": "--num-gpus=0 --num-cpus=1",
        "sleep 20": "sleep 10",
    }
    found = ended(node("bench-ray", ours))
    assert found["embedded"] == 1300 and parts(home / "embeddings") == whole
    record = json.loads(Path(found["records"][0]).read_text())
    assert record["embed"][0]["workers"] == 2, "an actor on each node"


@pytest.mark.slow
def test_torchrun_on_two_nodes_distils_what_one_process_does(room, home, node):  # noqa: F811
    assert subprocess.run(
        [sys.executable, "-m", "eosin.cli", *map(str, words(room, "one"))], capture_output=True
    ).returncode == 0  # fmt: skip
    asked = " ".join(str(w) for w in words(room, "two"))
    ours = {
        'distill g2l --teacher h-optimus-0 --student hibou-l --slides "$SLIDES" --out runs/g2l-brca': asked,
        "--nproc-per-node=4": "--nproc-per-node=1",
        "29500": str(port()),
        "$head": "localhost",
        "OMP_NUM_THREADS=8": "OMP_NUM_THREADS=1",
    }
    assert ended(node("distill", ours))["steps"] == 6
    assert same(weights(room / "one"), weights(room / "two"), atol=1e-4)
