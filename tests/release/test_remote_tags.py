"""What others have, know and can fetch, by the remotes of git and of DVC."""

import socket
import subprocess
from pathlib import Path

import pytest

from flows import promote
from flows.run import Run
from tasks.core.artifacts.formats import FORMATS
from tasks.core.base.errors import DarkroomError, DataError, Unreachable
from tasks.core.base.files import remove
from tasks.core.base.paths import EXPORT
from tasks.core.release import git, promotion
from tasks.core.release.revision import Revision
from tests.release.promotions import by_hand, cached, commit, flipped, promoted, tags

pytestmark = pytest.mark.usefixtures("prefect_server")


def follow(said: str) -> None:
    """Does what a message about DVC's remote says."""
    files = said[said.index("; remove ") + len("; remove ") : said.index(" there, and `dvc push`")]
    for file in files.split(" and "):
        Path(file).unlink()
    subprocess.run(["dvc", "push", "-q"], check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_what_nobody_else_could_fetch_is_refused(variants: Path, tmp_path: Path) -> None:
    commit(variants, "good")
    (tmp_path / "store").rename(tmp_path / "away")
    code, said = promoted()
    assert (code, tags()) == (2, [])
    store = tmp_path / "store"
    assert said == f"DVC's remote, {store}, is not there: mount it, or `mkdir -p {store}` if it is new"
    (tmp_path / "away").rename(tmp_path / "store")
    file = cached(Path("export/model.onnx"), tmp_path / "store")
    assert promoted(dry_run=True)[0] == 0
    file.rename(tmp_path / "kept")
    code, said = promoted()
    assert (code, tags()) == (2, [])
    assert f"in DVC's remote {file} is missing" in said
    follow(said)
    assert file.exists(), "though DVC had seen it there"
    flipped(file)
    code, said = promoted()
    assert (code, tags()) == (2, [])
    assert f"in DVC's remote {file} was altered; remove {file} and " in said
    follow(said)
    assert promoted()[0] == 0


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_remote_of_git_that_is_away_leaves_no_tag(variants: Path, tmp_path: Path) -> None:
    commit(variants, "good")
    (tmp_path / "origin").rename(tmp_path / "gone")
    code, said = promoted(push=True)
    assert (code, tags()) == (75, [])
    assert said.startswith("origin can't be asked for its tags") and said.endswith("; nothing is promoted")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_of_two_promotions_one_wins_and_the_other_is_told(variants: Path, tmp_path: Path) -> None:
    commit(variants, "good")
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    subprocess.run(["git", "clone", "-q", "-b", "main", str(tmp_path / "origin"), "../other"], check=True)
    tag = ["git", "-c", "user.name=B", "-c", "user.email=b@example.invalid", "tag", "-a", "-m", "theirs"]
    subprocess.run([*tag, "classifier#production#1"], cwd="../other", check=True)
    push = ["git", "push", "-q", "origin", "classifier#production#1"]
    subprocess.run(push, cwd="../other", check=True)
    code, said = promoted()
    assert (code, tags()) == (2, [])
    assert (
        "origin has classifier#production#1, which is not here; `git fetch --tags origin` brings it" in said
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(git, "check_tags", lambda _: None)  # they were there a moment later
        code, said = promoted(push=True)
        assert (code, tags()) == (2, []), "neither of its two tags"
        assert "another promotion was there first" in said
        subprocess.run([*tag, "classifier#production#2"], cwd="../other", check=True)
        hook = Path(".git/hooks/pre-push")  # git has listed the tags by then
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\nunset GIT_DIR\ngit -C ../other push -q origin classifier#production#2\n")
        hook.chmod(0o755)
        subprocess.run(["git", "fetch", "-q", "--tags"], check=True)
        code, said = promoted(push=True)
    assert (code, tags()) == (2, ["classifier#production#1"])
    assert "another promotion was there first" in said


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_shallow_clone_is_told_what_it_lacks(
    variants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(variants, "good")
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    assert promoted(push=True)[0] == 0
    words = ["git", "clone", "-q", "--depth", "1", "--no-tags", f"file://{tmp_path / 'origin'}", "../shallow"]
    subprocess.run(words, check=True)
    monkeypatch.chdir(tmp_path / "shallow")
    code, said = promoted()
    assert code == 2
    assert "`git fetch --tags origin` brings it" in said
    with pytest.raises(DataError, match=r"there is no version v1\.0\.0, but none at all"):
        promotion.verify("v1.0.0")
    subprocess.run(["git", "fetch", "-q", "--tags"], check=True)
    assert "is what it says" in promotion.verify("v1.0.0")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_nobody_is_told_of_what_nobody_can_fetch(variants: Path) -> None:
    commit(variants, "good")
    subprocess.run(["dvc", "remote", "remove", "store"], check=True)
    subprocess.run(["git", "commit", "-qam", "No remote"], check=True)
    code, said = promoted(push=True)
    assert (code, tags()) == (2, [])
    assert "DVC has no remote" in said
    assert promoted()[0] == 0, "for oneself it will do"
    code, said = promoted(push=True)
    assert code == 2, "also the next time"
    assert "DVC has no remote" in said


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_tag_that_is_another_elsewhere_is_told(variants: Path) -> None:
    commit(variants, "good")
    by_hand("classifier@v1.0.0", message="theirs")
    subprocess.run(["git", "push", "-q", "origin", "classifier@v1.0.0"], check=True)
    subprocess.run(["git", "tag", "--delete", "classifier@v1.0.0"], check=True)
    by_hand("classifier@v1.0.0", message="ours")
    code, said = promoted()
    assert (code, len(tags())) == (2, 1)
    assert "origin has another classifier@v1.0.0: git tag --delete 'classifier@v1.0.0'; git fetch" in said


@pytest.mark.usefixtures("here")
def test_a_commit_that_others_do_not_have_is_told(variants: Path) -> None:
    commit(variants, "good")
    lacks = "; origin has its commit on no branch, so `git push` that too"
    assert promoted()[0] == 0
    assert promoted(push=True)[1].endswith(f"already, and now others know{lacks}")
    assert promoted("staging", push=True)[1].endswith(lacks)
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    assert promoted(push=True)[1].endswith("already")


@pytest.mark.usefixtures("here")
def test_a_clone_that_knows_less_says_so(
    variants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(variants, "good")
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    subprocess.run(["git", "clone", "-q", "-b", "main", tmp_path / "origin", tmp_path / "clone"], check=True)
    assert promoted(push=True)[0] == 0
    monkeypatch.chdir(tmp_path / "clone")
    words = "promote: origin has classifier#production#1, which is not here; `git fetch"
    monkeypatch.setattr("sys.argv", ["flows/promote.py", "--changelog"])
    assert promote.main(Run()) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("# Changelog of classifier\n") and captured.err.startswith(words)
    monkeypatch.setattr("sys.argv", ["flows/promote.py", "--verify", "production"])
    with pytest.raises(DataError, match="there is no version production"):
        promote.main(Run())
    assert capsys.readouterr().err.startswith(words)


@pytest.mark.usefixtures("here")
def test_a_remote_of_another_name_is_not_passed_over_in_silence() -> None:
    """A stale clone would monitor, and show, what was in production when it was made."""
    subprocess.run(["git", "remote", "rename", "origin", "github"], check=True)
    told = git.fetch()
    assert told and told.startswith("git has no remote origin but github, so that it isn't known what others")
    assert git.unknown_tags() == told
    with pytest.raises(DarkroomError, match="no remote origin to push to: git remote rename github origin"):
        git.check_tags(push=True)
    subprocess.run(told.rpartition(": ")[2].split(), check=True)
    assert git.fetch() is None and git.unknown_tags() is None
    subprocess.run(["git", "remote", "remove", "origin"], check=True)
    assert git.fetch() is None, "nobody else has any"


@pytest.mark.usefixtures("here")
def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (one.replace(f"Time={git.SILENT}", "Time=1") for one in git.SETTINGS)
    monkeypatch.setattr(git, "SETTINGS", tuple(settings))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/here.git"
        subprocess.run(["git", "remote", "set-url", "origin", address], check=True)
        with pytest.raises(Unreachable, match=r"origin can't be asked .*too slow"):
            git.remote_tags()


@pytest.mark.usefixtures("here")
def test_tags_of_another_model_that_end_alike_are_none_of_ours(variants: Path) -> None:
    commit(variants, "good")
    by_hand("team/classifier@v8.0.0")
    subprocess.run(["git", "push", "-q", "origin", "team/classifier@v8.0.0"], check=True)
    subprocess.run(["git", "tag", "--delete", "team/classifier@v8.0.0"], check=True, capture_output=True)
    assert git.remote_tags() == {} and git.unknown_tags() is None


@pytest.mark.usefixtures("here")
def test_what_was_altered_in_the_remote_is_not_blamed_on_the_cache(variants: Path, tmp_path: Path) -> None:
    commit(variants, "good")
    flipped(cached(EXPORT / FORMATS["onnx"].file, tmp_path / "store"))
    remove(Path(".dvc/cache"))
    with pytest.raises(
        DataError, match=r"in DVC's remote .* was altered; remove .*\.dir there, and `dvc push`"
    ):
        Revision("HEAD").read(EXPORT / FORMATS["onnx"].file)
    remove(tmp_path / "store")
    for published in (True, False):
        with pytest.raises(DataError, match=rf"DVC's remote, {tmp_path}/store, is not there: mount it"):
            Revision("HEAD", published).read(EXPORT / FORMATS["onnx"].file)


@pytest.mark.usefixtures("here")
def test_a_partial_clone_fetches_what_it_lacks_of_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For which DVC would wait for ever."""
    files = "params.yaml", "dvc.yaml", "note"
    for text in ("one", "two", "three"):
        for file in files:
            Path(file).write_text(f"# {file}: {text}\n")
        for words in (["add", "-A"], ["commit", "-q", "-m", text]):
            subprocess.run(["git", *words], check=True)
    origin = tmp_path / "origin"
    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    subprocess.run(["git", "-C", str(origin), "config", "uploadpack.allowFilter", "true"], check=True)
    words = ["git", "clone", "-q", "--filter=blob:none", "-b", "main", f"file://{origin}", "../partial"]
    subprocess.run(words, check=True)
    monkeypatch.chdir(tmp_path / "partial")
    lacking = ["git", "rev-list", "--objects", "--missing=print", "--no-walk", "HEAD~1"]
    assert subprocess.run(lacking, check=True, capture_output=True).stdout.count(b"?") == len(files)
    assert Revision("HEAD~1").read(Path("note")) == b"# note: two\n"
    assert b"?" not in subprocess.run(lacking, check=True, capture_output=True).stdout
    origin.rename(tmp_path / "away")
    with pytest.raises(Unreachable, match="this is a partial clone, and git can't fetch what"):
        Revision("HEAD~2")


HOOK = "mkdir -p .git/hooks; printf '#!/bin/sh\necho not today >&2; exit 1' > $H; chmod +x $H"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        (HOOK.replace("$H", ".git/hooks/pre-push"), DarkroomError, "not today error: failed to push"),
        ("git config remote.origin.pushurl DISABLED", DarkroomError, "'DISABLED' does not appear to be"),
        ("git config remote.origin.mirror true", DarkroomError, "--mirror can't be combined"),
        ("git config remote.origin.pushurl http://127.0.0.1:1", Unreachable, "Failed to connect|onnection"),
        (HOOK.replace("$H", "../origin/hooks/pre-receive"), DarkroomError, r"tags \(remote: not today"),
    ],
)
def test_a_push_that_is_refused_is_no_failure_of_the_network(
    setting: str, error: type[Exception], words: str
) -> None:
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "Begin"], check=True)
    by_hand("classifier@v1.0.0")
    subprocess.run(setting, shell=True, check=True)
    with pytest.raises(error, match=words) as told:
        git.push(["classifier@v1.0.0"])
    assert type(told.value) is error
    assert "warning" not in str(told.value)


SETTINGS = """
[fetch]
    prune = true
    pruneTags = true
[push]
    default = nothing
    followTags = true
    recurseSubmodules = on-demand
    gpgSign = true
    pushOption = mine
[tag]
    gpgSign = true
    forceSignAnnotated = true
    sort = -taggerdate
[commit]
    gpgSign = false
[gpg]
    program = /bin/false
[color]
    ui = always
[column]
    ui = always
[log]
    showSignature = true
[diff]
    relative = true
    noprefix = true
"""


def test_a_folder_of_a_larger_repository_is_no_place_for_promotions(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "one/.dvc").mkdir(parents=True)
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "Begin"], check=True)
    git.check_place()
    monkeypatch.chdir(here / "one")
    with pytest.raises(DarkroomError, match="this is the folder one/ of a git repository"):
        git.check_place()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(DarkroomError, match=r"safe\.directory|dubious ownership"):
        git.check_place()


@pytest.fixture
def unusual(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same repository, of a user with settings of their own."""
    file = tmp_path / "gitconfig"
    known = Path.home() / ".gitconfig"
    file.write_text((known.read_text("utf-8") if known.is_file() else "") + SETTINGS)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(file))
    subprocess.run(["git", "config", "remote.origin.prune", "true"], check=True)
    return here


@pytest.mark.usefixtures("unusual")
def test_what_is_not_pushed_yet_outlives_a_look_at_the_remote_whatever_git_prunes() -> None:
    unsigned = ["git", "-c", "tag.gpgSign=false"]
    subprocess.run([*unsigned, "commit", "-q", "--allow-empty", "-m", "Begin"], check=True)
    for name in ("classifier@v1.0.0", "classifier#production#1", "mine"):
        subprocess.run([*unsigned, "tag", "-a", "-m", "of this clone alone", name], check=True)
    before = sorted(tags())
    assert git.fetch() is None
    assert sorted(tags()) == before
    git.push(["classifier@v1.0.0"])
    assert list(git.remote_tags()) == ["classifier@v1.0.0"], "and none that nobody asked for"
    listed = subprocess.run(["git", "ls-remote", "--tags", "origin"], check=True, capture_output=True)
    assert b"mine" not in listed.stdout
    plain = ["git", "fetch", "-q", "origin", "refs/tags/classifier#*:refs/tags/classifier#*"]
    subprocess.run(plain, check=True)
    assert "classifier#production#1" not in tags(), "its failing twin: what git does by these settings"


@pytest.mark.slow
@pytest.mark.usefixtures("unusual")
def test_a_promotion_does_not_depend_on_the_users_settings(variants: Path) -> None:
    commit(variants, "good")
    assert promoted()[0] == 0
    before = tags()
    assert len(before) == 2
    code, said = promoted(push=True)
    assert (code, tags()) == (0, before) and ", and now others know" in said
    assert set(git.remote_tags()) == set(before)
