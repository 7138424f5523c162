"""A hub on this machine that serves, refuses, breaks off and lies; asked by huggingface_hub itself, in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

WEIGHTS = bytes(range(256)) * 40
LARGE = WEIGHTS * 2400  # 24 MB: the client keeps what it has in steps of ten
SHA = hashlib.sha256(WEIGHTS).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"

ASK = """
import json, sys
from eosin.cards import ModelCard
from eosin.errors import EosinError
from eosin_models import hub, weights
card = ModelCard(**json.loads(sys.argv[1]))
out = {"available": weights.available(card), "client": "huggingface_hub" in sys.modules}
out["missing"] = str(weights.missing(card) or "")
if "--plan" not in sys.argv:
    try:
        out["path"] = str(weights.locate(card))
    except EosinError as error:
        out["error"], out["exit"] = str(error), error.exit_code
out["after"] = weights.available(card)
print(json.dumps(out))
"""


class Hub(BaseHTTPRequestHandler):
    """ORG/NAME/resolve/REVISION/FILE, as the hub answers; ORG says what goes wrong."""

    seen: list[str] = []

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        if "/resolve/" not in self.path:
            return self.reply(404, {})
        mood, _, _, revision, file = self.path.split("?")[0].strip("/").split("/", 4)
        self.seen.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        errors = {
            "gated": (403, "GatedRepo"),
            "closed": (403, ""),
            "login": (401, "RepoNotFound"),
            "gone": (404, "RepoNotFound"),
            "token": (401, "GatedRepo"),
        }
        if mood == "token" and self.headers.get("Authorization") == "Bearer hf_good":
            errors = {}
        if mood in errors:
            return self.reply(
                errors[mood][0], {"X-Error-Code": errors[mood][1], "X-Error-Message": mood} if errors[mood][1] else {}
            )
        if revision not in ("main", COMMIT):
            return self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        if file != ("pytorch_model.bin" if mood == "old" else "model.safetensors"):
            return self.reply(404, {"X-Error-Code": "EntryNotFound"})
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        sha = SHA if mood != "liar" else SHA.translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
        whole = LARGE if mood == "flaky" else WEIGHTS
        if mood == "flaky":
            sha = hashlib.sha256(LARGE).hexdigest()
        body = whole[start:] if with_body else b""
        length = len(whole) - start
        head = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{sha}"',
            "X-Linked-Etag": f'"{sha}"',
            "X-Linked-Size": str(len(whole)),
            "Accept-Ranges": "bytes",
        }
        if start:
            head["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        if with_body and (mood == "broken" or mood == "flaky" and not start):
            body = body[: len(body) // 2]
            self.close_connection = True
        self.reply(206 if start else 200, {**head, "Content-Length": str(length)}, body)

    def reply(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


@pytest.fixture
def ask(server, tmp_path):
    """ask("ORG/NAME"): what a process finds out about a card whose hub is our server."""

    def run(repo, *flags, endpoint=server, env=None, **fields):
        Hub.seen.clear()
        card = {"name": "ours", "kind": "timm", "arch": "test_vit", "hub": repo, "licence": "CC-BY-NC-ND-4.0", **fields}
        keep = {
            k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE")) and "proxy" not in k.lower()
        }
        places = {
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_ETAG_TIMEOUT": "2",
        }
        done = subprocess.run(
            [sys.executable, "-c", ASK, json.dumps(card), *flags],
            env={**keep, **places, **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_file_is_fetched_once_and_then_needs_no_hub(ask):
    first = ask("good/model", file="model.safetensors")
    assert first["available"] == "missing" and not first["client"], "looking must not import the hub's client"
    assert first["missing"] == "" and first["after"] == "here"
    with open(first["path"], "rb") as handle:
        assert handle.read() == WEIGHTS
    again = ask("good/model", file="model.safetensors", gated="manual", endpoint="http://127.0.0.1:9")
    assert again["available"] == "here" and again["path"] == first["path"] and not again["missing"]
    assert Hub.seen == []
    offline = ask("good/model", file="model.safetensors", env={"HF_HUB_OFFLINE": "1"}, endpoint="http://127.0.0.1:9")
    assert offline["path"] == first["path"]


def test_a_pinned_revision_and_another_cache_folder(ask, tmp_path):
    cache = {"HF_HUB_CACHE": str(tmp_path / "elsewhere")}
    found = ask("good/model", revision=COMMIT, env=cache)
    assert found["path"].startswith(str(tmp_path / "elsewhere")) and COMMIT in found["path"]
    assert ask("good/model", revision=COMMIT, env=cache, endpoint="http://127.0.0.1:9")["available"] == "here"
    assert ask("good/model", env=cache)["available"] in ("here", "missing")
    assert "no revision nonsense" in ask("good/model", revision="nonsense")["error"]


def test_without_a_file_on_the_card_the_safe_format_comes_first(ask):
    assert ask("good/model")["path"].endswith("model.safetensors")
    assert ask("old/model")["path"].endswith("pytorch_model.bin")
    nothing = ask("good/model", file="weights.pth")
    assert "has no weights.pth" in nothing["error"] and "`file:`" in nothing["error"]


@pytest.mark.parametrize("mood", ["gated", "closed", "login", "gone", "token"])
def test_a_refusal_says_which_page_which_terms_and_how_to_log_in(ask, mood):
    found = ask(f"{mood}/model")
    for text in (found["missing"], found["error"]):
        assert f"https://huggingface.co/{mood}/model" in text
        assert "hf auth login" in text and "CC-BY-NC-ND-4.0" in text
    assert found["exit"] == 3 and found["after"] == "missing"


def test_a_token_opens_the_gate(ask):
    assert ask("token/model", env={"HF_TOKEN": "hf_good"})["after"] == "here"


def test_the_plan_asks_for_headers_only(ask):
    assert ask("good/model", "--plan")["missing"] == ""
    assert Hub.seen and all(line.startswith("HEAD") for line in Hub.seen)


def test_a_download_that_breaks_off_is_not_taken_for_the_file(ask):
    found = ask("broken/model")
    assert "error" in found and "run again" in found["error"] and found["after"] == "missing"


def test_a_download_goes_on_where_it_stopped(ask):
    assert ask("flaky/model")["after"] == "here"
    assert any("bytes=" in line and "bytes=0-" not in line for line in Hub.seen)


def test_a_file_that_is_not_the_published_one_is_thrown_away(ask, tmp_path):
    found = ask("liar/model")
    assert "hash is not the published one" in found["error"] and found["after"] == "missing"
    assert not [p for p in (tmp_path / "hf").rglob("*") if p.is_file() and p.read_bytes() == WEIGHTS]


def unreachable(text):
    return "not in the cache" in text and "--weights FILE" in text and "https://huggingface.co/good/model" in text


def test_offline_says_so_and_what_to_do(ask):
    found = ask("good/model", endpoint="http://127.0.0.1:9", env={"HF_HUB_OFFLINE": "1"}, gated="auto")
    assert unreachable(found["missing"]) and unreachable(found["error"]) and "HF_HUB_OFFLINE" in found["missing"]


def test_no_network_is_said_before_anything_runs(ask):
    assert unreachable(ask("good/model", "--plan", endpoint="http://127.0.0.1:9")["missing"])


@pytest.mark.slow
def test_no_network_when_the_file_is_needed(ask):
    """Slow because the hub's client tries again for a while."""
    assert unreachable(ask("good/model", endpoint="http://127.0.0.1:9")["error"])
