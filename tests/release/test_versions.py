"""Versions as their tags and their evidence have them, also those that were made by hand."""

import os
import re
import subprocess
import time
from pathlib import Path

import gto.api
import pytest

from tasks.core.base.errors import DarkroomError, DataError, Rejected
from tasks.core.release import git, model_card, promotion, registry
from tasks.core.release.evidence import FORMAT
from tasks.core.release.registry import Registry
from tests.release.promotions import by_hand, champion, commit, promoted, tags

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.mark.usefixtures("here")
def test_what_gto_takes_back_is_taken_back() -> None:
    """And a rollback goes back further each time."""
    for words in (["add", "-A"], ["commit", "-q", "-m", "1"]):
        subprocess.run(["git", *words], check=True)
    for count in range(1, 4):
        subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", f"{count}"], check=True)
        registry.register(f"v1.{count}.0", "HEAD", "text")
        registry.assign("production", Registry.read().find(f"v1.{count}.0"), "text")
    known = Registry.read()
    assert [one.name for one in known.history("production")] == ["v1.3.0", "v1.2.0", "v1.1.0"]
    assert known.history("staging") == []
    with pytest.raises(
        DataError, match=r"production#2 puts a version .* give that version, classifier@v1\.2\.0"
    ):
        known.find("classifier#production#2")
    registry.assign("staging", known.find("v1.1.0"), "v1.1.0 is back into staging tomorrow")
    registry.assign("staging", known.find("v1.2.0"), "text")
    registry.assign("staging", known.find("v1.1.0"), "the good one goes back into staging")
    history = Registry.read().history("staging")
    assert [one.name for one in history] == ["v1.1.0", "v1.2.0", "v1.1.0"], "words by hand take nothing back"
    registry.assign("production", known.find("v1.2.0"), "classifier@v1.2.0 back into production")
    history = Registry.read().history("production")
    assert [one.name for one in history] == ["v1.2.0", "v1.1.0"], "as tags of format 2 have it"
    gto.api.unassign(".", "classifier", version="v1.2.0", stage="production")
    assert [one.name for one in Registry.read().history("production")] == ["v1.1.0"]
    gto.api.deregister(".", "classifier", version="v1.1.0")
    assert Registry.read().champion("production") is None
    gto.api.deregister(".", "classifier", version="v1.3.0")
    assert [one.name for one in Registry.read().versions] == ["v1.2.0"]
    assert Registry.read().next(breaks=False) == "v1.4.0", "no name is given twice"
    subprocess.run(["git", "tag", "classifier@v9.0.0"], check=True)
    by_hand("data-2024/07")
    assert Registry.read().next(breaks=True) == "v2.0.0", "neither a lightweight tag nor any other is GTO's"


@pytest.mark.usefixtures("here")
def test_a_tag_carries_the_name_that_git_knows_and_the_time_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "Begin"], check=True)
    for name in ("name", "email"):
        subprocess.run(["git", "config", "--unset", f"user.{name}"], check=True)
    for name in list(os.environ):
        if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER", "EMAIL")):
            monkeypatch.delenv(name)
    (tmp_path / "mine").write_text("[committer]\nname = Zoë\nemail = zoe@example.invalid\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "mine"))
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2001-01-01T00:00:00Z")
    message = "Ωmega\n\n# kept  \n{}\n"
    version = registry.register("v1.0.0", "HEAD", message)
    form = "--format=%(taggername) %(taggeremail) %(taggerdate:format:%Y) %(contents)"
    found = git.run("for-each-ref", form, f"refs/tags/{version}")
    assert found == f"Zoë <zoe@example.invalid> {time.strftime('%Y')} {message}".strip()
    by_hand("classifier#staging#2")
    subprocess.run(["git", "tag", "classifier#staging#7"], check=True)
    assert registry.assign("production", Registry.read().find(version), "text") == "classifier#production#8"
    (event,) = (one for one in gto.api.history(".", "classifier") if one["stage"] == "production")
    assert (event["version"], event["author"]) == ("v1.0.0", "Zoë")


@pytest.mark.usefixtures("here")
def test_a_version_made_by_hand_is_one_without_evidence(variants: Path) -> None:
    commit(variants, "good")
    by_hand("classifier@v1.0.0")
    by_hand("classifier#staging#1")
    with pytest.raises(DataError, match=r"classifier@v1\.0\.0 was made by hand and carries no evidence"):
        promotion.verify("v1.0.0")
    assert "- made by hand, without evidence\n- 20" in model_card.changelog()
    assert ": staging, by hand\n" in model_card.changelog()
    commit(variants, "equal")
    assert promoted()[0] == 0
    assert champion() == "v2.0.0", "what it might break nobody knows"
    text = model_card.changelog()
    assert text.index("## v2.0.0") < text.index("- accuracy 1.0000") < text.index("## v1.0.0")
    later = git.message("classifier@v2.0.0").replace(
        f'"format": {FORMAT}', f'"format": {FORMAT + 1}, "new": 0'
    )
    by_hand("classifier@v2.1.0", message=later)
    with pytest.raises(DataError, match="evidence of a later version of this project"):
        model_card.card("v2.1.0")


@pytest.mark.usefixtures("here")
def test_a_tag_of_a_tag_counts_as_one_of_its_commit(variants: Path) -> None:
    """As `git tag -a` makes it of another tag's name, and as DVC and GTO have it."""
    commit(variants, "good")
    by_hand("classifier@v1.0.0")
    words = ["git", "tag", "-a", "-m", "mine", "classifier#production#1", "classifier@v1.0.0"]
    subprocess.run(words, check=True, capture_output=True)
    assert champion() == "v1.0.0"


@pytest.mark.usefixtures("here")
def test_a_stage_that_is_assigned_without_a_number_counts_by_its_time(variants: Path) -> None:
    """As `gto assign --simple true` makes it, and DVC follows it."""
    commit(variants, "good")
    by_hand("classifier@v1.0.0", GIT_COMMITTER_DATE="2026-01-01T10:00:00Z")
    by_hand("classifier#production#7", GIT_COMMITTER_DATE="2026-01-01T10:00:01Z")
    commit(variants, "equal")
    by_hand("classifier@v1.1.0", GIT_COMMITTER_DATE="2026-01-01T10:00:02Z")
    by_hand("classifier#production", GIT_COMMITTER_DATE="2026-01-01T10:00:03Z")
    assert champion() == "v1.1.0"
    by_hand("classifier#production#8", GIT_COMMITTER_DATE="2026-01-01T10:00:04Z")
    assert [one.tag for one in Registry.read().assignments][1:] == [
        "classifier#production",
        "classifier#production#8",
    ]


def test_evidence_stays_where_a_tag_is_signed() -> None:
    signature = "-----BEGIN PGP SIGNATURE-----\n\niQ\n-----END PGP SIGNATURE-----\n"
    assert registry.facts(f'text\n\n{{"format": 3}}\n{signature}') == {"format": 3}
    assert registry.facts('text\n\n{"format": 3}\nmore') == {}


@pytest.mark.usefixtures("here")
def test_a_clock_that_is_behind_is_told(variants: Path) -> None:
    """By the times of their tags GTO and DVC would go on with the champion of before."""
    commit(variants, "good")
    by_hand("classifier#staging#1", GIT_COMMITTER_DATE="2099-01-01T00:00:00Z")
    code, said = promoted()
    assert (code, tags()) == (2, ["classifier#staging#1"])
    assert "the last tag is of 2099-01-01 00:00:00 +0000 classifier#staging#1, which is still to come" in said


@pytest.mark.usefixtures("here")
def test_a_lightweight_tag_of_the_next_versions_name_is_told() -> None:
    for words in (["add", "-A"], ["commit", "-q", "-m", "1"], ["tag", "classifier@v0.9.0"]):
        subprocess.run(["git", *words], check=True)
    promotion.check_name(Registry.read())
    for words in (["tag", "classifier@v1.0.0"], ["push", "-q", "origin", "classifier@v1.0.0"]):
        subprocess.run(["git", *words], check=True)
    with pytest.raises(DarkroomError, match=r"^classifier@v1\.0\.0 is no version but a light") as told:
        promotion.check_name(Registry.read())
    deleting = re.findall("git (tag|push) --delete ([^;]+)", str(told.value))
    for command, what in deleting:
        subprocess.run(f"git {command} --delete {what}", shell=True, check=True)
    assert not git.remote_tags()
    promotion.check_name(Registry.read())


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_version_that_is_not_what_it_says_is_told(variants: Path) -> None:
    commit(variants, "good")
    assert promoted()[0] == 0
    message = git.message("classifier@v1.0.0")
    subprocess.run(["git", "tag", "--delete", "classifier@v1.0.0"], check=True)
    forged = message.replace('"accuracy": 1.0', '"accuracy": 0.5').replace(
        '"model.onnx": "', '"model.onnx": "0'
    )
    subprocess.run(["git", "tag", "-a", "-m", forged, "classifier@v1.0.0"], check=True)
    with pytest.raises(Rejected) as told:
        promotion.verify("v1.0.0")
    assert "export/model.onnx is not the one of then" in str(told.value)
    assert "test.accuracy of the stored predictions is 1.0, and not 0.5" in str(told.value)
    assert "its metrics are not those of reports/metrics.json" in str(told.value)


@pytest.mark.usefixtures("here")
def test_a_version_that_was_withdrawn_stays_so(variants: Path) -> None:
    commit(variants, "good")
    assert promoted()[0] == 0
    gto.api.deregister(".", "classifier", version="v1.0.0")
    assert registry.unpublished() == []
    code, said = promoted()
    assert (code, said.startswith("this commit was classifier@v1.0.0, which was withdrawn")) == (2, True), (
        said
    )
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "Another"], check=True)
    assert promoted()[0] == 0
    assert champion() == "v1.1.0"
