"""`make` finds a Python that the lock is for, or says in one line what to install. Nothing is fetched."""

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.telemetry import OFF
from tests.install import Place
from tests.structure import ROOT

OFFLINE = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
QUICK = "--without-pip"  # which finds no index either, and sooner
SCRIPT = (ROOT / ".ci/install").read_text("utf-8")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "checkout")


def refused(place: Place, *words: str) -> str:
    """The one line of an installation that can't be."""
    code, lines = place.install(*words, **OFFLINE)
    assert code == 2, lines
    assert lines[-1].startswith("make: ")
    assert all(line.startswith("make: ") for line in lines), "no traceback, and nothing of pip's or uv's own"
    return lines[-1]


def test_without_any_python_it_says_what_to_install(place: Place) -> None:
    assert "nor uv, nor a Python that could install it" in refused(place)


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_another_python_that_can_not_bring_one_says_what_to_install(place: Place, version: str) -> None:
    place.python("python3", version, options=QUICK)
    said = refused(place)
    assert "no Python 3.11, 3.12 or 3.13 with venv was found" in said
    assert "No module named pip" in said, "why, too"


def test_what_uv_says_is_passed_on(place: Place) -> None:
    (place.folder / "bin/uv").symlink_to(Path(sys.executable).parent / "uv")
    said = refused(place)
    assert re.match(
        r"make: uv could not bring Python 3.11, 3.12 or 3.13 \(No interpreter found .+\); install it", said
    )


def test_a_python_of_debian_without_venv_is_not_taken_for_one_that_fits(place: Place) -> None:
    place.python("python3", "3.12", without="ensurepip pip")
    assert "with venv was found" in refused(place)


@pytest.mark.parametrize("name", ["python3", "python3.13", "python3.12", "python3.11"])
def test_a_python_that_fits_is_found_under_each_name(place: Place, name: str) -> None:
    place.python("python", "3.14", options=QUICK)
    place.python(name, "3.12", options=QUICK)
    assert refused(place).startswith("make: pip could not install uv ("), "it goes on with that one"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("3.14", "PYTHON=3.14: the lock is for Python 3.11, 3.12 or 3.13"),
        ("python3", "PYTHON=python3 is Python 3.14; the lock is for Python 3.11, 3.12 or 3.13"),
        ("nonsense", "PYTHON=nonsense can't be run; give a path, or a version such as 3.13"),
    ],
)
def test_a_python_that_is_named_and_does_not_fit_is_refused(place: Place, asked: str, said: str) -> None:
    place.python("python3", "3.14", options=QUICK)
    assert refused(place, asked).startswith(f"make: {said}")


def test_a_python_that_is_named_is_taken(place: Place) -> None:
    place.python("my python", "3.11", options=QUICK)
    assert refused(place, "my python").startswith("make: pip could not install uv (")
    place.python("python3.13", "3.13", options=QUICK)
    assert refused(place, "3.13").startswith("make: pip could not install uv (")


@pytest.mark.parametrize(
    ("first", "stays"),
    [
        ("#!{here}/bin/python", True),
        ('#!/bin/sh\n\'\'\'exec\' "{here}/bin/python3.12" "$0" "$@"', True),
        ("#!/elsewhere/.venv/bin/python", False),
        ('#!/bin/sh\n\'\'\'exec\' "/else where/.venv/bin/python" "$0" "$@"', False),
        ("what nobody knows", True),
    ],
)
def test_an_environment_that_was_moved_is_made_anew(tmp_path: Path, first: str, stays: bool) -> None:
    """Its programs name a Python that is not there any more, or is another checkout's."""
    here = tmp_path / "a folder/.venv"
    (here / "bin").mkdir(parents=True)
    (here / "bin/dvc").write_text(f"{first.format(here=here)}\nimport dvc\n")
    (function,) = re.findall(r"(?ms)^is_here\(\) \{$.*?^\}$", SCRIPT)
    done = subprocess.run(["sh", "-c", f"{function}\nis_here"], cwd=here.parent, check=False)
    assert (done.returncode == 0) == stays


def test_a_clone_has_the_same_lines_whatever_git_is_told(tmp_path: Path) -> None:
    """A shell reads no line that ends in a carriage return, and a digest of code would be another."""
    options = ("-c", "core.autocrlf=true", "clone", "--quiet", "--depth", "1")
    subprocess.run(["git", *options, f"file://{ROOT}", str(tmp_path / "clone")], check=True)
    for name in (".ci/install", "tasks/build.py", "dvc.yaml"):
        assert b"\r" not in (tmp_path / "clone" / name).read_bytes()


def test_an_environment_that_is_activated_is_not_taken_for_a_python(place: Place) -> None:
    """It goes before the new one comes, so that its Python would be another one in the middle."""
    place.python("python3.12", "3.12", options=QUICK)
    old = place.folder / ".venv/bin"
    old.mkdir(parents=True)
    (place.folder / "bin/python3.12").rename(old / "python3")
    place.python("python3", "3.14", options=QUICK)
    code, lines = place.install(**OFFLINE, PATH=f"{old}{os.pathsep}{place.folder / 'bin'}")
    assert code == 2
    assert "with venv was found" in lines[-1]
    assert (old / "python3").exists(), "what is there is kept until there is another"
    assert not (place.folder / ".cache/venv.old").exists()


def test_an_environment_of_this_lock_is_kept(place: Place) -> None:
    """Whatever the dates of files say, so that no network is needed; one that doesn't run is made again."""
    place.python("python3", "3.12", options=QUICK)
    place.python(".venv/bin/python", "3.12")
    digest = ["sh", "-c", "cat requirements.txt .ci/install | cksum"]
    lock = subprocess.run(digest, cwd=place.folder, check=True, capture_output=True, text=True).stdout.strip()
    (place.folder / ".venv/ready").write_text(f"{lock}\n3.12\n")
    assert place.install(**OFFLINE) == (0, [])
    assert place.install("3.12", **OFFLINE) == (0, [])
    assert refused(place, "python3").startswith("make: pip could not install uv ("), "another is asked for"
    (place.folder / ".venv/bin/python").unlink()
    (place.folder / ".venv/bin/python").symlink_to("nowhere")
    assert refused(place).startswith("make: pip could not install uv ("), (
        "as after the system's Python has changed"
    )
    (place.folder / ".venv/ready").write_text("of another lock\n\n")
    assert refused(place).startswith("make: pip could not install uv (")


def test_machines_that_tensorflow_has_left_are_told(place: Place) -> None:
    (place.folder / "bin/uname").unlink()
    (place.folder / "bin/uname").write_text('#!/bin/sh\n[ "$1" = -s ] && echo Darwin || echo x86_64\n')
    (place.folder / "bin/uname").chmod(0o755)
    assert refused(place) == (
        "make: TensorFlow has no packages for Darwin on x86_64; README.md says what is supported"
    )


def test_every_python_in_the_environment_is_first_on_the_path_and_calls_nobody(tmp_path: Path) -> None:
    """Also one that imports nothing of this project, in isolation: a notebook, a Dask worker."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/telemetry.py").write_bytes((ROOT / "tasks/telemetry.py").read_bytes())
    venv.create(tmp_path / ".venv", symlinks=True)
    (module,) = re.findall(r"(?s)<< 'END'\n(.*?)END\n", SCRIPT)
    (packages,) = (tmp_path / ".venv/lib").glob("python3.*/site-packages")
    (packages / "darkroom.pth").write_text("import darkroom_start\n")
    (packages / "darkroom_start.py").write_text(module)
    asked = "import json, os; print(json.dumps(dict(os.environ)))"
    bare = {name: value for name, value in os.environ.items() if name not in OFF}
    words = [str(tmp_path / ".venv/bin/python"), "-I", "-W", "error", "-c", asked]
    done = subprocess.run(words, env=bare, check=True, capture_output=True, text=True)
    assert not done.stderr
    found = json.loads(done.stdout)
    assert found.items() >= OFF.items()
    assert found["PATH"].split(os.pathsep)[0] == str(tmp_path / ".venv/bin")
    assert found["DVC_SITE_CACHE_DIR"] == str(Path(bare["DARKROOM_CACHE"]) / "dvc"), "a list of all images"
    for name in ("json", "shared", "theirs"):
        (tmp_path / f"theirs/{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"theirs/{name}.py").write_text("whose = 'theirs'\n")
    (packages / "shared.py").write_text("whose = 'ours'\n")
    words = [words[0], "-c", "import json, shared, theirs; print(shared.whose, theirs.whose, json.dumps(1))"]
    done = subprocess.run(
        words, env=bare | {"PYTHONPATH": str(tmp_path / "theirs")}, check=True, capture_output=True, text=True
    )
    assert done.stdout == "ours theirs 1\n", "another Python's packages come last"
    (tmp_path / "dvc").write_text("import os; print(os.environ['SHELL'])")
    words = [words[0], str(tmp_path / "dvc")]
    done = subprocess.run(
        words, env=bare | {"SHELL": "/usr/sbin/nologin"}, check=True, capture_output=True, text=True
    )
    assert done.stdout == "/bin/sh\n", "by which DVC starts stages"
    for switch in ("-P", "-B"):  # not to look in the current folder; the other changes nothing of that
        words = [str(tmp_path / ".venv/bin/python"), switch, "-c", "import tasks.telemetry"]
        subprocess.run(words, env=bare, cwd=tmp_path, check=True)


def test_the_pythons_are_the_same_everywhere() -> None:
    """In .ci/install, pyproject.toml, the lock's lowest one, the README, and CI's lowest and highest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    low, high = map(int, re.findall(r"lowest=(\d+) highest=(\d+)", SCRIPT)[0])
    every = [f"3.{minor}" for minor in range(low, high + 1)]
    assert project["requires-python"] == f">=3.{low},<3.{high + 1}"
    assert f"--python-version 3.{low} " in (ROOT / "Makefile").read_text("utf-8")
    ci = YAML(typ="safe").load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    assert ci["jobs"]["test"]["strategy"]["matrix"]["python"] == [every[0], every[-1]]
    in_words = f"Python {', '.join(every[:-1])} or {every[-1]}"
    assert f'versions="{in_words}"' in SCRIPT
    assert in_words in (ROOT / "README.md").read_text("utf-8")
    assert " ".join(f"python{one}" for one in reversed(every)) in SCRIPT, "the names that are tried"
    assert f"{' | '.join(every)} | " in SCRIPT, "the versions that may be asked for"
