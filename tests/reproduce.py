"""Runs the pipeline cold in two clones and compares every digest that DVC locked.

The clones are of the last commit, lie in different folders, share no cache, and run under different hash
seeds, time zones and locales; the second also with settings of its user's for Keras, pandas, Prefect, DVC,
git and Python. Exit 1 if any output differs.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from tasks.core.base import cli
from tests.project import Project
from tests.structure import ROOT

SETTINGS = (
    {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"},
    {"PYTHONHASHSEED": "2", "TZ": "America/Caracas", "LC_ALL": "C.UTF-8"},
)
OTHERS = {
    "KERAS_BACKEND": "jax",
    "MPLBACKEND": "nonsense",
    "PANDAS_COPY_ON_WRITE": "warn",
    "PANDAS_FUTURE_INFER_STRING": "1",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "PYTHONOPTIMIZE": "1",
    "PYTHONSAFEPATH": "1",
    "PYTHONWARNINGS": "error",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_USE_LEGACY_KERAS": "0",
}
HOME = {
    ".keras/keras.json": '{"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1}',
    ".prefect/profiles.toml": 'active = "odd"\n[profiles.odd]\nPREFECT_TASKS_REFRESH_CACHE = "true"\n',
    ".config/dvc/config": "[core]\n    autostage = true\n    check_update = false\n",
    ".gitconfig": "[fetch]\n    prune = true\n[core]\n    autocrlf = true\n[commit]\n    gpgsign = true\n",
}


def clone(folder: Path) -> Project:
    """Clones the last commit."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    (folder / ".venv").symlink_to(sys.prefix)
    return Project(folder)


def settings_of_a_user(home: Path) -> dict[str, str]:
    """What a user may have said to other programs, in the environment and at home."""
    for name, text in HOME.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, "utf-8")
    return OTHERS | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}


def run_cold(project: Project, settings: dict[str, str]) -> dict[str, str]:
    """Runs the pipeline with caches of its own and settings of the environment; the digest of each output."""
    caches = ("DARKROOM_CACHE", "TFHUB_CACHE_DIR")
    environment = {name: value for name, value in project.environment().items() if name not in caches}
    environment |= settings
    subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=project.folder, env=environment, check=True)
    return digests(project.folder / "dvc.lock")


def digests(lock: Path) -> dict[str, str]:
    """Digests of all outputs that a lock file names."""
    stages = YAML(typ="safe").load(lock.read_text("utf-8"))["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}


def main() -> int:
    cli.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as top:
        folders = [Path(top) / "one", Path(top) / "another" / "place"]
        settings = SETTINGS[0], SETTINGS[1] | settings_of_a_user(Path(top) / "home")
        found = [run_cold(clone(folder), each) for folder, each in zip(folders, settings, strict=True)]
        same_lock = (folders[0] / "dvc.lock").read_bytes() == (folders[1] / "dvc.lock").read_bytes()
    for path in found[0] | found[1]:
        first, second = (digest.get(path, "missing") for digest in found)
        print(f"{'same' if first == second else 'DIFFERENT':<10} {path:<28} {first} {second}")
    print(f"dvc.lock is {'the same' if same_lock else 'DIFFERENT'}")
    return 0 if same_lock else 1


if __name__ == "__main__":
    cli.command(main)
