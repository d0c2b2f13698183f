"""A promotion that is taken back, or interrupted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.base import process
from tasks.core.base.paths import EXPORT
from tasks.core.release import git, probe
from tests.release.promotions import cached, champion, commit, promoted, tags
from tests.structure import ROOT

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_rollback_tells_nobody_of_what_it_takes_back(
    variants: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which others learn of only as the version before the last."""
    commit(variants, "poor")
    assert promoted(push=True)[0] == 0
    commit(variants, "good")
    assert promoted()[0] == 0
    code, said = promoted(rollback=True, push=True)
    assert (code, champion()) == (0, "v1.0.0")
    assert "is back in production in place of classifier@v1.1.0" in said
    assert set(git.remote_tags()) == set(tags()), "a stage's tag says nothing without its version's"
    commit(variants, "equal")
    another = ["git", "tag", "--annotate", "--message", "theirs", "classifier#staging#4"]
    monkeypatch.setattr(probe, "probe", lambda *_: subprocess.run(another, check=True).stdout or {})
    code, said = promoted()
    assert code == 2, "what it was decided by is another now"
    assert said == "another promotion was there first; run it again"
    assert champion() == "v1.0.0"


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_an_interrupt_while_tags_are_made_takes_them_back() -> None:
    script = """
import os, signal
from pathlib import Path
from flows.run import Run
from tasks.core.release import git, promotion, registry
from tasks.core.release.registry import Registry
run = Run()
with run.by_hand(), promotion.tagging(Registry.read(), push=False, undoing=Run.current().undoing) as made:
    made.append(registry.register("v1.0.0", "HEAD", "text"))
    assert git.run("tag") == "classifier@v1.0.0"
    os.kill(os.getpid(), signal.SIGTERM)
"""
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "1"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert (done.returncode, tags()) == (process.INTERRUPTED, [])


@pytest.mark.usefixtures("here")
def test_a_rollback_needs_what_it_puts_back(variants: Path, tmp_path: Path) -> None:
    for name in ("poor", "good"):
        commit(variants, name)
        assert promoted()[0] == 0
    file = cached(variants / "poor" / EXPORT / "model.onnx", tmp_path / "store")
    file.rename(tmp_path / "kept")
    code, said = promoted(rollback=True)
    assert (code, champion()) == (2, "v1.1.0"), "nobody else could fetch it, though it is in the cache"
    assert (
        f"export/model.onnx of classifier@v1.0.0 is not what dvc.lock says: in DVC's remote {file} is missing"
        in said
    )
    (tmp_path / "kept").rename(file)
    assert promoted(rollback=True)[0] == 0
    assert champion() == "v1.0.0"


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_promotion_of_an_earlier_version_can_be_taken_back(variants: Path) -> None:
    for name in ("poor", "good"):
        commit(variants, name)
        assert promoted()[0] == 0
    for words in (["git", "checkout", "-q", "classifier@v1.0.0"], ["dvc", "checkout", "-q"]):
        subprocess.run(words, check=True)
    assert promoted(champion=False)[0] == 0
    assert promoted(rollback=True)[1].startswith("classifier@v1.1.0 is back in production in place of")
    assert promoted(rollback=True)[1].startswith("classifier@v1.0.0 is back in production in place of")
    assert '"rollback": true' in git.message("classifier#production#5")
    assert promoted(rollback=True)[0] == 2
    assert '"rollback": true' in git.message("classifier#production#4")
