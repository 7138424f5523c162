"""`bench data manifest`: lists of the GDC in every form, what is kept of them, the draw, and the questions asked."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from eosin import gdc
from eosin.errors import DataError, MissingError, UsageError
from helpers import bench

HEAD = "id\tfilename\tmd5\tsize\tstate\n"


def slide(patient: str, part: str = "01Z-00-DX1", project: str = "TCGA-BRCA", suffix: str = ".svs") -> dict:
    """A file as the files endpoint lists it."""
    name = f"{patient}-{part}"
    mark = hashlib.md5(name.encode()).hexdigest()
    return {
        "id": mark,
        "file_id": mark,
        "file_name": f"{name}.{mark.upper()}{suffix}",
        "md5sum": mark[::-1],
        "file_size": 10**9,
        "state": "released",
        "cases": [{"project": {"project_id": project}}],
    }


def barcode(i: int) -> str:
    return f"TCGA-A{i % 10}-{i:04d}"


def rows() -> list[dict]:
    """Ten patients with one slide, two with two, and everything that is not to be drawn."""
    good = [slide(barcode(i)) for i in range(12)] + [slide(barcode(i), "01Z-00-DX2") for i in (3, 7)]
    bad = [
        slide(barcode(20), "01A-01-TS1"),
        slide(barcode(21), "11A-00-DX1"),
        slide(barcode(22), project="TCGA-PRAD"),
        slide(barcode(23), suffix=".xml"),
        good[0],
    ]
    return good + bad


def as_manifest(files: list[dict]) -> str:
    keys = ("file_id", "file_name", "md5sum", "file_size", "state")
    return HEAD + "".join("\t".join(str(f[k]) for k in keys) + "\n" for f in files)


def as_tsv(files: list[dict]) -> str:
    keys = ("cases.0.project.project_id", "file_id", "file_name", "file_size", "id", "md5sum", "state")
    flat = [{**f, keys[0]: f["cases"][0]["project"]["project_id"]} for f in files]
    return "\t".join(keys) + "\n" + "".join("\t".join(str(f[k]) for k in keys) + "\n" for f in flat)


def as_answer(files: list[dict]) -> str:
    return json.dumps({"data": {"hits": files, "pagination": {"total": len(files)}}, "warnings": {}})


@pytest.mark.parametrize("form", [as_answer, json.dumps, as_tsv, as_manifest])
def test_every_form_of_list_is_read(tmp_path, form):
    path = tmp_path / "files"
    path.write_text(form(rows()))
    found = gdc.listed(path)
    assert [s.filename for s in found] == [r["file_name"] for r in rows()]
    assert {s.size for s in found} == {10**9} and found[0].md5 == rows()[0]["md5sum"]
    assert found[0].project == ("" if form is as_manifest else "TCGA-BRCA")


def kept(*left_out: str, frozen: bool = False) -> tuple[list[gdc.Slide], dict[str, int]]:
    return gdc.sieve([gdc._slide(r, "test") for r in rows()], ["TCGA-BRCA"], set(left_out), frozen)


def test_diagnostic_slides_of_the_project_are_kept_once():
    slides, reasons = kept(barcode(3))
    assert len(slides) == 12 and barcode(3) not in {s.patient for s in slides}
    assert reasons == {
        "of a patient left out": 2,
        "frozen section": 1,
        "not of a primary tumour": 1,
        "of another project": 1,
        "no slide of TCGA": 1,
        "listed twice": 1,
    }
    assert len(kept(frozen=True)[0]) == 15


def test_every_patient_gives_one_slide_before_any_gives_a_second():
    slides, _ = kept(frozen=True)
    first = gdc.draw(slides, 13, 0)
    assert len({s.patient for s in first}) == 13 and not any("DX2" in s.filename for s in first)
    assert sum("DX2" in s.filename for s in gdc.draw(slides, 14, 0)) == 1
    assert gdc.draw(slides, 0, 0) == gdc.draw(slides, 99, 0) == sorted(slides, key=lambda s: s.filename)


def test_the_draw_depends_on_the_seed_and_on_nothing_else():
    slides, _ = kept()
    five = gdc.draw(slides, 5, 0)
    assert gdc.draw(slides[::-1], 5, 0) == five
    assert set(five) < set(gdc.draw(slides, 8, 0)), "a larger draw holds the smaller"
    assert len({tuple(s.id for s in gdc.draw(slides, 5, seed)) for seed in range(10)}) > 5
    absent = [s for s in slides if s not in five][0].patient
    assert gdc.draw([s for s in slides if s.patient != absent], 5, 0) == five, "who is not drawn changes nothing"


def test_projects_have_the_names_of_tcga():
    assert gdc.projects("tcga-brca") == ["TCGA-BRCA"]
    sixteen = gdc.projects("TCGA-16")
    assert len(set(sixteen)) == 16 and {"TCGA-BRCA", "TCGA-PRAD"} < set(sixteen)
    with pytest.raises(UsageError, match="breast is no project"):
        gdc.projects("breast")


def test_patients_are_found_in_any_text():
    text = ["slide_id,TP53", "tcga-3c-aali-01Z-00-DX1.F6E9,1", "TCGA-AR-A1AQ-01,0  # TCGA-AR-A1ARX is no barcode"]
    assert gdc.patients(text, "x") == {"TCGA-3C-AALI", "TCGA-AR-A1AQ"}
    with pytest.raises(UsageError, match="--exclude x names no patient"):
        gdc.patients(["nobody"], "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\tbytes\na\t1\n", "has no id or filename or md5 or size"),
        (HEAD + "i\tTCGA.svs\tm\tmany\treleased\n", "TCGA.svs has no size in bytes"),
        ('{"data": []}', "JSON without data.hits"),
        ("[1]", "lists 1, which is no file"),
        ("{", "JSON without"),
        (json.dumps([{"file_name": "a.svs", "file_id": "i", "file_size": 3}]), "a.svs has no md5"),
    ],
)
def test_lists_that_cannot_be_used_are_named(tmp_path, text, message):
    path = tmp_path / "list"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        gdc.listed(path)
    with pytest.raises(UsageError, match="cannot be read"):
        gdc.listed(tmp_path / "absent")


def test_the_command_writes_a_manifest_and_says_what_it_left_out(tmp_path):
    (tmp_path / "files.tsv").write_text(as_tsv(rows()))
    (tmp_path / "tested.txt").write_text(f"{barcode(1)}-01Z-00-DX1\n{barcode(2)}\n")
    out = tmp_path / "brca.txt"
    asked = ("data", "manifest", "tcga-brca", "--files", tmp_path / "files.tsv", "--exclude", tmp_path / "tested.txt")
    done = bench(*asked, "--slides", 6, "--out", out)
    assert done.code == 0 and "6 slides of 6 patients, 6.0 GB, of 12 that may be drawn" in done.out
    assert "2 of a patient left out" in done.out and f"gdc-client download -m {out}" in done.out
    lines = out.read_text().splitlines()
    assert lines[0] == HEAD.strip() and len(lines) == 7 and all(len(line.split("\t")) == 5 for line in lines)
    assert not any(barcode(1) in line or barcode(2) in line for line in lines)
    assert [s.filename for s in gdc.listed(out)] == [line.split("\t")[1] for line in lines[1:]], "it reads its own"
    assert bench(*asked, "--slides", 6, "--out", out, "--json").json["slides"] == 6
    more = bench(*asked, "--slides", 1000, "--out", out)
    assert more.code == 0 and "fewer than the 1000 asked for" in more.out


def test_the_command_with_a_bare_manifest_or_with_nothing_left(tmp_path):
    (tmp_path / "files.txt").write_text(as_manifest(rows()))
    done = bench("data", "manifest", "tcga-brca", "--files", tmp_path / "files.txt", "--out", tmp_path / "m.txt")
    assert "names no projects: all of it was taken for tcga-brca" in done.out
    (tmp_path / "files.json").write_text(json.dumps(rows()))
    done = bench("data", "manifest", "tcga-ov", "--files", tmp_path / "files.json", "--out", tmp_path / "o.txt")
    assert done.code == 2 and "None of 19 files may be drawn" in done.err and "of another project" in done.err
    assert not (tmp_path / "o.txt").exists()


def test_a_dataset_names_its_patients(tmp_path):
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "a.png")
    (folder / "tiles.csv").write_text(f"path,label,group\na.png,yes,{barcode(4)}\n")
    (tmp_path / "registry.yaml").write_text("datasets:\n  mine: {kind: manifest, mpp: 0.5}\n")
    (tmp_path / "files.json").write_text(as_answer(rows()))
    asked = ("data", "manifest", "tcga-brca", "--files", tmp_path / "files.json", "--out", tmp_path / "m.txt")
    own = ("--data", tmp_path / "data", "--registry", tmp_path / "registry.yaml")
    done = bench(*asked, "--exclude", "mine", *own, "--json")
    assert done.json["left_out"]["of a patient left out"] == 1 and barcode(4) not in (tmp_path / "m.txt").read_text()
    done = bench(*asked, "--exclude", "tp53", *own)
    assert done.code == 3 and "--exclude FILE" in done.err
    assert bench(*asked, "--exclude", "nothing", *own).code == 2


class Endpoint(BaseHTTPRequestHandler):
    """The files endpoint: pages of `rows()`, and a log of the questions."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.log.append((self.path, asked))
        hits = rows()[asked["from"] : asked["from"] + asked["size"]]
        body = json.dumps({"data": {"hits": hits, "pagination": {"total": len(rows())}}}).encode()
        if self.server.broken:
            body = b"<html>maintenance</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def endpoint(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.log, server.broken = [], False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(gdc, "HOST", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def test_the_endpoint_is_asked_page_by_page(endpoint, monkeypatch):
    monkeypatch.setattr(gdc, "PAGE", 8)
    assert [s.id for s in gdc.fetched(["TCGA-BRCA"], frozen=False)] == [r["file_id"] for r in rows()]
    assert [asked["from"] for _, asked in endpoint.log] == [0, 8, 16]
    path, asked = endpoint.log[0]
    assert path == "/files" and asked["fields"] == gdc.FIELDS and asked["size"] == 8
    terms = {c["content"]["field"]: c["content"]["value"] for c in asked["filters"]["content"]}
    assert terms == {
        "cases.project.project_id": ["TCGA-BRCA"],
        "data_type": ["Slide Image"],
        "experimental_strategy": ["Diagnostic Slide"],
        "access": ["open"],
    }


def test_the_command_asks_where_no_list_is_given(endpoint, tmp_path):
    done = bench("data", "manifest", "tcga-16", "--slides", 3, "--frozen", "--out", tmp_path / "m.txt", "--json")
    assert done.json["slides"] == 3 and len((tmp_path / "m.txt").read_text().splitlines()) == 4
    terms = {c["content"]["field"]: c["content"]["value"] for c in endpoint.log[0][1]["filters"]["content"]}
    assert len(terms["cases.project.project_id"]) == 16 and "Tissue Slide" in terms["experimental_strategy"]


def test_an_endpoint_that_does_not_answer_leads_to_the_portal(endpoint, monkeypatch):
    endpoint.broken = True
    with pytest.raises(MissingError, match=r"gives no list of files .*--files FILE"):
        gdc.fetched(["TCGA-BRCA"], False)
    monkeypatch.setattr(gdc, "HOST", "http://127.0.0.1:1")
    with pytest.raises(MissingError, match="make a manifest on portal.gdc.cancer.gov"):
        gdc.fetched(["TCGA-BRCA"], False)
