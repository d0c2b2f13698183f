"""A server on this machine that speaks TF Hub's protocol, and misbehaves as it is told."""

import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


class Hub(ThreadingHTTPServer):
    """Answers a model's address by sending on to its archive, as TF Hub does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.archives: dict[str, bytes] = {}
        self.mishaps: list[Answer] = []  # each takes the place of one archive, in order
        self.asked: list[str] = []
        self.over = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """Says nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path, _, query = self.path.partition("?")
        if path.removeprefix("/archive") not in self.server.archives:
            self.send_error(404)
        elif query == "tf-hub-format=compressed":
            self.send_response(303)
            self.send_header("Location", f"/archive{path}")
            self.end_headers()
        elif self.server.mishaps:
            self.server.mishaps.pop(0)(self)
        else:
            send(self, self.server.archives[path.removeprefix("/archive")])

    def log_message(self, *_: Any) -> None:
        """Keeps the tests' output free of requests."""


def send(handler: BaseHTTPRequestHandler, data: bytes, length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    handler.end_headers()
    handler.wfile.write(data)


def fails(code: int) -> Answer:
    return lambda handler: handler.send_error(code)


def ends_early(handler: Any) -> None:
    """Promises the whole archive, and hangs up in the middle."""
    data = handler.server.archives[handler.path.removeprefix("/archive")]
    send(handler, data[: len(data) // 2], len(data))


def stalls(handler: Any) -> None:
    """Promises an archive, and sends nothing until the test is over."""
    send(handler, b"", 1000)
    handler.server.over.wait(20)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        stop(hub)
        thread.join()


def stop(hub: Hub) -> None:
    """Ends the server; what is asked of it from now on finds nobody."""
    hub.over.set()
    hub.shutdown()
    hub.server_close()


def packed(folder: Path) -> bytes:
    """A folder as the .tar.gz that TF Hub gives."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.add(folder, arcname=".")
    return file.getvalue()


def packed_member(name: str, *, link: str | None = None, data: bytes = b"out") -> bytes:
    """A .tar.gz of one member: a file, or a symbolic link."""
    member = tarfile.TarInfo(name)
    if link:
        member.type, member.linkname, data = tarfile.SYMTYPE, link, b""
    member.size = len(data)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()
