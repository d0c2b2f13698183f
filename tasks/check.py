"""Checks params.yaml, and that what it names is there; `make run` and the flow begin with this.

A slip is told in a second, before DVC starts, which has no words of ours for some of them.
"""

from __future__ import annotations

from pathlib import Path

from tasks.core.backbones import catalogue
from tasks.core.base import cli, params
from tasks.core.validation import preflight


def check() -> None:
    """Reads all parameters, and looks for what they name.

    Raises:
        ParamError, DataError: names the key, the value and the remedy.
    """
    p = params.load()
    preflight.check(Path(p.data.images), Path(p.data.labels), Path(p.data.schema))
    catalogue.check(p.model.backbone)
    preflight.check_repository()
    if p.gate.champion != params.NONE:
        from tasks.core.release import champion  # half a second

        champion.predictions(p.gate.champion)


def main() -> int:
    check()
    return 0


if __name__ == "__main__":
    cli.command(main)
