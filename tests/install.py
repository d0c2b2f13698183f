"""A place for .ci/install to work in, with just those Pythons that a test gives it."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.structure import ROOT

TOOLS = (
    "sh",
    "sed",
    "rm",
    "dirname",
    "uname",
    "cat",
    "mktemp",
    "grep",
    "head",
    "tail",
    "mkdir",
    "mv",
    "cksum",
)

# A Python that says of itself that it is another version, and lacks modules; the rest it does as it does.
STAND_IN = """\
#!/bin/sh
if [ "$1" = --version ]; then echo Python {version}; exit; fi
if [ "$1" = -m ] && echo " {without} " | grep -q " $2 "; then exit 1; fi
if [ "$1" = -m ] && [ "$2" = venv ]; then exec {python} -m venv {options} "$3"; fi
if [ "$1" = -c ]; then
  exec {python} -c "import sys
sys.version_info = (*map(int, '{version}'.split('.')), 0, 'final', 0)
sys.modules.update(dict.fromkeys('{without}'.split()))
exec(sys.argv[1])" "$2"
fi
exec {python} "$@"
"""


@dataclass(frozen=True)
class Place:
    """A folder with .ci/install, and a lock of two packages."""

    folder: Path

    def __post_init__(self) -> None:
        for name in (".ci", "bin", "home"):
            (self.folder / name).mkdir(parents=True)
        shutil.copy2(ROOT / ".ci/install", self.folder / ".ci")
        lock = (ROOT / "requirements.txt").read_text("utf-8")
        few = re.findall(r"(?m)^(?:uv|six)==(?:.*\\\n)*.*\n", lock)
        assert len(few) == 2
        (self.folder / "requirements.txt").write_text("".join(few))
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.folder / "bin" / tool).symlink_to(found)

    def python(self, name: str, version: str, without: str = "", options: str = "") -> None:
        """Puts a Python on the PATH that says of itself that it is another version, and lacks modules.

        Args:
            options: of the environments that it makes.
        """
        file = self.folder / ("." if "/" in name else "bin") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        python = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
        file.write_text(STAND_IN.format(version=version, without=without, python=python, options=options))
        file.chmod(0o755)

    def install(self, *words: str, **environment: str) -> tuple[int, list[str]]:
        """Returns the exit code, and the lines that were printed."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "XDG_"))}
        own = {"PATH": str(self.folder / "bin"), "HOME": str(self.folder / "home")}
        done = subprocess.run(
            [str(self.folder / ".ci/install"), *words],
            cwd=self.folder,
            env=kept | own | environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout.splitlines()
