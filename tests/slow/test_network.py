"""Nothing calls home, all works without a network, and nothing is left elsewhere: docs/privacy.md.

strace records what is reached. Where it isn't there, as on a Mac, tests/test_privacy.py stands in, which asks
each package by its own functions.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import psutil
import pytest
from moto.server import ThreadedMotoServer

from tests.hub import Hub, packed, serving
from tests.live import until
from tests.structure import ROOT
from tests.terminal import terminal
from tests.trace import DNS, STRACE, Story, asked, is_here


def can(*words: str) -> bool:
    """Whether a command is there, and may do its work."""
    return (
        bool(shutil.which(words[0]))
        and not subprocess.run(words, check=False, capture_output=True).returncode
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can("strace", "true"), reason="strace isn't here, which records what is reached"),
]
# A command in a network namespace, once loopback is up there, which it isn't at first. It gets a second
# address: where 127.0.0.1 is all that there is, glibc does not even look for some names, see AI_ADDRCONFIG.
UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as one:
    fcntl.ioctl(one, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
    second = struct.pack("16shh4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton("127.0.0.2"))
    fcntl.ioctl(one, 0x8916, second)  # SIOCSIFADDR
os.execvp(sys.argv[1], sys.argv[1:])
"""
UNSHARE = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--net")
NAMESPACE = (*UNSHARE, sys.executable, "-c", UP)
in_a_namespace = pytest.mark.skipif(
    not can(*NAMESPACE, "true"), reason="no network namespace can be made here"
)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Run with the network that there is: without one, a package's first attempt is all that is seen."""
    story = Story(tmp_path_factory.mktemp("story"))
    story.prepare()
    story.tell()
    return story


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


@in_a_namespace
def test_all_works_without_a_network() -> None:
    """Where loopback is all that there is."""
    words = [*NAMESPACE, sys.executable, "-m", "tests.trace"]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing but loopback" in done.stdout


@in_a_namespace
def test_a_name_is_looked_for_where_there_is_no_network(tmp_path: Path) -> None:
    """Also by a program that asks for addresses of a kind that this machine has."""
    code = (
        "import contextlib, socket\n"
        "with contextlib.suppress(OSError):\n"
        "    socket.getaddrinfo('www.example.org', 80, socket.AF_INET, flags=socket.AI_ADDRCONFIG)"
    )
    words = [*NAMESPACE, *STRACE, "-o", str(tmp_path / "strace"), sys.executable, "-c", code]
    subprocess.run(words, check=True)
    assert any(what.endswith(f":{DNS}") for what in asked(tmp_path / "strace"))


@in_a_namespace
def test_what_would_call_home_is_found(tmp_path: Path) -> None:
    """The recorder's own test, where it can reach nobody: ONNX Runtime as it comes looks for its host."""
    code = "import os, time; os.environ.pop('ORT_DISABLE_TELEMETRY'); import onnxruntime; time.sleep(20)"
    words = [*NAMESPACE, *STRACE, "-o", str(tmp_path / "strace"), sys.executable, "-c", code]
    subprocess.run(words, env={"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}, check=True)
    assert any(what.endswith(f":{DNS}") for what in asked(tmp_path / "strace"))
    assert any((tmp_path / "home").rglob("deviceid"))


def test_a_backbone_that_is_fetched_reaches_the_address_that_was_named(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.prepare()
    path = "/google/imagenet/mobilenet_v2_100_224/feature_vector/4"
    with serving(Hub()) as hub:
        hub.archives[path] = packed(tmp_path / "backbone")
        story.settings["DARKROOM_HUB"] = hub.address
        story.run("fetch", "tasks.backbones", "fetch", f"https://tfhub.dev{path}")
    assert asked(story.log("fetch")) == {hub.address.removeprefix("http://")}


def test_a_push_reaches_dvcs_remote_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    address = "{}:{}".format(*store.get_host_and_port())
    boto3.client("s3", "us-east-1", endpoint_url=f"http://{address}").create_bucket(Bucket="bucket")
    story = Story(tmp_path, settings=keys)
    story.prepare()
    try:
        story.run("remote", "dvc", "remote", "add", "--default", "store", "s3://bucket/darkroom")
        story.run("remote", "dvc", "remote", "modify", "store", "endpointurl", f"http://{address}")
        (story.project.folder / "more").write_text("data")
        story.run("add", "dvc", "add", "more")
        story.run("push", "dvc", "push", "more")
        assert asked(story.log("push")) == {address}
    finally:
        store.stop()


def test_a_step_that_fails_leaves_no_process(tmp_path: Path) -> None:
    sleep = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(99)'])"
    words = ["strace", "-f", "-o", str(tmp_path / "log"), sys.executable, "-c", sleep]
    with pytest.raises(KeyError), terminal(words, os.environ) as running:
        until(lambda: len(psutil.Process(running.process.pid).children(recursive=True)) == 2)
        started = psutil.Process(running.process.pid).children(recursive=True)
        raise KeyError
    assert not psutil.wait_procs(started, 10)[1]


def test_a_record_is_read(tmp_path: Path) -> None:
    """The lines are strace's."""
    four = 'connect(8<UDP:[1]>, {{sa_family=AF_INET, sin_port=htons({}), sin_addr=inet_addr("{}")}}, 16) = 0'
    six = (
        "connect(8<TCPv6:[1]>, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), "
        'inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = -1'
    )
    service = "/run/systemd/resolve/io.systemd.Resolve"
    query = r"\1\2\1\0\0\1\0\0\0\0\0\0"
    lines = [
        *(four.format(*place) for place in ((53, "127.0.0.53"), (443, "10.1.2.3"), (4200, "127.0.0.1"))),
        six,
        six.replace("2001:db8::1", "::ffff:10.9.8.7"),
        f'connect(8<UNIX:[1]>, {{sa_family=AF_UNIX, sun_path="{service}"}}, 42) = 0',
        rf'sendto(8<UDP:[127.0.0.1:1->127.0.0.53:53]>, "{query}\3www\7example\3org\0\0\1", 33) = 33',
        rf'sendmmsg(8<UDP:[10.0.0.1:1->10.0.0.2:53]>, [{{msg_hdr={{msg_iov=[{{iov_base="{query}\1a\2bc\0\1"',
        'connect(8<UNIX:[1]>, {sa_family=AF_UNIX, sun_path="/run/x"}, 16) = 0',
    ]
    log = tmp_path / "strace"
    log.write_text("\n".join(lines))
    names = {"the name www.example.org", "the name a.bc", f"a name, by {service}"}
    elsewhere = {"127.0.0.53:53", "10.1.2.3:443", "2001:db8::1:80", "::ffff:10.9.8.7:80"} | names
    assert asked(log) == elsewhere | {"127.0.0.1:4200"}
    assert {what for what in asked(log) if not is_here(what)} == elsewhere
