"""What a commit ships: the artifacts of a model whose gates have all passed, and what is said of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tasks.core.artifacts.formats import FORMATS, Format
from tasks.core.base import params, paths
from tasks.core.base.errors import DataError, Rejected
from tasks.core.base.files import remove, sha256
from tasks.core.base.paths import EXPORT, GATES, MANIFEST, METRICS, PREDICTIONS
from tasks.core.data.manifest import readable
from tasks.core.evaluation.rejection import left_out, rejection_reasons
from tasks.core.release import git
from tasks.core.release.revision import Revision

ARTIFACTS, CONTRACT, GOLDEN = EXPORT / paths.ARTIFACT_FACTS, EXPORT / paths.CONTRACT, EXPORT / "golden"
LOCK = Path("dvc.lock")
PROVEN = (LOCK, params.FILE, MANIFEST, METRICS, PREDICTIONS, GATES, ARTIFACTS)


@dataclass(frozen=True)
class Shipped:
    """A revision and the artifacts that passed, by their formats, as `artifacts.json` has them.

    left_out: a sentence for each that did not, and was not required.
    """

    revision: Revision
    artifacts: dict[Format, dict[str, Any]]
    left_out: list[str]

    @classmethod
    def of(cls, revision: Revision) -> Self:
        """What a revision has, whether or not its gates have passed."""
        artifacts = revision.json(ARTIFACTS)["artifacts"]
        passed = {kind: fact for kind, fact in artifacts.items() if fact["passed"]}
        return cls(revision, passed, left_out(artifacts))

    @classmethod
    def gated(cls, revision: Revision) -> Self:
        """What a revision has, if its gates have all passed.

        Raises:
            Rejected: they have not, or no artifact passed.
            DataError: the artifacts can't be had.
        """
        gates, shipped = revision.json(GATES)["gates"], cls.of(revision)
        found = rejection_reasons(gates, revision.json(ARTIFACTS)["artifacts"])
        if found or not shipped.artifacts:
            raise Rejected(f"{revision.name} was rejected: {'; '.join(found) or 'it has no artifact'}")
        return shipped

    def digests(self) -> dict[str, str]:
        """SHA-256 of the artifacts, by file."""
        return {fact["file"]: fact["sha256"] for fact in self.artifacts.values()}

    def fetch(self, folder: Path) -> None:
        """Writes all that users get below a folder, and compares it with its digests.

        Raises:
            DataError: something can't be had, or is not what was verified.
        """
        self.revision.fetch(EXPORT, folder)
        for fact in self.artifacts.values():
            self._check(folder, fact)

    def fetch_artifact(self, fact: dict[str, Any], folder: Path) -> Path:
        """Writes one artifact below a folder, unless it is there; returns where it is.

        Raises:
            DataError: it can't be had, or is not what was verified.
        """
        place: Path = folder / EXPORT / fact["file"]
        if not place.exists() or sha256(place) != fact["sha256"]:
            remove(place)
            self.revision.fetch(EXPORT / fact["file"], folder)
            self._check(folder, fact)
        return place

    def _check(self, folder: Path, fact: dict[str, Any]) -> None:
        file = EXPORT / fact["file"]
        if sha256(folder / file) != fact["sha256"]:
            raise DataError(
                f"{file} of {self.revision.name} is not the one that was verified; run `dvc repro`"
            )

    def quickest(self) -> dict[str, Any]:
        """The artifact that answers soonest, an exact one if there is one.

        Raises:
            DataError: there is none of a format that is known.
        """
        found = next((kind for kind in FORMATS if kind in self.artifacts), None)
        if not found:
            raise DataError(f"it has {', '.join(self.artifacts) or 'no artifact'}, no format that is known")
        return self.artifacts[found]


def about(revision: Revision) -> dict[str, Any]:
    """What kind of model a revision has, as `Evidence` holds it."""
    contract, values = revision.json(CONTRACT), git.parameters(revision.commit)
    return {
        "classes": contract["class_names"],
        "image_size": contract["image_size"],
        "resize": contract["resize"],
        "backbone": values["model"]["backbone"],
        "intended_use": values["report"]["intended_use"],
        "pictures": len(readable(revision.parquet(MANIFEST))),
        "tested": len(revision.parquet(PREDICTIONS)),
    }


def calibrated(revision: Revision) -> dict[str, float] | None:
    """Log loss and calibration error of the test images by artifacts that are calibrated, if these are."""
    if not git.parameters(revision.commit)["export"]["calibrate"]:
        return None
    found: dict[str, float] = revision.json(METRICS)["calibration"]["after"]
    return found


def digests(revision: Revision) -> dict[str, str]:
    """SHA-256 of everything that speaks for a revision, by path."""
    return {path.as_posix(): revision.digest(path) for path in PROVEN}
