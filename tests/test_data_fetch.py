"""`bench data fetch` against a server on this machine that breaks off, lies about checksums and sends unsafe archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eosin.dataset import Dataset
from eosin.errors import DataError, MissingError, UsageError
from eosin.fetch import fetch
from helpers import bench


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        shop = self.server.shop
        body = shop.files.get(self.path)
        asked = self.headers.get("Range")
        shop.log.append((self.path, asked))
        if body is None:
            self.send_error(404)
            return
        start = int(asked[6:-1]) if asked and shop.ranges else 0
        if asked and self.headers.get("If-Range") not in (None, shop.etag):
            start = 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", shop.etag)
        self.end_headers()
        stop = len(body)
        if shop.breaks:
            stop = start + shop.breaks.pop(0)
            self.close_connection = True
        self.wfile.write(body[start:stop])

    def log_message(self, *args):
        pass


class Shop:
    """What the server offers: files by path; `breaks`: after how many bytes the next connections end; `log`: what was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.breaks: list[int] = []
        self.log: list[tuple[str, str | None]] = []
        self.ranges, self.etag = True, '"one"'
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.shop = self
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def shop():
    made = Shop()
    yield made
    made.server.shutdown()
    made.server.server_close()


def tar(*members: tuple[str, bytes], link: tuple[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, body in members:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            file.addfile(info, io.BytesIO(body))
        if link:
            info = tarfile.TarInfo(link[0])
            info.type, info.linkname = tarfile.SYMTYPE, link[1]
            file.addfile(info)
    return buffer.getvalue()


def zipped(name: str, mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as book:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        book.writestr(info, b"inside")
    return buffer.getvalue()


NOISE = bytes(hashlib.shake_256(b"tissue").digest(3_000_000))  # does not compress: larger than what sockets hold


def offered(shop: Shop, *archives: tuple[str, bytes, str]) -> Dataset:
    """A dataset that is fetched from the shop: (file name, content, checksum)."""
    found = Dataset("open", how="ask nicely")
    shop.files |= {f"/{name}": body for name, body, _ in archives}
    found.downloads = lambda: [(f"{shop.address}/{name}", name, checksum) for name, _, checksum in archives]
    return found


def md5(body: bytes) -> str:
    return "md5:" + hashlib.md5(body).hexdigest()


def quick(dataset: Dataset, data: Path) -> Path:
    return fetch(dataset, data, wait=0.001)


def test_archives_are_fetched_checked_unpacked_and_put_in_place(shop, tmp_path):
    a, b = tar(("set/a.png", b"A"), ("set/sub/b.png", b"B"), link=("set/link.png", "a.png")), zipped("set/c.png")
    place = quick(offered(shop, ("a.tar.gz", a, md5(a)), ("b.zip", b, "")), tmp_path)
    assert (place / "set" / "sub" / "b.png").read_bytes() == b"B" and (
        place / "set" / "c.png"
    ).read_bytes() == b"inside"
    assert (place / "set" / "link.png").read_bytes() == b"A"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["open"], "nothing is left beside it"
    with pytest.raises(UsageError, match="is there already"):
        quick(offered(shop, ("a.tar.gz", a, md5(a))), tmp_path)


def test_one_packed_file_is_unpacked_and_a_table_is_taken_as_it_is(shop, tmp_path):
    packed = gzip.compress(NOISE)
    place = quick(offered(shop, ("x.h5.gz", packed, md5(packed)), ("meta.csv", b"wsi\n", "")), tmp_path)
    assert {p.name: p.read_bytes() for p in place.iterdir()} == {"x.h5": NOISE, "meta.csv": b"wsi\n"}
    for name, harm in (("cut.h5.gz", packed[:-9]), ("bit.h5.gz", packed[:-8] + b"\0" + packed[-7:])):
        with pytest.raises(DataError, match=f"{name} cannot be unpacked .* fetch it again"):
            quick(offered(shop, (name, harm, "")), tmp_path / name)
        assert not (tmp_path / name / "open").exists()


def test_a_broken_connection_goes_on_where_it_stopped(shop, tmp_path):
    body = tar(("x", NOISE))
    shop.breaks = [1_000_000, 1_000_000]
    place = quick(offered(shop, ("x.tar.gz", body, md5(body))), tmp_path)
    assert (place / "x").read_bytes() == NOISE
    starts = [int(r[6:-1]) for _, r in shop.log[1:]]
    assert len(starts) == 2 and 0 < starts[0] < starts[1] < len(body)


def test_another_day_goes_on_too(shop, tmp_path):
    body = tar(("x", NOISE))
    data = offered(shop, ("x.tar.gz", body, md5(body)))
    shop.breaks = [1_000_000, 0, 0, 0, 0, 0]
    with pytest.raises(MissingError, match="kept in .*x.tar.gz.part; the same command goes on"):
        quick(data, tmp_path)
    assert not (tmp_path / "open").exists()
    shop.log.clear()
    quick(data, tmp_path)
    assert len(shop.log) == 1 and int(shop.log[0][1][6:-1]) > 0


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(shop, tmp_path):
    old, new = tar(("x", NOISE)), tar(("x", NOISE[::-1]))
    data = offered(shop, ("x.tar.gz", old, ""))
    shop.breaks = [1_000_000, 0, 0, 0, 0, 0]
    with pytest.raises(MissingError):
        quick(data, tmp_path)
    shop.files["/x.tar.gz"], shop.etag = new, '"two"'
    assert (quick(data, tmp_path) / "x").read_bytes() == NOISE[::-1]


def test_a_server_without_ranges(shop, tmp_path):
    body = tar(("x", NOISE))
    shop.ranges, shop.breaks = False, [1_000_000]
    assert (quick(offered(shop, ("x.tar.gz", body, md5(body))), tmp_path) / "x").read_bytes() == NOISE


def test_what_was_whole_when_we_were_stopped_is_not_fetched_again(shop, tmp_path):
    body = tar(("x", b"1"))
    data = offered(shop, ("x.tar.gz", body, md5(body)))
    (tmp_path / "open.downloads").mkdir()
    (tmp_path / "open.downloads" / "x.tar.gz.part").write_bytes(body)
    assert (quick(data, tmp_path) / "x").read_bytes() == b"1" and len(shop.log) == 1


def test_a_wrong_checksum_keeps_nothing(shop, tmp_path):
    with pytest.raises(DataError, match=r"x.tar.gz has the md5 .*, not 0123"):
        quick(offered(shop, ("x.tar.gz", tar(("x", b"1")), "md5:0123")), tmp_path)
    assert not (tmp_path / "open").exists() and not (tmp_path / "open.downloads" / "x.tar.gz.part").exists()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a.tar.gz", tar(("../out", b"1"))),
        ("a.tar.gz", tar(link=("in", "../../etc"))),
        ("a.zip", zipped("../out")),
        ("a.zip", zipped("a/../../out")),
        ("a.zip", zipped("..\\out")),
        ("a.zip", zipped("link", 0o120777)),
    ],
)
def test_nothing_leaves_the_folder(shop, tmp_path, name, body):
    with pytest.raises(DataError, match="is not safe to unpack"):
        quick(offered(shop, (name, body, "")), tmp_path / "data")
    assert not list(tmp_path.rglob("out")) and not (tmp_path / "data" / "open").exists()


def test_damaged_archives_missing_files_and_odd_names(shop, tmp_path):
    with pytest.raises(DataError, match="a.tar.gz cannot be unpacked"):
        quick(offered(shop, ("a.tar.gz", tar(("x", NOISE))[:500_000], "")), tmp_path)
    data = offered(shop, ("b.tar.gz", b"", ""))
    shop.files.clear()
    with pytest.raises(MissingError, match="answers 404"):
        quick(data, tmp_path)
    data.downloads = lambda: [(shop.address, "../b", "")]
    with pytest.raises(DataError, match="no plain name"):
        quick(data, tmp_path)
    data.downloads = lambda: [("file:///etc/passwd", "b", "")]
    with pytest.raises(DataError, match="no http address"):
        quick(data, tmp_path)


@pytest.mark.parametrize("name", ["bracs", "tp53", "gleason2019", "aggc", "chimera"])
def test_what_cannot_be_fetched_says_where_to_go(name, tmp_path):
    done = bench("data", "fetch", name, "--data", tmp_path)
    assert done.code == 3 and "How to get it:" in done.err and "cannot be fetched" in done.err
    assert not list(tmp_path.glob(name + "*"))


@pytest.mark.parametrize("name", ["tils", "breakhis", "idc", "bach", "crc", "pcam"])
def test_what_is_open_has_an_address(name):
    from eosin.plugins import Catalogue

    for address, file, _ in Catalogue().datasets.get(name, "").downloads():
        assert address.startswith("http") and file in address


def test_arvaniti_asks_its_dataverse_for_the_list(shop, tmp_path):
    from eosin.plugins import Catalogue

    data = Catalogue().datasets.get("gleason-arvaniti", "")
    data.host = shop.address
    body = tar(("ZT76_39_A/ZT76_39_A_1_1.jpg", b"jpg"))
    listing = {
        "data": {
            "latestVersion": {"files": [{"dataFile": {"id": 7, "filename": "ZT76_39_A.tar.gz", "md5": md5(body)[4:]}}]}
        }
    }
    shop.files = {
        f"/api/datasets/:persistentId/?persistentId={data.doi}": json.dumps(listing).encode(),
        "/api/access/datafile/7": body,
    }
    assert (quick(data, tmp_path) / "ZT76_39_A" / "ZT76_39_A_1_1.jpg").read_bytes() == b"jpg"
    shop.files = {f"/api/datasets/:persistentId/?persistentId={data.doi}": b"{}"}
    with pytest.raises(MissingError, match="Download them by hand"):
        data.downloads()
