"""Stage `latency`: times each artifact on this machine, each in a process of its own.

It writes `export/export.json`: all facts of `export/artifacts.json`, with each artifact's latency and memory
added. These differ from run to run, so DVC neither hashes nor caches that file; `python -m tasks.latency`
makes it again anywhere.
"""

from pathlib import Path
from typing import Any

from tasks.core.artifacts import isolation
from tasks.core.base import cli, console
from tasks.core.base.files import read_json, write_json
from tasks.core.base.paths import ARTIFACT_FACTS, EXPORT, TIMED_ARTIFACTS


def with_times(folder: Path, artifacts: dict[str, Any]) -> dict[str, Any]:
    """Adds what `isolation.time_artifacts` gives to each artifact that was shipped."""
    shipped = {kind: facts["file"] for kind, facts in artifacts.items() if facts["passed"]}
    times = isolation.time_artifacts(folder, shipped)
    return {kind: facts | times.get(kind, isolation.UNTIMED) for kind, facts in artifacts.items()}


def main() -> None:
    facts = read_json(EXPORT / ARTIFACT_FACTS)
    artifacts = with_times(EXPORT, facts["artifacts"])
    for file in (TIMED_ARTIFACTS, isolation.times_file(EXPORT / ARTIFACT_FACTS)):
        write_json(file, facts | {"artifacts": artifacts})
    for fact in artifacts.values():
        if fact["latency_ms"] is not None:
            one, batch, memory = fact["latency_ms"], fact["latency_32_ms"], fact["peak_memory_bytes"] / 1e6
            console.say(
                f"latency: {fact['file']} {one:.2f} ms an image, {batch:.1f} ms for 32, {memory:.0f} MB"
            )


def is_timed() -> bool:
    """Whether `export.json` is that of the artifacts that are here: a checkout or a pull leaves another's."""
    try:
        known, timed = read_json(EXPORT / ARTIFACT_FACTS), read_json(TIMED_ARTIFACTS)
        of_times = isolation.UNTIMED.keys()
        untimed = {
            kind: {name: fact for name, fact in facts.items() if name not in of_times}
            for kind, facts in timed["artifacts"].items()
        }
        return bool(known == timed | {"artifacts": untimed})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def check() -> int:
    """exit 1 if export/export.json is missing, or of other artifacts; nothing is measured"""
    return 0 if is_timed() else 1


if __name__ == "__main__":
    cli.stage(main, check=check)
