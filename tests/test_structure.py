"""Holds dvc.yaml, the layout and the documents against the code, so that no fact drifts from its twin."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.core.base import files, paths
from tests.structure import ROOT, imports, own_files, parameters_read, sections_declared

PIPELINE: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))
STAGES: dict[str, Any] = PIPELINE["stages"]
NEVER_IN_THE_RESULT = {"compute", "compute.tensorboard"}  # which processes read the images changes no byte
# What each room may import besides itself.
ROOMS: dict[str, set[str]] = {
    "base": set(),
    "data": {"base"},
    "validation": {"base", "data"},
    "backbones": {"base"},
    "training": {"base", "backbones"},
    "evaluation": {"base", "data"},
    "artifacts": {"base", "data", "backbones"},
    "reporting": {"base", "data"},
    "inference": {"base", "data", "validation", "backbones", "evaluation", "artifacts"},
}
ROOMS["release"] = set(ROOMS) - {"training"}
TENSORS = {"build", "train", "evaluate", "export"}  # the stages that may load TensorFlow


def every_module() -> list[Path]:
    return sorted((ROOT / "tasks").rglob("*.py"))


def module(stage: str) -> Path:
    return ROOT / "tasks" / f"{stage}.py"


def names(entries: list[Any]) -> set[str]:
    """Paths of deps, outs or metrics, with or without options."""
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}


def outs(stage: str) -> set[str]:
    return names(STAGES[stage].get("outs", [])) | names(STAGES[stage].get("metrics", []))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_the_module_of_its_name(stage: str) -> None:
    assert STAGES[stage]["cmd"] == f"python -m tasks.{stage}"
    assert module(stage).is_file()


def rooms_of(stage: str) -> set[str]:
    """The stage's own module, and the rooms that it imports from, directly or not."""
    files = (file.relative_to(ROOT) for file in own_files(module(stage)))
    return {"/".join(file.parts[:3]) for file in files}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_rooms_it_imports_from_and_no_other(stage: str) -> None:
    assert {dep for dep in STAGES[stage]["deps"] if dep.startswith("tasks/")} == rooms_of(stage)


def stages_rerun_by(room: str) -> set[str]:
    return {stage for stage in STAGES if f"tasks/core/{room}" in STAGES[stage]["deps"]}


def test_only_what_trains_retrains() -> None:
    """Report, gates, export, release, inference and validation are edited without a training."""
    assert {room for room in ROOMS if "train" in stages_rerun_by(room)} == {"base", "backbones", "training"}


def test_the_code_of_training_leaves_the_data_as_it_is() -> None:
    assert not stages_rerun_by("training") & {"digits", "validate", "build"}


def test_a_room_holds_nothing_but_what_a_stage_watches() -> None:
    """`cli` watches files with these suffixes while a stage runs; DVC ignores what else is written there."""
    words = ["git", "ls-files", "tasks"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {Path(name).suffix for name in listed.split()} == set(files.CODE)


@pytest.mark.parametrize("file", every_module(), ids=lambda file: file.stem)
def test_rooms_import_one_way(file: Path) -> None:
    room = file.parent.name
    found = {name.split(".")[2] for name in imports(file) if name.startswith("tasks.core.")}
    assert found <= ROOMS.get(room, set(ROOMS)) | {room}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_parameters_it_reads_and_no_other(stage: str) -> None:
    assert set(STAGES[stage].get("params", [])) == parameters_read(module(stage)) - NEVER_IN_THE_RESULT


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_sections_it_reads_and_no_other(stage: str) -> None:
    read = {key.partition(".")[0] for key in parameters_read(module(stage))}
    assert sections_declared(module(stage)) == read


def test_every_path_between_stages_is_the_one_that_the_code_uses() -> None:
    ours = {str(value) for value in vars(paths).values() if isinstance(value, Path)}
    ignored = {str(paths.TIMED_ARTIFACTS)}
    assert {f"/{path}" for path in ignored} <= set((ROOT / ".dvcignore").read_text().splitlines())
    assert set().union(*map(outs, STAGES)) == ours - ignored


def test_what_a_stage_reads_another_writes_or_the_user_gives() -> None:
    written = set().union(*map(outs, STAGES))
    read = {dep for stage in STAGES.values() for dep in stage["deps"] if not dep.startswith("tasks/")}
    assert read <= written | {"${data.images}", "${data.labels}", "${data.schema}"}


@pytest.mark.parametrize("file", every_module(), ids=lambda file: file.stem)
def test_imports_go_one_way(file: Path) -> None:
    found = imports(file)
    assert not {name for name in found if name.split(".")[0] in ("flows", "prefect", "tests")}
    others = {name for name in found if re.fullmatch(r"tasks\.(?!core\b|telemetry\b)\w+", name)}
    assert not others, "a stage or command imports from tasks.core alone"


@pytest.mark.parametrize("stage", sorted(set(STAGES) - TENSORS))
def test_tensorflow_is_only_where_tensors_are(stage: str) -> None:
    light = {file for file in own_files(module(stage)) if file.stem != "runtimes"}
    assert not any(name.split(".")[0] == "tensorflow" for file in light for name in imports(file))


def test_tensorflow_is_loaded_by_one_module_and_by_what_runs_artifacts_apart() -> None:
    loading = {
        file.stem
        for file in every_module()
        if any(name in ("tensorflow", "tf_keras", "tensorflow_hub") for name in imports(file))
    }
    assert loading == {"tensorflow_setup", "runtimes"}
    assert not {
        name for name in imports(ROOT / "tasks/core/artifacts/runtimes.py") if name.startswith("tasks")
    }


def test_the_readme_names_commands_and_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for name in re.findall(r"python -m ((?:tasks|flows)\.\w+)", text):
        assert (ROOT / (name.replace(".", "/") + ".py")).is_file(), name
    for target in re.findall(r"[`\n]make (\w+)", text):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text("utf-8"), target
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / link).exists(), link


def test_the_readme_names_parameters_that_exist() -> None:
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text("utf-8"))
    text = (ROOT / "README.md").read_text("utf-8")
    for section, key in re.findall(rf"`({'|'.join(values)})\.(\w+)[`=.:]", text):
        assert key in values[section] or key in ("h5", "onnx", "tflite"), f"{section}.{key}"


@pytest.mark.parametrize("stage", STAGES)
def test_git_ignores_what_dvc_keeps_and_nothing_else(stage: str) -> None:
    for entry in [*STAGES[stage].get("outs", []), *STAGES[stage].get("metrics", [])]:
        path = entry if isinstance(entry, str) else next(iter(entry))
        kept_by_dvc = isinstance(entry, str) or entry[path].get("cache", True)
        ignored = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=False)
        assert (ignored.returncode == 0) == kept_by_dvc, path


@pytest.mark.parametrize("stage", STAGES)
def test_the_drawing_of_the_architecture_has_the_rooms_and_files_of_each_stage(stage: str) -> None:
    drawing = (ROOT / "docs/architecture.md").read_text("utf-8").split("```")[1]
    lines = re.split(rf"(?m)^ +(?:├──► )?(?={'|'.join(STAGES)}\b)", drawing)
    (text,) = [line for line in lines if re.match(rf"{stage}\b", line)]
    words = set(re.findall(r"[\w/.]+", re.sub(r"─►.*", "", text)))
    assert words & set(ROOMS) == {dep.rpartition("/")[2] for dep in rooms_of(stage)} & set(ROOMS) - {"base"}
    assert {word.rstrip("/") for word in words if "/" in word} - {str(paths.TIMED_ARTIFACTS)} == outs(stage)
    readers = {
        out: {name for name, other in STAGES.items() if out in other["deps"]} for out in sorted(outs(stage))
    }
    for out, stages in readers.items():
        named = re.findall(rf"{re.escape(out)}/? +─► (.*)", text)
        assert stages <= set(re.findall(r"\w+", named[0])), out


KINDS = re.findall(  # title, files, tests and stages of each kind of change
    r"(?m)^## (.+)\n\n- Files: (.+)\n- Tests: (.+)\n- Runs again: (.+)$",
    (ROOT / "docs/extending.md").read_text("utf-8"),
)


def test_the_docs_have_six_kinds_of_change() -> None:
    assert len(KINDS) == 6


@pytest.mark.parametrize(("title", "touched", "tests", "stages"), KINDS)
def test_a_change_touches_files_that_exist_and_runs_again_the_stages_that_the_docs_name(
    title: str, touched: str, tests: str, stages: str
) -> None:
    named = re.findall(r"`([^`]+)`", touched + tests)
    assert all((ROOT / name).exists() for name in named), title
    deps = {"/".join(name.split("/")[:3]) for name in named}  # a room, or a stage's own module
    again = {stage for stage in STAGES if deps & set(STAGES[stage]["deps"])}
    assert again == set(re.findall(r"`(\w+)`", stages)), title
