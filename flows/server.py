"""The Prefect server that a command reports to: one that is there, or else one for the time being.

A server starts in the time that importing Prefect takes, so it is started before that, and nothing here
imports Prefect. Prefect would start one too, later, and leave it running when its own process is killed.
"""

from __future__ import annotations

import atexit
import gc
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from tasks.core import process
from tasks.core.errors import DarkroomError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMANDS = ("flows.pipeline", "flows.monitor")
ALONE = "--no-server"
SETTINGS = Path("prefect.toml")
URL = "PREFECT_API_URL"
PATIENCE = 120  # seconds that a first start may take, which makes the database


@dataclass
class Temporary:
    """A server that ends with this process, however that ends, and what it has said."""

    url: str
    child: subprocess.Popen[bytes]
    said: IO[bytes]


temporary: Temporary | None = None


def begin() -> None:
    """Starts a server, if this process is a command that wants one and finds none."""
    words = sys.orig_argv
    if not any(words[place : place + 2] == ["-m", name] for place in range(3) for name in COMMANDS):
        return
    gc.disable()  # it looks in vain through what imports make, for a quarter of their time
    if {"-h", "--help"} & set(words):
        return
    if ALONE in words or not (is_up(url()) or is_wanted()):
        _start()


def url() -> str:
    """Where Prefect's clients in this folder look for a server, as Prefect itself reads its settings."""
    if URL in os.environ:
        return os.environ[URL]
    with suppress(FileNotFoundError):
        return str(tomllib.loads(SETTINGS.read_text("utf-8")).get("api", {}).get("url", ""))
    return ""


def is_wanted() -> bool:
    """Whether somebody has named the server: that of `make serve` is used where it is there."""
    return bool(os.environ.get(URL)) or not (url() == "" or urlsplit(url()).hostname == "127.0.0.1")


def is_up(address: str, patience: float = 5) -> bool:
    """Whether a Prefect server answers at `address`, an URL that ends in /api."""
    if not address:
        return False
    try:
        with urlopen(f"{address}/health", timeout=patience) as response:
            return bool(response.status == 200)
    except HTTPError as error:
        return error.code in (401, 403)  # there, and wants a key
    except (URLError, OSError, ValueError):
        return False


def ready() -> None:
    """Ends the time of imports, and waits until the server answers.

    Raises:
        DarkroomError: there is none where there should be one, or ours can't start.
    """
    gc.freeze()
    gc.enable()
    if temporary is None:
        if not is_up(url()):
            raise DarkroomError(
                f"no Prefect server answers at {url()}; start it (`make serve` starts one on this machine), "
                f"or run without: add {ALONE}"
            )
        return
    _wait(temporary)


def stop() -> None:
    """Ends the server that `begin` has started, if it has; nobody needs to see it go."""
    if temporary:
        temporary.child.terminate()


def _start() -> None:
    global temporary  # noqa: PLW0603
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as we do)
    child = launch(port, said, PREFECT__SERVER_EPHEMERAL="1", PREFECT_UI_ENABLED="0")
    temporary = Temporary(f"http://127.0.0.1:{port}/api", child, said)
    os.environ[URL] = temporary.url
    atexit.register(stop)  # and so run last of all, when Prefect has sent what there is to tell
    if key := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        os.environ.setdefault("PREFECT_API_AUTH_STRING", key)


def launch(port: int, output: Any, **settings: str) -> subprocess.Popen[bytes]:
    """Starts a server on loopback as Prefect does it, in a process that ends with this one."""
    home = str(Path(__file__).parents[1])
    words = ["-m", "uvicorn", "--app-dir", home, "--factory", "flows.server:app", "--host", "127.0.0.1"]
    return subprocess.Popen(
        [sys.executable, *words, "--port", str(port), "--log-level", "error", "--lifespan", "on"],
        env=os.environ | {"PREFECT__SERVER_FINAL": "1"} | settings,
        stdout=output,
        stderr=output,
        start_new_session=True,  # a ctrl-c is ours to pass on
        preexec_fn=process.die_with_parent,  # noqa: PLW1509 (one system call, found beforehand)
    )


def app() -> Any:
    """Prefect's server, as an ASGI application."""
    gc.disable()
    from prefect.server.api.server import create_app

    application = create_app()
    gc.freeze()
    gc.enable()
    return application


def _wait(server: Temporary) -> None:
    end = time.monotonic() + PATIENCE
    while not is_up(server.url):
        if server.child.poll() is not None or time.monotonic() > end:
            server.said.seek(0)
            lines = server.said.read().decode(errors="replace").strip().splitlines()
            raise DarkroomError(
                f"Prefect can't start ({lines[-1].strip() if lines else 'it says nothing'}); see that "
                "there is room in PREFECT_HOME, ~/.prefect if it isn't set, and that you may write there; "
                "`dvc repro` needs no Prefect"
            )
        time.sleep(0.05)
