"""The Prefect server that a command reports to: one that is there, or else an ephemeral one.

Nothing here imports Prefect, which would start one too, later, and leave it running when its own process is
killed.
"""

import atexit
import gc
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from http.client import HTTPException
from io import StringIO
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from flows.children import start
from tasks.core.base import console
from tasks.core.base.errors import DarkroomError, brief

ALONE = "--no-server"
SETTINGS, DOTENV = Path("prefect.toml"), Path(".env")
URL = "PREFECT_API_URL"
# In names of settings that aren't told.
SECRET = re.compile("KEY|AUTH|PASSWORD|SECRET|TOKEN|URL|HEADERS|ARGS")
ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
REFUSED = f"This server is for pages of its own; {ORIGINS} lets in others.\n".encode()
LOOPBACK = ("127.0.0.1", "localhost")
# Nothing of the UI comes from elsewhere or goes there: logos of blocks, V2's analytics, scripts of /docs.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob: " + " ".join(
    f"{scheme}://{host}:*" for scheme in ("http", "ws") for host in LOOPBACK
)
PATIENCE = 120  # seconds that a first start may take, which makes the database
TRIES = 3  # to reach a server that was there: 14 seconds
ANSWER = 5  # seconds that a server has to say that it is there
HEALTHY = b"true"  # what it says; a web app in development answers any path, by its page


@dataclass
class Temporary:
    """A server that ends with this process, however that ends."""

    child: subprocess.Popen[bytes]
    output: IO[bytes]

    def log(self) -> str:
        """What it has written."""
        self.output.seek(0)
        return self.output.read().decode(errors="replace")


def url() -> str:
    """Where Prefect's clients in this folder look for a server: environment, prefect.toml, or profile."""
    return _url_and_setting()[0]


def named_by() -> str:
    """The setting that gives `url`, or would give another."""
    return _url_and_setting()[1]


def _url_and_setting() -> tuple[str, str]:
    if URL in os.environ:
        return os.environ[URL], URL
    active = os.environ.get("PREFECT_PROFILE") or _toml(profiles(), "active")
    ours, profile = _toml(SETTINGS, "api", "url"), _toml(profiles(), "profiles", active, URL)
    if profile and not ours:
        return str(profile), f"{URL} in {profiles()}"
    return str(ours or ""), f"api.url in {SETTINGS}"


def profiles() -> Path:
    """Where Prefect keeps settings of the user's."""
    return Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect") / "profiles.toml"


def _toml(path: Path, *keys: Any) -> Any:
    """What a file has under a path of keys; nothing where there is none."""
    try:
        found: Any = tomllib.loads(path.read_text("utf-8"))
    except OSError:  # not there, most likely
        return None
    except ValueError as error:  # in its form, of which Prefect would make a traceback
        _end(f"{path} is not valid TOML: {error}")
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _end(text: str) -> NoReturn:
    console.warn(text)
    sys.exit(DarkroomError.exit_code)


def check_settings() -> None:
    """Has Prefect read its settings, and ends the process with a line if it can't: it would by a traceback.

    A command does so where it would import Prefect, which is when that looks for them.
    """
    _check_certificates()
    heard = StringIO()
    try:
        with redirect_stderr(heard):  # it says the same of plugins, which there are none of
            import prefect.context  # noqa: F401
    except (ValueError, TypeError, AttributeError, OSError, RuntimeError) as error:
        _end(_fault(error))
    sys.stderr.write(heard.getvalue())


def _check_certificates() -> None:
    """httpx reads them for this machine's server too; conda's variable outlives its environment."""
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            ssl.create_default_context(cafile=file)
        except OSError as error:
            why = f"no certificates can be read ({error.strerror or error})"
            _end(f"SSL_CERT_FILE is {file!r}, where {why}; correct it or unset it")


def _fault(error: Exception) -> str:
    """Says which setting of Prefect's it is, and what it has."""
    from pydantic import ValidationError  # imported by now

    _toml(SETTINGS)
    if not isinstance(_toml(profiles(), "profiles") or {}, dict):
        return f"{profiles()}: profiles are no tables; give [profiles.NAME]"
    places = f"the environment, {SETTINGS}, {DOTENV} and {profiles()}"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        name, value = ".".join(map(str, first["loc"])), str(first["input"])
        # Of one setting alone, for others are in what all of them are checked by, and of no secret.
        if not name or SECRET.search(name.upper()) or not isinstance(first["input"], str | int | float):
            return f"Prefect can't use {name or 'its settings together'} ({first['msg']}); see {places}"
        ending = name.rpartition(".")[2].upper()
        named = (key for key in os.environ if key.startswith("PREFECT_") and key.endswith(ending))
        known = next((key for key in named if os.environ[key].casefold() == value.casefold()), None)
        if known:
            return f"{known} is {os.environ[known]!r}: {first['msg']}"
        return f"{name} is {value!r}: {first['msg']} (see {places})"
    if isinstance(error, UnicodeDecodeError):
        return f"{DOTENV} can't be read as UTF-8: {brief(error)}"
    return f"Prefect can't use its settings ({brief(error)}); see {places}"


def is_wanted() -> bool:
    """Whether somebody has named the server: that of `make serve` is used where it is there."""
    return bool(os.environ.get(URL)) or not (url() == "" or urlsplit(url()).hostname in LOOPBACK)


def is_up(address: str) -> bool:
    """Whether a Prefect server answers at `address`, an URL that ends in /api."""
    try:
        with urlopen(f"{address}/health", timeout=ANSWER) as response:
            return bool(response.read(len(HEALTHY) + 1) == HEALTHY)
    except HTTPError as error:
        return error.code in (401, 403)  # there, and wants a key
    except (OSError, ValueError, HTTPException):  # not there, or no URL, or no HTTP
        return False


@contextmanager
def reporting(own: Temporary | None) -> Iterator[None]:
    """Ends the time of imports, waits until the server answers, and says so if it fails while a run goes on.

    Raises:
        DarkroomError: there is none where there should be one, or ours can't start, or it went away.
    """
    gc.freeze()
    gc.enable()
    if own:
        wait(url(), own.child, own.log)
    elif not is_up(url()):
        raise DarkroomError(
            f"no Prefect server answers at {url()}; start it (`make serve` starts one on this machine), "
            f"or run without: add {ALONE}"
        )
    # Both have been imported by now.
    from httpx import HTTPError as Failure
    from prefect.settings import (
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    # Somebody looks at this run: it needs no heartbeats, whose end takes up to a second, and doesn't wait
    # for minutes for a server that has gone.
    settings = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_CLIENT_MAX_RETRIES: TRIES}
    try:
        with temporary_settings(settings):
            yield
    except (Failure, RuntimeError) as error:
        if not (isinstance(error, Failure) or isinstance(error.__cause__, Failure)):
            raise  # Prefect wraps what a first connection fails by
        raise DarkroomError(
            f"Prefect's server at {url()} failed on the way ({brief(error)}); what the stages have "
            f"done is kept: run it again when the server is back, or with {ALONE}"
        ) from None


def start_temporary() -> Temporary:
    port = free_port()
    output = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as we do)
    child = launch(port, output, PREFECT__SERVER_EPHEMERAL="1", PREFECT_UI_ENABLED="0")
    os.environ[URL] = f"http://127.0.0.1:{port}/api"
    atexit.register(child.terminate)  # and so run last of all, when Prefect has sent what there is to tell
    key()
    return Temporary(child, output)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def key() -> str | None:
    """What a server of ours asks for, if it asks; given to its clients too."""
    if asked := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        os.environ.setdefault("PREFECT_API_AUTH_STRING", asked)
    return os.environ.get("PREFECT_API_AUTH_STRING")


def launch(port: int, output: Any, **settings: str) -> subprocess.Popen[bytes]:
    """Starts a server on loopback as Prefect does it, in a process that ends with this one."""
    home = str(Path(__file__).parents[1])
    # Prefect lets pages of any origin in, and who may start a run may name the command that it starts.
    origins = ",".join([*(f"http://{host}:{port}" for host in LOOPBACK), *_other_origins()])
    return start(
        *("uvicorn", "--app-dir", home, "--factory", "flows.server:app"),
        *("--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"),
        env=os.environ | {"PREFECT__SERVER_FINAL": "1", ORIGINS: origins} | settings,
        stdout=output,
        stderr=output,
    )


def _other_origins() -> list[str]:
    """Those that the user lets in, as that of a proxy before the server; Prefect's own default is all."""
    return [origin for origin in os.environ.get(ORIGINS, "").split(",") if origin not in ("", "*")]


def app() -> Any:
    """Prefect's server, as an ASGI application."""
    gc.disable()
    from prefect.server.api import collections
    from prefect.server.api.server import create_app

    # Prefect asks GitHub which kinds of workers, blocks and flows there are. Of the first it has a copy,
    # which it then takes; of the others it has none.
    collections.KNOWN_VIEWS = {"aggregate-worker-metadata": ""}
    gc.freeze()  # before Prefect collects garbage for its routes, which takes a quarter of a second else
    application = create_app()
    gc.enable()
    return _keep_to_this_machine(application, os.environ[ORIGINS].split(","))


def _keep_to_this_machine(application: Any, origins: list[str]) -> Any:
    """Refuses what pages of other origins ask for, and what they would fetch from elsewhere.

    CORS lets any page open a WebSocket, and post what has no type, which Prefect takes for JSON. A host of
    another name is one that somebody has pointed here. Pages of ours get a Content-Security-Policy.
    """
    hosts = [urlsplit(origin).netloc for origin in origins]

    async def keep(scope: Any, receive: Any, send: Any) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
        is_ours = headers.get(b"host") in hosts and headers.get(b"origin", origins[0]) in origins
        if scope["type"] == "websocket" and not is_ours:
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http" and not is_ours:
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": REFUSED})
            return

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await application(scope, receive, send_with_policy)

    return keep


def last_error(text: str) -> str:
    """The line that tells what has failed: that of the last error, or the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"(\w+\.)*\w*Error: ", line)] or lines
    return brief(causes[-1]) if causes else ""


def wait(address: str, child: subprocess.Popen[bytes], log: Callable[[], str]) -> None:
    """Waits until a server that was started answers; `log` gives what it has written.

    Raises:
        DarkroomError: it can't start.
    """
    end = time.monotonic() + PATIENCE
    while not is_up(address):
        if child.poll() is not None or time.monotonic() > end:
            cause = last_error(log()) or "it doesn't say why"
            raise DarkroomError(
                f"Prefect's server can't start at {address} ({cause}); see that there is room in "
                "PREFECT_HOME, ~/.prefect if it isn't set, that you may write there, and that no other "
                "program has the port; `dvc repro` needs no Prefect"
            )
        time.sleep(0.05)
