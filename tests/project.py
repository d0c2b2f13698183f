"""A copy of this checkout to run whole pipelines in, with images and a backbone small enough for it."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.structure import ROOT

ME = ["-c", "user.name=A Tester", "-c", "user.email=tester@example.invalid"]
FIRST_COMMIT = ["git", *ME, "commit", "--quiet", "--allow-empty", "--message", "Start"]


def without_server(settings: str) -> str:
    """The text of prefect.toml with an address where nobody serves: a developer may have `make serve` on."""
    return settings.replace(":4200/", ":1/")


@dataclass(frozen=True)
class Project:
    """A checkout of its own, with one commit and an empty cache."""

    folder: Path

    @classmethod
    def copy(cls, folder: Path, commit: str | None = None) -> Self:
        """Copies the files that git knows, as a commit or the working tree has them, without `dvc.lock`."""
        if commit:
            subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(folder)], check=True)
            subprocess.run(["git", "checkout", "--quiet", commit], cwd=folder, check=True)
            shutil.rmtree(folder / ".git")
            (folder / "dvc.lock").unlink(missing_ok=True)
            return cls._make_repository(folder)
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            source, target = ROOT / name, folder / name
            if source.is_file() and name != "dvc.lock":
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        return cls._make_repository(folder)

    @classmethod
    def _make_repository(cls, folder: Path) -> Self:
        """Makes a repository of its own of a folder of files."""
        project = cls(folder)
        settings = folder / "prefect.toml"
        settings.write_text(without_server(settings.read_text("utf-8")), "utf-8")
        project.git("init", "--quiet")
        project.git("config", "user.name", "A Tester")
        project.git("config", "user.email", "tester@example.invalid")
        project.git("add", "--all")
        project.git("commit", "--quiet", "--message", "Start")
        return project

    @classmethod
    def small(cls, top: Path, commit: str | None = None) -> Self:
        """A copy in `top`/project that trains quickly, on `top`/pictures and a tiny backbone."""
        from tests.backbone import save_tiny_backbone

        project = cls.copy(top / "project", commit)
        save_tiny_backbone(top / "backbone")
        project.set(
            data__images=str(top / "pictures"),
            backbone=str(top / "backbone"),
            image_size="32",
            epochs="2",
            bootstrap="100",
        )
        return project

    def git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.folder, check=True, capture_output=True)

    def run(self, *words: str, apart: bool = False) -> subprocess.CompletedProcess[str]:
        """Runs `python -m WORDS` here, as a user would; stderr goes into stdout unless kept `apart`."""
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=self.folder,
            env=self.environment(),
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if apart else subprocess.STDOUT,
        )

    def environment(self) -> dict[str, str]:
        home = self.folder.parent / "prefect"  # nothing of a test goes into the user's own database
        own = str(Path(sys.executable).parent)
        return os.environ | {"PREFECT_HOME": str(home), "PATH": own + os.pathsep + os.environ["PATH"]}

    def set(self, **values: str) -> None:
        """Sets values in params.yaml by their last name, which must be there once, or by `section__name`."""
        file = self.folder / "params.yaml"
        text = file.read_text("utf-8")
        for name, value in values.items():
            section, _, key = name.rpartition("__")
            within = rf"^{section}:\n(?:[ #].*\n|\n)*?" if section else "^"
            text, count = re.subn(rf"(?m)({within}\s+{key}:) [^#\n]*", rf"\1 {value}  ", text)
            assert count == 1, f"{name} stands {count} times in params.yaml"
        file.write_text(text, "utf-8")

    def exists(self, name: str) -> bool:
        return (self.folder / name).exists()
