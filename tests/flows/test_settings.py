"""A setting of Prefect's that it can't use is told in a line, and not by its traceback of fifty."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.structure import ROOT

VERIFY = ("flows.promote", "--verify", "v1.0.0")
PROFILES = "prefect/profiles.toml"


def ended(folder: Path, words: tuple[str, ...], **settings: str) -> tuple[int, str]:
    """The exit code and stderr of a command."""
    home = {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(folder / "prefect")}
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=os.environ | home | settings,
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "setting", "said"),
    [
        (("flows.serve",), "LOGGING_LEVEL=nonsense", "PREFECT_LOGGING_LEVEL is 'nonsense': Input should be"),
        (VERIFY, "API_REQUEST_TIMEOUT=abc", "PREFECT_API_REQUEST_TIMEOUT is 'abc': Input should be a valid"),
        (("flows.pipeline", "--no-server"), "CLIENT_RETRY_EXTRA_CODES=x", "PREFECT_CLIENT_RETRY_EXTRA_CODES"),
    ],
)
def test_a_variable(words: tuple[str, ...], setting: str, said: str, tmp_path: Path) -> None:
    name, _, value = setting.partition("=")
    code, errors = ended(tmp_path, words, **{f"PREFECT_{name}": value})
    assert (code, errors.count("\n")) == (2, 1), errors
    assert errors.startswith(said)


@pytest.mark.parametrize("content", [None, "no certificate"])
@pytest.mark.parametrize("words", [VERIFY, ("flows.pipeline", "--no-server"), ("flows.serve",)])
def test_certificates_that_are_none(words: tuple[str, ...], content: str | None, tmp_path: Path) -> None:
    """A variable that an environment sets, such as conda's, outlives it in a shell."""
    file = tmp_path / "certificates.pem"
    if content:
        file.write_text(content)
    code, errors = ended(tmp_path, words, SSL_CERT_FILE=str(file))
    assert (code, errors.count("\n")) == (2, 1), errors
    assert errors.startswith(f"SSL_CERT_FILE is '{file}', where no certificates can be read (")


def test_settings_that_dont_go_together(tmp_path: Path) -> None:
    """What Prefect says of these has all of them in it."""
    code, errors = ended(tmp_path, VERIFY, PREFECT_LOGGING_TO_API_MAX_LOG_SIZE="99999999999")
    assert (code, errors.count("\n")) == (2, 1), errors
    assert errors.startswith("Prefect can't use ") and "max_log_size" in errors.lower()


def test_a_value_that_may_be_secret_is_not_told(tmp_path: Path) -> None:
    code, errors = ended(tmp_path, VERIFY, PREFECT_CLIENT_CUSTOM_HEADERS='{"Authorization": ["planted"]}')
    assert (code, errors.count("\n")) == (2, 1), errors
    assert errors.startswith(
        "Prefect can't use custom_headers.Authorization (Input should be a valid string)"
    )
    assert "planted" not in errors


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (".env", b"X=\xe9\n", ".env can't be read as UTF-8"),
        (".env", b"PREFECT_LOGGING_LEVEL=x\n", "level is 'X': Input should be"),
        ("prefect.toml", b"[api\n", "prefect.toml is not valid TOML"),
        (PROFILES, b'active = "x"\n[profiles.x\n', f"{PROFILES} is not valid TOML: Expected"),
        (PROFILES, b"\xff\n", f"{PROFILES} is not valid TOML: 'utf-8' codec can't decode"),
        (PROFILES, b"profiles = 3\n", f"{PROFILES}: profiles are no tables"),
        (PROFILES, b"[[profiles]]\nKEY = 'planted'\n", f"{PROFILES}: profiles are no tables"),
    ],
)
def test_a_file(file: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / file).write_bytes(content)
    code, errors = ended(tmp_path, VERIFY)
    assert (code, errors.count("\n")) == (2, 1), errors
    assert said in errors
    assert file in errors
