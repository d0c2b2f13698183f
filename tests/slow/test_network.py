"""Nothing calls home, all works without a network, and nothing is left elsewhere: docs/privacy.md.

strace records what is reached. Where it isn't there, as on a Mac, tests/test_privacy.py stands in, which asks
each package by its own functions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.structure import ROOT
from tests.trace import ALONE, DNS, Reached, Story, reached

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("strace"), reason="strace isn't here, which records what is reached"),
]
NAMESPACE = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--net")
HAS_NAMESPACES = shutil.which("unshare") and not subprocess.run([*NAMESPACE, "true"], check=False).returncode


def told(top: Path, before: tuple[str, ...] = ()) -> Story:
    story = Story(top, before=before)
    story.prepare()
    story.tell()
    return story


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return told(tmp_path_factory.mktemp("story"))


def test_nothing_calls_home(story: Story) -> None:
    assert story.found == set()


def test_what_is_left_elsewhere_is_in_the_docs(story: Story) -> None:
    """Prefect's home alone."""
    assert {name.split("/")[1] for name in story.left("home")} == {".prefect"}
    assert "`~/.prefect`" in (ROOT / "docs/privacy.md").read_text("utf-8")
    assert not [name for name in story.left("home") if "telemetry" in name]
    assert story.left("config", "cache", "data", "state", "runtime") == []


def test_the_temporary_folder_is_left_as_it_was(story: Story) -> None:
    assert story.left("tmp") == []


@pytest.mark.skipif(not HAS_NAMESPACES, reason="no network namespace can be made here")
def test_all_works_without_a_network(tmp_path: Path) -> None:
    """Where loopback is all that there is."""
    assert told(tmp_path, (*NAMESPACE, sys.executable, "-c", ALONE)).found == set()


@pytest.mark.skipif(not HAS_NAMESPACES, reason="no network namespace can be made here")
def test_what_would_call_home_is_found(tmp_path: Path) -> None:
    """The recorder's own test, where it can reach nobody: ONNX Runtime as it comes looks for its host."""
    story = Story(tmp_path, before=(*NAMESPACE, sys.executable, "-c", ALONE))
    story.prepare()
    code = "import os, time; del os.environ['ORT_DISABLE_TELEMETRY']; import onnxruntime; time.sleep(20)"
    with story.started("as it comes", "-c", code):
        pass
    assert any(one.what.endswith(f":{DNS}") for one in story.found), story.found
    assert story.left("cache", "home", "tmp")


def test_a_record_is_read(tmp_path: Path) -> None:
    """The lines are strace's."""
    four = 'connect(8<UDP:[1]>, {{sa_family=AF_INET, sin_port=htons({}), sin_addr=inet_addr("{}")}}, 16) = 0'
    six = (
        "connect(8<TCPv6:[1]>, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), "
        'inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = -1'
    )
    query = r"\1\2\1\0\0\1\0\0\0\0\0\0"
    lines = [
        *(four.format(*place) for place in ((53, "127.0.0.53"), (443, "10.1.2.3"), (4200, "127.0.0.1"))),
        six,
        rf'sendto(8<UDP:[127.0.0.1:1->127.0.0.53:53]>, "{query}\3www\7example\3org\0\0\1", 33) = 33',
        rf'sendmmsg(8<UDP:[10.0.0.1:1->10.0.0.2:53]>, [{{msg_hdr={{msg_iov=[{{iov_base="{query}\1a\2bc\0\1"',
        'connect(8<UNIX:[1]>, {sa_family=AF_UNIX, sun_path="/run/x"}, 16) = 0',
    ]
    log = tmp_path / "strace"
    log.write_text("\n".join(lines))
    found = {"127.0.0.53:53", "10.1.2.3:443", "2001:db8::1:80", "the name www.example.org", "the name a.bc"}
    assert reached(log, "step") == {Reached("step", what) for what in found}
