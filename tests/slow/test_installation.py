"""`make` brings a Python where none fits, and the lock has packages for what the README's table names.

Both ask the package index, and are passed over where it can't be reached.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.install import Place
from tests.structure import ROOT

pytestmark = pytest.mark.slow

UV = str(Path(sys.executable).parent / "uv")
README = (ROOT / "README.md").read_text("utf-8")
PYTHONS = re.findall(r"3\.\d+", re.findall(r"(?m)^\| Python \|(.*?)\.? Where", README)[0])
GLIBC = re.findall(r"Linux of x86-64 or aarch64 with glibc (\d+)\.(\d+)", README)[0]
MAC = re.findall(r"macOS (\d+) or newer on Apple silicon", README)[0]
LINUX = f"manylinux_{'_'.join(GLIBC)}"
SUPPORTED = (f"x86_64-{LINUX}", f"aarch64-{LINUX}", "aarch64-apple-darwin")
LEFT = ("x86_64-apple-darwin", "x86_64-unknown-linux-musl")  # Intel Macs, Alpine
ONLY_SOURCE = "antlr4-python3-runtime"  # of hydra's; pure Python


def lacks(system: str, python: str, lock: Path = ROOT / "requirements.txt") -> str:
    """What uv says that the lock has no package for, on a system with a Python; nothing if it has all."""
    words = [UV, "pip", "install", "--no-config", "--dry-run", "--quiet", "--no-deps", "--require-hashes"]
    words += ["--python-platform", system, "--python-version", python]
    words += ["--only-binary", ":all:", "--no-binary", ONLY_SOURCE, "-r", str(lock)]
    own = {"MACOSX_DEPLOYMENT_TARGET": f"{MAC}.0"}
    with tempfile.TemporaryDirectory() as target:
        words += ["--target", target]
        done = subprocess.run(words, env=os.environ | own, check=False, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


@pytest.fixture(scope="module", autouse=True)
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Asks the index for one small package."""
    place = Place(tmp_path_factory.mktemp("index") / "checkout")
    said = lacks(SUPPORTED[0], PYTHONS[0], place.folder / "requirements.txt")
    if "error sending request" in said:
        pytest.skip("the package index can't be reached")
    assert not said


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", SUPPORTED)
def test_the_lock_has_packages_for_what_is_supported(system: str, python: str) -> None:
    assert lacks(system, python) == ""


@pytest.mark.parametrize("system", LEFT)
def test_it_has_none_for_what_is_not(system: str) -> None:
    assert "ai-edge-litert==" in lacks(system, PYTHONS[-1])


@pytest.mark.parametrize(("python", "why"), [("3.10", "only supports >=3.11"), ("3.14", "no usable wheels")])
def test_it_has_none_for_other_pythons(python: str, why: str) -> None:
    """Once it has, .ci/install may take that one too."""
    assert why in lacks(SUPPORTED[0], python)


def stand_in(folder: Path) -> str:
    """The address of a list of Pythons for uv, with one: the one that runs this, packed as uv's own are.

    It stands in for what uv would fetch from GitHub.
    """
    major, minor, patch = platform.python_version_tuple()
    base, version = Path(sys.base_prefix), f"python{major}.{minor}"
    archive = folder / "python.tar.gz"

    def chosen(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        unneeded = {"test", "idlelib", "__pycache__", "site-packages"} & set(member.name.split("/"))
        return None if unneeded or member.name.endswith(".a") else member

    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name in (
            f"bin/{version}",
            "bin/python3",
            f"lib/{version}",
            *map(str, base.glob("lib/libpython3*")),
        ):
            path = base / name
            tar.add(path, f"python/{path.relative_to(base)}", filter=chosen)
    facts = {
        "name": "cpython",
        "arch": {"family": platform.machine(), "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": int(major),
        "minor": int(minor),
        "patch": int(patch),
        "prerelease": "",
        "url": archive.as_uri(),
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None,
        "build": "20260101",
    }
    key = f"cpython-{platform.python_version()}-linux-{platform.machine()}-gnu"
    (folder / "pythons.json").write_text(json.dumps({key: facts}))
    return str(folder / "pythons.json")


@pytest.mark.skipif(sys.platform != "linux", reason="packs a Python of Linux")
@pytest.mark.parametrize("without", ["", "venv ensurepip", "pip"], ids=["whole", "no venv", "no pip"])
def test_where_there_is_only_another_python_uv_brings_one(tmp_path: Path, without: str) -> None:
    """The lock's uv, put into a small environment or a folder, by whatever that other Python has."""
    place = Place(tmp_path / "checkout")
    place.python("python3", "3.14", without)
    # The stand-in for 3.14 can't deceive uv, which would take it for what it is.
    settings = {"UV_PYTHON_PREFERENCE": "only-managed", "UV_PYTHON_DOWNLOADS_JSON_URL": stand_in(tmp_path)}
    code, lines = place.install(**settings)
    assert code == 0, lines
    assert "uv takes one without venv, or downloads one" in lines[0]
    ask = "import six, sys; print(sys.version_info[:3], sys.base_prefix)"
    done = subprocess.run(
        [str(place.folder / ".venv/bin/python"), "-c", ask], check=True, capture_output=True, text=True
    )
    assert str(tuple(map(int, platform.python_version_tuple()))) in done.stdout
    assert str(place.folder / "home/.local/share/uv/python") in done.stdout


def test_a_python_without_venv_is_taken_by_uv(tmp_path: Path) -> None:
    """As Debian's and Ubuntu's, without their package python3-venv; it needs no other."""
    place = Place(tmp_path / "checkout")
    place.python("python3", ".".join(platform.python_version_tuple()[:2]), "venv ensurepip")
    code, lines = place.install(UV_PYTHON_DOWNLOADS="never")
    assert code == 0, lines
    assert (place.folder / ".venv/bin/python").exists()
