"""What reads input of strangers, sound input for each, and words that mean something in it."""

import atexit
import gzip
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from io import BytesIO, StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.check import Params
from tasks.core.backbones.efficientnet_lite import read_state_dict
from tasks.core.base import params
from tasks.core.base.arrays import load_arrays
from tasks.core.base.errors import DataError
from tasks.core.data import archives, discovery, image_io, labels_file
from tasks.core.inference.predictor import load_predictor
from tasks.core.release import registry
from tasks.core.release.evidence import Evidence
from tasks.core.validation import schema
from tasks.core.validation.image_quality import SAMPLE, measures
from tests.data.test_archives import SOUND as ARCHIVES
from tests.hub import packed
from tests.structure import ROOT


@dataclass(frozen=True)
class Target:
    """make: sound inputs. words: put into them. read: takes an input, and a folder of its own to use."""

    make: Callable[[], list[bytes]]
    words: list[bytes]
    read: Callable[[bytes, Path], object]

    @cached_property
    def sound(self) -> list[bytes]:
        return self.make()


def _images() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), np.uint8)
    found = []
    for kind, mode in (
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("GIF", "P"),
        ("BMP", "RGB"),
        ("TIFF", "RGB"),
        ("TIFF", "L"),
        ("WEBP", "RGBA"),
        ("PPM", "RGB"),
    ):
        buffer, exif = BytesIO(), Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels, "RGBA").convert("RGB").convert(mode).save(
            buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {})
        )
        found.append(buffer.getvalue())
    deep = BytesIO()
    Image.fromarray(np.arange(108, dtype=np.uint16).reshape(9, 12)).save(deep, "TIFF")
    return [*found, deep.getvalue()]


def _read_image(data: bytes, _: Path) -> None:
    """As training reads it, and as the scan does."""
    try:
        opened = image_io.open_image(data)
        mode = opened.mode
        rgb, _size = image_io.shrink(opened, SAMPLE)
        measures(rgb, mode)
    finally:
        image_io.pixels(data, Path("picture"), 16, "stretch")


def _read_labels(suffix: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        for name in ("cat/1.png", "dog/2.png", "dog/3.png"):
            (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "images" / name).touch()
        labels = folder / f"labels{suffix}"
        labels.write_bytes(data)
        discovery.discover(folder / "images", labels)
        labels_file.own_columns(labels)

    return read


LABELS = pd.DataFrame(
    {
        "path": ["cat/1.png", "dog/2.png", "dog/3.png"],
        "label": ["cat", "dog", "dog"],
        "group": ["a", None, "b"],
        "split": ["train", "test", None],
        "camera": ["x", "y", "y"],
    }
)


def _parquet() -> list[bytes]:
    found = []
    for table in (pa.Table.from_pandas(LABELS), pa.table({"path": LABELS["path"], "label": [0, 1, 1]})):
        buffer = BytesIO()
        pq.write_table(table, buffer)
        found.append(buffer.getvalue())
    return found


def _read_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def write_and_read(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return write_and_read


def _weights() -> list[bytes]:
    """torch's legacy format, of one tensor without one: what a pickle of ours can't say is in the words."""
    head = [pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return [b"".join([*head, pickle.dumps({}, 2), pickle.dumps([], 2)]), b"".join([*head, _TENSOR])]


_TENSOR = (
    b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storageq\x02"
    b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02NtQK\x00K\x02\x85K\x01\x85\x89ccollections\n"
    b"OrderedDict\n)RtRs." + pickle.dumps(["0"], 2) + struct.pack("<Qff", 2, 1.0, 2.0)
)


CONTRACT: dict[str, Any] = {"class_names": ["a", "b", "c"], "image_size": 4, "resize": "stretch"}


@cache
def _made() -> Path:
    """A folder of what TensorFlow must make, which is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder)
    subprocess.run(
        [sys.executable, "-m", "tests.fuzz.made", str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    return folder


def _onnx() -> list[bytes]:
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [None, 4, 4, 3])
    answer = onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [None, 3])
    axes = onnx.numpy_helper.from_array(np.array([1, 2]), "axes")
    nodes = [
        onnx.helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        onnx.helper.make_node("Softmax", ["mean"], ["probabilities"]),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [image], [answer], [axes])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.helper.set_model_props(model, {"classifier": json.dumps(CONTRACT)})
    return [bytes(model.SerializeToString())]


def _answer(artifact: Path) -> None:
    images = np.zeros((2, 4, 4, 3), np.float32)
    load_predictor(artifact).predict(images)


def _read_graph(data: bytes, folder: Path) -> None:
    """A SavedModel whose graph is another."""
    shutil.copytree(_made() / "saved_model", folder / "model")
    (folder / "model/saved_model.pb").write_bytes(data)
    _answer(folder / "model")


def _hub_answers() -> list[bytes]:
    archives = packed(_made() / "backbone"), gzip.decompress(packed(_made() / "backbone"))
    return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data) for data in archives]


def _read_hub_answer(data: bytes, folder: Path) -> None:
    """Fetches a model from a server that answers just so."""
    from tasks.core.backbones import download  # brings TensorFlow along

    os.environ |= {"TFHUB_CACHE_DIR": str(folder), "no_proxy": "127.0.0.1"}
    with socket.create_server(("127.0.0.1", 0)) as server, redirect_stdout(StringIO()):

        def serve() -> None:
            with suppress(OSError):  # it is over
                while True:
                    peer, _ = server.accept()
                    with suppress(OSError), peer:
                        peer.recv(1 << 16)
                        peer.sendall(data)

        Thread(target=serve, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/model"
        try:
            download.download(address, timeout=1, tries=2, pause=0.001)
        finally:
            server.shutdown(socket.SHUT_RDWR)  # or the thread would wait for ever


def _evidence() -> list[bytes]:
    metrics = dict.fromkeys(("accuracy", "macro_f1", "log_loss", "ece"), 0.9)
    evidence = Evidence("v1.0.0", "a" * 40, "passed", {}, {}, {}, {}, metrics)
    return [
        evidence.message("classifier@v1.0.0").encode(),
        b"by hand\n",
        json.dumps(asdict(evidence)).encode(),
    ]


def _read_message(data: bytes, _: Path) -> None:
    text = data.decode("utf-8", "replace")
    facts = registry.facts(text)
    assert isinstance(facts, dict)
    registry._is_rollback(text, "production")
    if found := Evidence.from_facts(facts, "a tag"):
        found.lines()


def _read_archive(kind: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        (folder / f"a.{kind}").write_bytes(data)
        archive = archives.Archive(str(folder / f"a.{kind}"), 0, 0)
        for name in archive.members:
            try:
                archive.read(name)
            except DataError as error:
                assert "\n" not in str(error)

    return read


def _arrays() -> list[bytes]:
    buffer = BytesIO()
    np.savez(buffer, values=np.ones((3, 4), np.float32), labels=np.arange(3))
    return [buffer.getvalue()]


YAML_WORDS = [
    b": ",
    b"- ",
    b"\n",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!python/object:os.system ",
    b"null",
    b".nan",
    b"1e999",
    b"{",
    b"[",
    b"\t",
    b"'",
]
TEXT_WORDS = [
    b",",
    b'"',
    b"\n",
    b"\r",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\0",
    "\u2028".encode(),
    "e\u0301".encode(),
    b"=1+1",
    b"../",
    b"train",
]
JSON_WORDS = [
    b"{",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"NaN",
    b"1e999",
    b'"',
    b"null",
    b"\\ud800",
    b'"format": 99',
    b"\n{",
]
PICKLE_WORDS = [
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"(",
    b"tR",
    b"Q",
    b"c",
    b".",
    b"\x8a\xff",
    b"X\xff\xff\xff\x7f",
]
IMAGE_WORDS = [
    b"IHDR",
    b"IDAT",
    b"Exif\0\0",
    b"\xff\xd8",
    b"\xff\xda",
    b"acTL",
    b"iCCP",
    b"II*\0",
    b"P6\n99999 99999\n255\n",
]
ARTIFACT_WORDS = [b"classifier", b"class_names", *JSON_WORDS[3:]]
HUB_WORDS = [
    b"\r\n",
    b"\r\nTransfer-Encoding: chunked\r\n",
    b"\r\nContent-Length: -1\r\n",
    b"HTTP/1.1 303 \r\nLocation: file:///etc/hosts\r\n\r\n",
    b"HTTP/1.1 500 \r\n\r\n",
    b"../",
    b"ustar",
    b"\x1f\x8b\x08",
    b"\xfd7zXZ\0",
]

TARGETS: dict[str, Target] = {
    "image": Target(_images, IMAGE_WORDS, _read_image),
    "labels": Target(lambda: [LABELS.to_csv(index=False).encode()], TEXT_WORDS, _read_labels(".csv")),
    "labels in Parquet": Target(_parquet, [b"PAR1", *TEXT_WORDS], _read_labels(".parquet")),
    "params.yaml": Target(
        lambda: [(ROOT / "params.yaml").read_bytes()],
        YAML_WORDS,
        _read_file("params.yaml", lambda file: params.read(file, Params)),
    ),
    "schema.yaml": Target(
        lambda: [b"classes: [cat, dog]\nformats: [PNG]\nwidth: {min: 1, max: 9}\ndrift: 0.2\n"],
        YAML_WORDS,
        _read_file("schema.yaml", schema.load),
    ),
    "weights": Target(
        _weights, PICKLE_WORDS, _read_file("weights.pth", lambda file: read_state_dict(file, "package"))
    ),
    "backbone's address": Target(_hub_answers, HUB_WORDS, _read_hub_answer),
    "ONNX": Target(_onnx, ARTIFACT_WORDS, _read_file("model.onnx", _answer)),
    "TFLite": Target(
        lambda: [(_made() / "model.tflite").read_bytes()], ARTIFACT_WORDS, _read_file("model.tflite", _answer)
    ),
    "HDF5": Target(
        lambda: [(_made() / "model.h5").read_bytes()], ARTIFACT_WORDS, _read_file("model.h5", _answer)
    ),
    "SavedModel": Target(
        lambda: [(_made() / "saved_model/saved_model.pb").read_bytes()], ARTIFACT_WORDS, _read_graph
    ),
    "tag": Target(_evidence, JSON_WORDS, _read_message),
    "tar": Target(lambda: [ARCHIVES["tar"]], [b"ustar", b"../", b"x" * 500], _read_archive("tar")),
    "zip": Target(lambda: [ARCHIVES["zip"]], [b"PK\x01\x02", b"PK\x05\x06", b"../"], _read_archive("zip")),
    "cached arrays": Target(
        _arrays, [b"\x93NUMPY", b"'descr': '|O'", b"PK\x01\x02"], _read_file("a.npz", load_arrays)
    ),
}
warnings.simplefilter("ignore")  # of Pillow and NumPy, about what is broken
