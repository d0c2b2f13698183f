"""Data goes to an S3-compatible store and comes back, by credentials that stand in no file."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import asyncssh
import boto3
import pytest
from botocore.exceptions import NoCredentialsError
from dvc.exceptions import FileMissingError
from moto.server import ThreadedMotoServer

from tasks.core.base.errors import DataError, Unreachable
from tasks.core.base.files import remove
from tasks.core.release import dvc_api
from tasks.core.release.revision import Revision
from tests.project import FIRST_COMMIT

SECRET = "a-secret-of-the-test"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 server on loopback with a bucket, and its credentials in the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="bucket")
    yield address
    server.stop()


def dvc(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_s3_store(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["git", "init", "-q"], FIRST_COMMIT):
        subprocess.run(words, check=True)
    dvc("init")
    dvc("remote", "add", "--default", "store", "s3://bucket/darkroom")
    dvc("remote", "modify", "store", "endpointurl", store)
    Path("pictures").mkdir()
    Path("pictures/1.png").write_bytes(b"picture")
    dvc("add", "pictures")
    dvc("push")
    found = boto3.client("s3", endpoint_url=store).list_objects_v2(Bucket="bucket", Prefix="darkroom/")
    assert found["KeyCount"] == 2, "an image, and the list of the folder"
    for path in (Path("pictures"), Path(".dvc/cache")):
        remove(path)
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(FIRST_COMMIT, check=True)
    image = Path("pictures/1.png")
    assert Revision("HEAD", published=True).read(image) == b"picture", "as a promotion reads it"
    dvc("pull")
    assert image.read_bytes() == b"picture"
    remove(Path(".dvc/cache"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
    with pytest.raises(Unreachable, match=r"pictures/1\.png of HEAD can't be had"):
        Revision("HEAD").read(image)
    kept = [file for file in tmp_path.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
    assert not kept


class Misbehaving(BaseHTTPRequestHandler):
    """Answers every request with a status, or with 0 breaks the connection."""

    status = 404

    def do_GET(self) -> None:
        if self.status:
            self.send_error(self.status)
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        """Keeps the tests' output free of requests."""


@pytest.mark.parametrize(
    ("status", "error"), [(404, DataError), (403, Unreachable), (500, Unreachable), (0, Unreachable)]
)
def test_a_web_server_that_refuses_is_no_missing_file(
    status: int, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Misbehaving, "status", status)
    with ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for words in (["git", "init", "-q"], FIRST_COMMIT):
            subprocess.run(words, check=True)
        dvc("init")
        dvc("remote", "add", "--default", "store", f"http://127.0.0.1:{server.server_port}/store")
        Path("image.png").write_bytes(b"picture")
        dvc("add", "image.png")
        subprocess.run(["git", "add", "--all"], check=True)
        subprocess.run(FIRST_COMMIT, check=True)
        with pytest.raises(error, match=r"image\.png of HEAD") as raised:
            Revision("HEAD", published=True).read(Path("image.png"))
        assert type(raised.value) is error
        server.shutdown()


def test_a_fault_of_ours_is_no_remote_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an update of DVC: Prefect would try it again for minutes, and blame the network."""
    monkeypatch.chdir(tmp_path)
    for words in (["git", "init", "-q"], FIRST_COMMIT):
        subprocess.run(words, check=True)
    dvc("init")
    dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    (tmp_path / "store").mkdir()

    def faulty(*_: object, **__: object) -> None:
        raise TypeError("status() got an unexpected keyword argument")

    monkeypatch.setattr("dvc.repo.Repo.status", faulty)
    with pytest.raises(TypeError):
        dvc_api.unpushed()
    monkeypatch.setattr("dvc.fs.dvc._DVCFileSystem.exists", faulty)
    with pytest.raises(TypeError):
        Revision("HEAD").holds(Path("dvc.lock"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), True),
        (aiohttp.ClientConnectionError(), True),
        (asyncssh.misc.PermissionDenied("no"), True),
        (NoCredentialsError(), True),
        (FileMissingError("x"), True),
        (TypeError(), False),
        (KeyError("md5"), False),
    ],
)
def test_what_a_store_raises_is_told_from_a_fault_of_ours(error: Exception, expected: bool) -> None:
    assert dvc_api.is_of_a_store(error) == expected
