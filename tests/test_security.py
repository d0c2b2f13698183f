"""What SECURITY.md claims has a test, and what can be seen in the code and the lock alone."""

import ast
import re
from pathlib import Path

import pytest

from tests.structure import ROOT, tree

OWN = sorted(file for folder in ("tasks", "flows") for file in (ROOT / folder).rglob("*.py"))
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads"}
CALLS |= {"yaml.load", "joblib.load", "dill.load", "marshal.loads", "torch.load", "shelve.open"}


def slips(code: ast.Module) -> list[str]:
    """Calls by which text or data would become a program."""
    found = []
    for node in ast.walk(code):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        asked = {str(word.arg): ast.unparse(word.value) for word in node.keywords}
        loads_all = asked.get("allow_pickle") == "True" or asked.get("shell") == "True"
        yaml = name == "YAML" and asked.get("typ") not in ("'safe'", "'rt'")
        if name in CALLS or loads_all or yaml:
            found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize("file", OWN, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_text_is_run(file: Path) -> None:
    assert not slips(tree(file))


@pytest.mark.parametrize(
    "text",
    [
        "eval(text)",
        "import pickle\npickle.loads(data)",
        "np.load(file, allow_pickle=True)",
        "subprocess.run(words, shell=True)",
        "YAML(typ='unsafe').load(text)",
        "YAML().load(text)",
    ],
)
def test_what_runs_text_is_found(text: str) -> None:
    assert slips(ast.parse(text))


def test_each_claim_names_a_test_that_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text("utf-8"))
    assert len(named) >= 15
    for file, test in named:
        names = {node.name for node in ast.walk(tree(ROOT / file)) if isinstance(node, ast.FunctionDef)}
        assert test in names, f"{file} has no {test}"


def test_every_package_is_pinned_by_its_digest() -> None:
    lock = (ROOT / "requirements.txt").read_text("utf-8")
    packages = re.split(r"(?m)^(?=[\w.-]+==)", lock)[1:]
    assert len(packages) > 100
    assert all("--hash=sha256:" in package for package in packages)
