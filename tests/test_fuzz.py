"""Damaged and malicious files of every kind that is read: an error of ours, and never code run, a hang or memory gone.

Plugins are code that the user chose; everything else is data (docs/security.md). Bytes of valid files are changed at
random (Hypothesis keeps what failed); what was once found stands in CASES. `--slow` looks longer.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eosin import claims, coordinates, gdc, index, manifest, record, store
from eosin.cards import BenchmarkCard, DatasetCard, ModelCard, RecipeCard, SuiteCard
from eosin.dataset import Dataset
from eosin.errors import CardError, EosinError
from eosin.pixels import mask_file
from eosin.precomputed import read_arrays
from eosin.registry import read_card, read_registry
from eosin.score import from_file
from eosin.slides import Slide
from eosin.table import Table
from eosin.tiles import Reader
from eosin.tiling import Tiling, cut
from helpers import tile
from slide_files import pyramid, tissue

# what Pillow remarks on damaged tags is not ours
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

ROOM = 768 * 2**20  # bytes that reading a file of a few kB may take, threads' stacks included
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
)
watching = False


def _watch(event: str, args: tuple) -> None:
    if watching and event in FORBIDDEN:
        raise AssertionError(f"a file made us call {event} {args}")


sys.addaudithook(_watch)  # for good, hence the switch


@contextlib.contextmanager
def guarded():
    """Nothing is executed, and memory is bounded: what would take more is a MemoryError, which is none of ours."""
    global watching
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, hard))
    watching = True
    try:
        yield
    finally:
        watching = False
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# ---- valid files, and what reads them


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def picture(kind: str, **options) -> bytes:
    return written(lambda b: Image.fromarray(tile(1, 0, 24)).save(b, kind, **options))


def arrays_h5(buffer: io.BytesIO) -> None:
    with h5py.File(buffer, "w") as file:
        file["X"], file["y"], file["id"] = (
            np.eye(8, 4, dtype=np.float32),
            np.arange(8) % 2,
            [b"a%d" % i for i in range(8)],
        )
        file.create_dataset("group", data=np.arange(8), chunks=(4,), compression="gzip")


def pixels_h5(buffer: io.BytesIO) -> None:
    with h5py.File(buffer, "w") as file:
        file.create_dataset("X", data=np.zeros((3, 16, 16, 3), np.uint8), chunks=(1, 16, 16, 3), compression="gzip")


def arrays_npz(buffer: io.BytesIO) -> None:
    np.savez(buffer, X=np.eye(8, 4, dtype=np.float32), y=np.arange(8) % 2, id=np.arange(8).astype(str))


def positions(buffer: io.BytesIO) -> None:
    with h5py.File(buffer, "w") as file:
        coords = file.create_dataset("coords", data=np.arange(12).reshape(6, 2))
        coords.attrs.update({"patch_size": 256, "patch_size_level0": 512, "name": "s"})
        file.attrs.update({"encoding-type": coordinates.TYPE, "about": '{"step": 512}', "mpp": 0.5, "fingerprint": "x"})


def weights(buffer: io.BytesIO) -> None:
    import torch

    torch.save({"layer.weight": torch.ones(3, 2), "layer.bias": torch.zeros(3)}, buffer)


def safetensors() -> bytes:
    import torch
    from safetensors.torch import save

    return save({"layer.weight": torch.ones(3, 2), "layer.bias": torch.zeros(3)})


def slide_file(folder: Path) -> bytes:
    return pyramid(folder / "seed.tiff", tissue(96, 64, (16, 16, 48, 32))).read_bytes()


def kept_index(folder: Path) -> bytes:
    (folder / "own").mkdir()
    (folder / "own" / "a.png").write_bytes(b"a")

    class Own(Dataset):
        def items(self, root: Path) -> Table:
            return Table({"id": ["a", "b"], "source": ["a.png", "a.png"], "label": [0, 1]}, ("x", "y"))

    found = index.open_index(Own("own"), folder, folder)
    return found.path.with_name(index.KEPT).read_bytes()


def part_file(folder: Path) -> bytes:
    address = store.Address(folder / "m@1" / "d@1", 8, {"model": {"name": "m"}})
    store.write_part(address, 0, np.arange(8).astype(str), {"cls": np.ones((8, 3), np.float32)})
    return address.part(0).read_bytes()


RECORD = {k: {"name": k, "mean": 0.5} for k in ("model", "benchmark", "protocol", "dataset", "scores")} | {
    "encoding-type": record.ENCODING, "encoding-version": record.VERSION, "details": {"a": [1, 2]}, "predictions": None,
}  # fmt: skip
CARD = b"name: m\nkind: timm\narch: test_vit\ndim: 64\nmean: [0.5, 0.5, 0.5]\noptions: {a: [1, 2], b: {c: 1.5}}\nseen: [tcga]\n"
REGISTRY = (
    b"models:\n  m: {kind: timm, arch: test_vit, size: 224}\ndatasets:\n  d: {kind: manifest, classes: [a, b]}\n"
    b"benchmarks:\n  b: {dataset: d, protocol: g2l-knn@1, metric: accuracy}\nsuites:\n  s: [b]\npublished: p.csv\n"
)
CSV = b"path,label,split,group,fold,mpp,x,y,w,h,target_g\nt/a.png,a,train,p1,0,0.5,0,0,8,8,1.5\nt/b.png,b,test,p2,1,0.25,8,8,8,8,2.5\n"


def read_tile(path: Path) -> None:
    Reader(path.parent, Table({"id": np.array([path.name]), "source": np.array([path.name])})).read(0)


def read_row(path: Path) -> None:
    columns = {"id": ["a"], "source": [path.name], "key": ["X"], "row": [1]}
    Reader(path.parent, Table({k: np.array(v) for k, v in columns.items()})).read(0)


def read_manifest(path: Path) -> None:
    manifest.Manifest(DatasetCard("d", table=path.name)).items(path.parent)


def read_slide(path: Path) -> None:
    slide = Slide(path, mpp=0.5)
    cut(slide, Tiling(size=16))
    slide.read(0, 0, 16, 16, 16)


def read_weights(path: Path) -> None:
    from eosin_models.states import read

    read(path, "m")


def read_part(path: Path) -> None:
    target = store.Address(path.parent / "m@1" / "f@1", 8, {}).part(0)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, target)
    address = store.stored(target.parent)
    store.read(address or store.Address(target.parent, 8, {}), [])


def read_record(path: Path) -> None:
    for skim in (False, True):
        with contextlib.suppress(ValueError):  # as it says of itself
            record.read(path, skim)


# kind -> (the file's name, a valid file or a maker of one in a folder, what reads it)
KINDS: dict[str, tuple[str, bytes | Callable[[Path], bytes], Callable[[Path], object]]] = {
    "card": ("card.yaml", CARD, read_card),
    "registry": ("registry.yaml", REGISTRY, read_registry),
    "table": ("tiles.csv", CSV, read_manifest),
    "record": ("r.json", json.dumps(RECORD, indent=1).encode(), read_record),
    "hashes": ("hashes.json", b'{"/a": [1, 2, "ff"]}', lambda p: store.Memory(p).hash(Path(__file__))),
    "claim": ("part-000000.claim", b"elsewhere-4026531836~12~345", lambda p: claims.Claims(p.parent).take(0)),
    "index": (index.KEPT, kept_index, index._load),
    "part": ("part.h5", part_file, read_part),
    "embeddings npz": ("e.npz", written(arrays_npz), from_file),
    "embeddings h5": ("e.h5", written(arrays_h5), from_file),
    "embeddings csv": ("e.csv", b"id,y,fold,target_0,0,1\na,0,0,1.5,1,2\nb,1,1,2.5,3,4\n", read_arrays),
    "positions": ("s.h5", written(positions), coordinates.read),
    "safetensors": ("w.safetensors", lambda _: safetensors(), read_weights),
    "torch": ("w.pth", lambda _: written(weights), read_weights),
    "png": ("t.png", picture("PNG"), read_tile),
    "palette": ("p.png", written(lambda b: Image.fromarray(tile(1, 0)).quantize(8).save(b, "PNG")), read_tile),
    "jpeg": ("t.jpg", picture("JPEG"), read_tile),
    "tiff": ("t.tif", picture("TIFF"), read_tile),
    "tiff lzw": ("l.tif", picture("TIFF", compression="tiff_lzw"), read_tile),
    "webp": ("t.webp", picture("WEBP"), read_tile),
    "pixels h5": ("x.h5", written(pixels_h5), read_row),
    "mask": ("m.png", written(lambda b: Image.fromarray(tile(1, 0)[..., 0] % 3).save(b, "PNG")), lambda p: mask_file(p)),
    "mask npy": ("m.npy", written(lambda b: np.save(b, np.eye(8, dtype=np.int64))), lambda p: mask_file(p)),
    "slide": ("s.tiff", slide_file, read_slide),
    "gdc": ("files.json", b'{"data": {"hits": [{"file_name": "TCGA-AA-1.svs", "id": "x", "md5sum": "0", "state": "released", "file_size": 3}]}}', gdc.listed),
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def loaded():
    """Libraries take their memory before it is counted."""
    import safetensors.torch  # noqa: F401
    import torch  # noqa: F401

    import eosin_models.states  # noqa: F401


@pytest.fixture(scope="session")
def seeds(tmp_path_factory) -> dict[str, bytes]:
    """A valid file of each kind."""
    folder = tmp_path_factory.mktemp("seeds")
    return {kind: seed if isinstance(seed, bytes) else seed(folder) for kind, (_, seed, _) in KINDS.items()}


def meet(kind: str, content: bytes, folder: Path) -> str:
    """Read a file as the harness would; what it said, "" when it took the file."""
    name, _, reads = KINDS[kind]
    path = folder / name
    path.write_bytes(content)
    try:
        with guarded():
            reads(path)
    except EosinError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_valid_file_is_read(kind, seeds, tmp_path):
    assert meet(kind, seeds[kind], tmp_path) == ""


# ---- bytes changed at random

SPOTS = st.integers(0, 2**16)
NUMBERS = st.sampled_from([0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1])
EDITS = st.one_of(
    st.tuples(st.just("flip"), SPOTS, st.integers(1, 255)),
    st.tuples(st.just("number"), SPOTS, NUMBERS, st.sampled_from(["<H", ">H", "<I", ">I", "<Q", ">Q"])),
    st.tuples(st.just("cut"), SPOTS),
    st.tuples(st.just("drop"), SPOTS, st.integers(1, 16)),
    st.tuples(st.just("insert"), SPOTS, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("again"), SPOTS, st.integers(1, 64)),
)


def edited(content: bytes, edits: list[tuple]) -> bytes:
    out = bytearray(content)
    for what, at, *rest in edits:
        at %= len(out) + 1
        if what == "flip" and at < len(out):
            out[at] ^= rest[0]
        elif what == "number":
            packed = struct.pack(rest[1], rest[0] % 2 ** (8 * struct.calcsize(rest[1])))
            out[at : at + len(packed)] = packed
        elif what == "cut":
            del out[at:]
        elif what == "drop":
            del out[at : at + rest[0]]
        elif what == "insert":
            out[at:at] = rest[0]
        elif what == "again":
            out[at:at] = out[at : at + rest[0]]
    return bytes(out)


def quietly(examples: int, random: bool = False):
    return settings(
        max_examples=examples,
        deadline=5000,  # ms: nothing hangs
        derandomize=not random,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def fuzz(kind: str, seed: bytes, folder: Path, examples: int, random: bool) -> None:
    @quietly(examples, random)
    @given(st.lists(EDITS, min_size=1, max_size=6))
    def look(edits):
        meet(kind, edited(seed, edits), folder)

    look()


@pytest.mark.parametrize("kind", KINDS)
def test_changed_bytes(kind, seeds, tmp_path):
    fuzz(kind, seeds[kind], tmp_path, 25, random=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_changed_bytes(kind, seeds, tmp_path):
    fuzz(kind, seeds[kind], tmp_path, 150, random=True)


# ---- files that are well formed and say something odd

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("card", [ModelCard, DatasetCard, BenchmarkCard, RecipeCard, SuiteCard])
def test_a_card_of_anything_is_a_card_or_a_card_error(card):
    @quietly(100)
    @given(st.dictionaries(st.sampled_from(card.known_keys()), JSON, max_size=4), st.text(max_size=8))
    def look(row, name):
        with contextlib.suppress(CardError):
            assert card.from_row(name, {k: v for k, v in row.items() if k != "name"}).fingerprint

    look()


@quietly(100)
@given(st.dictionaries(st.sampled_from([*RECORD, "environment", "embed"]), JSON, max_size=4))
def test_a_record_of_anything(tmp_path, odd):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**RECORD, **odd}))
    read_record(path)


@quietly(60)
@given(st.dictionaries(st.sampled_from(["X", "y", "id", "fold", "split", "target", "group", "classes", "X2", "mask", "image"]),
                       st.tuples(st.lists(st.integers(0, 3), max_size=3), st.sampled_from(["f8", "f2", "i8", "u1", "?", "U3", "S3", "c16"])), min_size=1))  # fmt: skip
def test_arrays_of_any_shape_and_type(tmp_path, arrays):
    made = {k: np.zeros(shape, kind) for k, (shape, kind) in arrays.items()}
    np.savez(tmp_path / "e.npz", **made)
    with contextlib.suppress(EosinError):
        from_file(tmp_path / "e.npz")


# ---- what was found, or would be tried


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def zipped(name: str, content: bytes, **kw) -> bytes:
    def write(buffer):
        with zipfile.ZipFile(buffer, "w", **kw) as archive:
            archive.writestr(name, content)

    return written(write)


def bomb_png() -> bytes:
    """16,000 x 16,000 pixels in 250 kB: below the limit of pixels, above what a tile may take."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


def huge_h5(buffer: io.BytesIO, key: str = "X") -> None:
    """A dataset that claims 8 TB and holds nothing."""
    with h5py.File(buffer, "w") as file:
        file.create_dataset(key, shape=(10**6, 10**6), dtype="f8", chunks=(1000, 1000))
        file["y"] = np.zeros(4)


def linked_h5(buffer: io.BytesIO) -> None:
    """A dataset whose bytes are another file's."""
    with h5py.File(buffer, "w") as file:
        file.create_dataset("X", (4, 4), "u1", external=[("/etc/passwd", 0, 16)])
        file["y"] = np.arange(4) % 2


def endless_h5(buffer: io.BytesIO) -> None:
    """A heap of text whose next object is where the last one was: HDF5 1.14 reads it for ever."""
    arrays_h5(buffer)
    content = buffer.getvalue()
    heap = content.index(b"GCOL")
    buffer.seek(heap + 16)
    buffer.write(bytes(16))  # free space of no bytes


def looped_h5(buffer: io.BytesIO) -> None:
    with h5py.File(buffer, "w") as file:
        file["X"] = h5py.SoftLink("/X")
        file["y"] = h5py.ExternalLink("/proc/self/mem", "/")


PICKLE = b"cos\nsystem\n(S'touch OWNED'\ntR."


def signed(body: bytes) -> bytes:
    """A part that has its digest, whatever it is."""
    return store._head(hashlib.blake2b(body, digest_size=16).hexdigest()) + body


def endless_part() -> bytes:
    """A part whose description lies in a heap that HDF5 reads for ever."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=store.HEAD) as file:
        file["id"] = np.array([b"a"])
        file.attrs["rows"], file.attrs["about"] = 1, "{}" * 40
    content = bytearray(buffer.getvalue())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 32] = bytes(16)
    return signed(bytes(content[store.HEAD :]))


def boastful_part() -> bytes:
    """A part of some kilobytes whose ids claim to be 10 GB."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=store.HEAD) as file:
        file.create_dataset("id", shape=(10**8,), dtype="S100", chunks=(1000,))
        file["cls"] = np.zeros((3, 2), np.float32)
        file.attrs["rows"], file.attrs["about"] = 3, "{}"
    return signed(buffer.getvalue()[store.HEAD :])


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{} loop\n"


def empty_h5(buffer: io.BytesIO) -> None:
    with h5py.File(buffer, "w", userblock_size=store.HEAD) as file:
        file["id"] = np.arange(3)


def wide_tiles() -> bytes:
    """A slide whose tiles are said to be 167,772,192 pixels wide."""
    content = pyramid(Path(tempfile.mkdtemp()) / "w.tiff", tissue(96, 64, (16, 16, 48, 32))).read_bytes()
    width = next(i for kind in (3, 4) if (i := content.find(struct.pack("<HHI", 322, kind, 1))) >= 0)
    return content[:width] + struct.pack("<HHII", 322, 4, 1, 167_772_192) + content[width + 12 :]


CASES = {
    "a slide of tiles of 21 GB": ("slide", wide_tiles()),
    "a part with its digest and nothing in it": ("part", signed(b"x" * 600)),
    "a part with its digest and half of the file": ("part", signed(written(arrays_h5)[:900])),
    "a part with its digest and other things in it": ("part", signed(written(empty_h5)[store.HEAD :])),
    "a part whose text is read for ever": ("part", endless_part()),
    "a part of ids of 10 GB": ("part", boastful_part()),
    "a program in PostScript": ("png", POSTSCRIPT),
    "yaml calls python": ("card", b"!!python/object/apply:os.system ['touch OWNED']"),
    "yaml of a billion laughs": ("card", b"a: &a [x,x,x,x,x,x,x,x]\n" + b"".join(b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (i + 1, i + 1, *[i] * 8) for i in range(97, 112))),
    "yaml nested without end": ("card", b"[" * 100_000),
    "yaml that holds itself": ("card", b"options: &a {b: *a}\nkind: timm\n"),
    "json nested without end": ("record", b"[" * 1_000_000),
    "json of a number without end": ("record", b'{"encoding-type": ' + b"9" * 10_000 + b"}"),
    "csv of one cell without end": ("table", b'path,label\n"' + b"x" * 2_000_000),
    "csv of zeros": ("table", bytes(100_000)),
    "npz of pickles": ("embeddings npz", zipped("X.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", PICKLE))),
    "npz of 8 TB": ("embeddings npz", zipped("X.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"))),
    "npz that inflates": ("embeddings npz", zipped("X.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (900000000, 1), }", bytes(900_000_000)), compression=zipfile.ZIP_DEFLATED)),
    "npy whose head is code": ("mask npy", npy("__import__('os').system('touch OWNED')")),
    "npy of 8 TB": ("mask npy", npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000, 1000000), }")),
    "h5 of 8 TB": ("embeddings h5", written(huge_h5)),
    "h5 positions of 8 TB": ("positions", written(lambda b: huge_h5(b, "coords"))),
    "h5 that reads another file": ("embeddings h5", written(linked_h5)),
    "h5 that is read for ever": ("embeddings h5", written(endless_h5)),
    "h5 that links to itself": ("embeddings h5", written(looped_h5)),
    "a picture of 60,000 pixels a side": ("png", bomb_png()),
    "weights that are a pickle": ("torch", PICKLE),
    "weights that inflate": ("torch", zipped("archive/data.pkl", bytes(50_000_000), compression=zipfile.ZIP_DEFLATED)),
    "safetensors with a head of 2 EB": ("safetensors", struct.pack("<Q", 2**61) + b"{}"),
    "safetensors that overlap": ("safetensors", (lambda head: struct.pack("<Q", len(head)) + head + bytes(8))(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,8]}}')),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_would_be_tried(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, content = CASES[case]
    said = meet(kind, content, tmp_path)
    assert said or kind == "record", "it was taken"
    assert not (tmp_path / "OWNED").exists()
