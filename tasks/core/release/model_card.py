"""A version's model card, and the changelog of all, from the evidence that their tags carry.

The card has the sections of Mitchell et al., Model Cards for Model Reporting (2019), that evidence can fill.
"""

from itertools import pairwise
from typing import Any

from tasks.core.base.paths import MANIFEST
from tasks.core.release import git
from tasks.core.release.evidence import Evidence
from tasks.core.release.git import MODEL
from tasks.core.release.registry import STAGES, Registry, Version
from tasks.core.reporting.markdown import bullets, plain, section, table
from tasks.core.reporting.parameters import changed, shown

DATA = MANIFEST.as_posix()
OFF = "export DVC_NO_ANALYTICS=1 ORT_DISABLE_TELEMETRY=1    # they send telemetry otherwise"


def card(tag: str) -> str:
    """The model card of a version, as Markdown.

    Raises:
        DataError: there is no such version, or it carries no evidence.
    """
    known = Registry.read()
    version = known.find(tag)
    of = Evidence.read(version.tag)
    about, classes = of.about, of.about["classes"]
    made = {
        "version": f"{version.tag}, commit {of.commit[:12]}, {git.date(version.tag)}",
        "backbone": about["backbone"],
        "input": f"{about['image_size']} x {about['image_size']} pixels, {about['resize']}",
        f"{len(classes)} classes": ", ".join(classes),
        "made of": f"{about['pictures']} images, of which {about['tested']} are test images",
        "data": f"SHA-256 {of.digests[DATA]} of the manifest",
    }
    fetch = f"dvc get URL-OF-THE-REPOSITORY export --rev {version.tag} -o {MODEL}"
    parts = [
        f"# {MODEL} {version.name}",
        section("Intended use", plain(about["intended_use"]), 2),
        section("Model", table(("", ""), made.items()), 2),
        section("Metrics", _metrics(of), 2),
        section("Decisions", _decisions(version, known), 2),
        section("Artifacts", _artifacts(of), 2),
        section("Getting it", f"```sh\n{OFF}\n{fetch}\n```\n\n`golden/README.md` says how to try it.", 2),
    ]
    return "\n\n".join(parts) + "\n"


def _metrics(of: Evidence) -> str:
    """Of all test images, with their 95 % intervals."""
    intervals = of.metrics["interval_95"].items()
    rows = ((name, of.metrics[name], f"{low:.6g} to {high:.6g}") for name, (low, high) in intervals)
    found = table(("metric", "value", "95 % interval"), rows)
    if not of.calibrated:
        return found
    calibrated = ", ".join(f"{name} {value:.6g}" for name, value in of.calibrated.items())
    return f"{found}\n\nThese are of the network; its artifacts are calibrated, and have {calibrated}."


def _decisions(version: Version, known: Registry) -> str:
    """How it came into each stage, and what it was compared with there."""
    parts = []
    for one in known.of(version):
        evidence = Evidence.of(one.tag)
        text = _decision(evidence) if evidence else "By hand, without evidence."
        parts.append(section(f"{one.what}, {git.date(one.tag)}", text))
    return "\n\n".join(parts) or "It has been in no stage."


def _decision(of: Evidence) -> str:
    lines = bullets([of.verdict, *of.notes, *(f"{gate['verdict']}: {gate['why']}" for gate in of.gates)])
    if not of.compared:
        return lines
    candidate, champion = (of.compared[side] for side in ("challenger", "champion"))
    rows = ((name, value, champion[name]) for name, value in candidate.items())
    return lines + "\n\n" + table(("metric", "this one", str(of.champion)), rows)


def _artifacts(of: Evidence) -> str:
    rows = ((file, f"{of.probe[file]['latency_ms']:.2f} ms", digest) for file, digest in of.artifacts.items())
    return table(("file", "an image took", "SHA-256"), rows)


def changelog() -> str:
    """What each version has changed, the last first, and the stages that it was put into."""
    known = Registry.read()
    pairs = pairwise((None, *known.versions))
    parts = [_entry(version, before, known) for before, version in pairs if version]
    now = bullets(f"{stage}: {one.name}" for stage in STAGES if (one := known.champion(stage)))
    return "\n\n".join([f"# Changelog of {MODEL}", *([now] if now else []), *reversed(parts)]) + "\n"


def _entry(version: Version, before: Version | None, known: Registry) -> str:
    now, then = Evidence.of(version.tag), Evidence.of(before.tag) if before else None
    lines = [_accuracy(now, then) if now else "made by hand, without evidence"]
    if now and then:
        unset = ("classes", "pictures", "tested")  # what parameters don't say
        lines += _changes(*({name: one.about[name] for name in unset} for one in (then, now)))
    if before:
        lines += _changes(*(git.parameters(one.commit) for one in (before, version)))
    if now and then and now.digests[DATA] != then.digests[DATA]:
        lines.append("another manifest: other images or labels, or other columns")
    for one in known.of(version):
        evidence = Evidence.of(one.tag)
        lines.append(f"{git.date(one.tag)}: {evidence.verdict if evidence else f'{one.what}, by hand'}")
    return section(f"{version.name}, {git.date(version.tag)}", bullets(lines), 2)


def _accuracy(now: Evidence, then: Evidence | None) -> str:
    text = f"accuracy {now.metrics['accuracy']:.4f} on {now.about['tested']} test images"
    return text + (f", after {then.metrics['accuracy']:.4f} on {then.about['tested']}" if then else "")


def _changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [f"{name}: {before} → {after}" for name, before, after in changed(shown(then), shown(now))]
