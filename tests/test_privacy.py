"""Each package that would call home, look for updates or write an identity is kept from it: docs/privacy.md.

Each is asked by its own functions, once as we start it and once with nothing switched off, where it must say
the opposite: so a switch that is lost, renamed or useless is found. tests/slow/test_network.py watches what
is really reached.
"""

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from flows import server
from tasks.telemetry import OFF
from tests.structure import ROOT, imports
from tests.terminal import in_terminal
from tests.trace import KEPT

BARE = {name: os.environ[name] for name in KEPT if name in os.environ}
# By -S the switch of .venv is passed over; what is installed is found by its place.
BARE["PYTHONPATH"] = sysconfig.get_path("purelib")

ASKED = {
    "ORT_DISABLE_TELEMETRY": """
import os, onnxruntime
assert not [file for _, _, files in os.walk(os.environ["HOME"]) for file in files]
""",
    "DO_NOT_TRACK": """
from prefect._internal.analytics import is_telemetry_enabled
assert not is_telemetry_enabled()
""",
    "PREFECT_SERVER_ANALYTICS_ENABLED": """
import prefect.server.services.telemetry
from prefect.server.services.perpetual_services import get_enabled_perpetual_services
enabled = get_enabled_perpetual_services(ephemeral=False, webserver_only=False)
assert "send_telemetry_heartbeat" not in [one.function.__name__ for one in enabled]
""",
    "DVC_NO_ANALYTICS": """
from dvc import analytics
assert not analytics.is_enabled()
""",
    "VIRTUALENV_NO_PERIODIC_UPDATE": """
from virtualenv.run import session_via_cli
assert not session_via_cli(["somewhere"]).seeder.periodic_update
""",
}
NOTHING_LEFT = {"GX_ANALYTICS_ENABLED"}  # of the version in the lock


def says(code: str, folder: Path, environment: dict[str, str]) -> str:
    """Runs Python code with a home of its own; returns what it fails with, nothing if it doesn't."""
    home = folder / "home"
    home.mkdir()
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    words = [sys.executable, "-S", "-c", code]
    done = subprocess.run(
        words, cwd=folder, env=environment | own, check=False, capture_output=True, text=True
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@pytest.mark.parametrize(
    "switch", [pytest.param(name, marks=[pytest.mark.slow] if "SERVER" in name else []) for name in ASKED]
)
def test_a_package_that_is_switched_off_says_so(switch: str, tmp_path: Path) -> None:
    for name, environment, expected in (("off", BARE | OFF, ""), ("on", BARE, "AssertionError")):
        (tmp_path / name).mkdir()
        assert says(ASKED[switch], tmp_path / name, environment) == expected, name


def test_every_switch_is_tried() -> None:
    assert set(OFF) == set(ASKED) | NOTHING_LEFT


@pytest.mark.parametrize("package", ["tasks", "flows", "tests", "benchmarks"])
def test_all_is_off_before_anything_else_is_imported(package: str) -> None:
    """Also where the project is installed by other means than `make`."""
    code = f"""
import sys
sys.path[:0] = {[str(ROOT)]}
class Watch:
    def find_spec(self, name, *_):
        if name in ("onnxruntime", "prefect", "dvc", "great_expectations", "virtualenv"):
            import os
            assert os.environ.items() >= {OFF}.items(), name
sys.meta_path.insert(0, Watch())
import {package}
import os
assert os.environ.items() >= {OFF}.items()
"""
    done = subprocess.run([sys.executable, "-S", "-c", code], env=BARE, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_dvc_looks_for_no_update_here(tmp_path: Path) -> None:
    """There is no variable for it; .dvc/config has it."""
    code = "from dvc.updater import Updater; assert not Updater('.').is_enabled()"
    (tmp_path / "elsewhere").mkdir()
    assert says(code, tmp_path / "elsewhere", BARE) == "AssertionError"
    words = [sys.executable, "-S", "-c", code]
    assert subprocess.run(words, cwd=ROOT, env=BARE, check=False).returncode == 0


@pytest.mark.slow
def test_a_flow_in_a_terminal_writes_no_identity(tmp_path: Path) -> None:
    """DO_NOT_TRACK keeps Prefect from sending, but not from writing the id of a device for it."""
    plain = "import prefect; prefect.flow(print)"
    ours = f"import sys; sys.path[:0] = {[str(ROOT)]}; import flows.pipeline, flows.promote, flows.monitor"
    for code, expected in ((ours, False), (plain, True)):
        home = tmp_path / f"{expected}"
        environment = BARE | OFF | {"PREFECT_HOME": str(home)}
        ended, said = in_terminal([sys.executable, "-S", "-c", code], environment)
        assert ended == 0, said
        assert (home / ".sdk_telemetry/device_id").exists() == expected


def test_the_ui_fetches_nothing_from_elsewhere() -> None:
    """V2 asks Amplitude however it is set, so V1 is shown; and a browser is told to keep to this machine."""
    code = "from prefect.settings import get_current_settings as now; print(now().server.ui.v2_enabled)"
    words = [sys.executable, "-S", "-c", code]
    done = subprocess.run(words, cwd=ROOT, env=BARE, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_a_server_of_ours_lets_a_browser_go_nowhere_else_and_asks_nobody(tmp_path: Path) -> None:
    """The list of workers is Prefect's own copy, which it would ask GitHub for; of others it has none."""
    code = f"""
import sys
sys.path[:0] = {[str(ROOT)]}
def refuse(event, _):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise AssertionError(event)
from starlette.testclient import TestClient
from flows.server import app
client = TestClient(app(), raise_server_exceptions=True)
sys.addaudithook(refuse)
answer = client.get("/api/collections/views/aggregate-worker-metadata")
assert "process" in answer.json()["prefect"]
assert client.get("/api/collections/views/aggregate-block-metadata").status_code == 404
print(answer.headers["content-security-policy"])
"""
    words = [sys.executable, "-S", "-c", code]
    own = {"PREFECT_HOME": str(tmp_path), server.ORIGINS: "http://testserver"}
    done = subprocess.run(words, env=BARE | OFF | own, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    policy = done.stdout.split()
    assert policy[:2] == ["default-src", "'self'"]
    hosts = {re.sub(r":\*$", "", word.partition("://")[2]) for word in policy if "://" in word}
    assert hosts == set(server.LOOPBACK)


def test_pip_looks_for_no_update_of_itself() -> None:
    script = (ROOT / ".ci/install").read_text("utf-8").replace("\\\n", "")
    installing = [line for line in script.splitlines() if re.search(r'(-m pip install|"\$@") --quiet', line)]
    assert len(installing) == 2
    assert all("--disable-pip-version-check" in line for line in installing)


@pytest.mark.parametrize("package", ["posthog", "kagglehub", "huggingface_hub", "sentry_sdk"])
def test_what_would_send_for_others_is_not_installed(package: str) -> None:
    """Great Expectations has used PostHog, and TF Hub hands addresses of Kaggle's to its client."""
    assert importlib.util.find_spec(package) is None


def test_nothing_of_ours_draws_by_what_loads_scripts_from_elsewhere() -> None:
    """Altair's pages, which Great Expectations brings along, and DVC's plots."""
    files = [file for folder in ("tasks", "flows") for file in (ROOT / folder).rglob("*.py")]
    assert not {
        file for file in files for name in imports(file) if name.split(".")[0] in ("altair", "dvc_render")
    }


def test_the_docs_name_every_switch() -> None:
    text = (ROOT / "docs/privacy.md").read_text("utf-8")
    for name, value in OFF.items():
        assert f"`{name}={value}`" in text
    assert "docs/privacy.md" in (ROOT / "README.md").read_text("utf-8")
