"""What speaks for a version: the message of its tag, for people first and then, as JSON, for programs."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from tasks.core.base.errors import DataError
from tasks.core.release import git, registry

HEADLINES = ("accuracy", "macro_f1", "log_loss", "ece")
FORMAT = 3  # goes up when a field comes or changes; a new field has a default, for the tags that are there


@dataclass(frozen=True)
class Evidence:
    """A version's, or that of its way into a stage.

    about: what kind of model it is: `classes`, `image_size`, `resize`, `backbone`, `intended_use`, and how
        many `pictures` it was made of and `tested` on.
    digests: SHA-256 by path, of data, parameters, metrics, predictions, gates.
    artifacts: SHA-256 by file; of a folder, of the names and digests of all that is in it.
    probe: by file, what `probe.probe` gives.
    metrics: of the test split, as in `metrics.json`.
    calibrated: log loss and calibration error that the artifacts have there, if they are calibrated.
    champion: the version that it was compared with; none at the first promotion, or where that wasn't wanted.
    compared: of both, by `challenger` and `champion`, the metrics on the same images, which are `n`.
    gates: as in `gates.json`, judged against that champion.
    notes: what one must know to read it.
    rollback: whether this way into a stage puts an earlier version back.
    format: of this list.
    """

    version: str
    commit: str
    verdict: str
    about: dict[str, Any]
    digests: dict[str, str]
    artifacts: dict[str, str]
    probe: dict[str, dict[str, Any]]
    metrics: dict[str, Any]
    champion: str | None = None
    compared: dict[str, dict[str, float]] | None = None
    gates: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    calibrated: dict[str, float] | None = None
    rollback: bool = False
    format: int = FORMAT

    def message(self, headline: str) -> str:
        """The message of a tag."""
        lines = [headline, "", *self.lines(), "", json.dumps(asdict(self), indent=1, ensure_ascii=False)]
        return "\n".join(lines) + "\n"

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        lines = [self.verdict]
        for name in HEADLINES:
            line = f"{name} {self.metrics[name]:.4f}"
            if self.calibrated and name in self.calibrated:
                line += f", calibrated as the artifacts are {self.calibrated[name]:.4f}"
            if self.compared:
                candidate, champion = (self.compared[side][name] for side in ("challenger", "champion"))
                line += f"; on the same images {candidate:.4f}, and {champion:.4f} of {self.champion}"
            lines.append(line)
        return lines + self.notes + [f"{gate['verdict']}: {gate['why']}" for gate in self.gates]

    @classmethod
    def of(cls, tag: str) -> Self | None:
        """Reads what a tag carries; none if it was made by hand.

        Raises:
            DataError: a later version of this project has made it.
        """
        return cls.from_facts(registry.facts(git.message(tag)), tag)

    @classmethod
    def from_facts(cls, facts: dict[str, Any], tag: str) -> Self | None:
        """What `of` does with the facts of a tag's message."""
        try:
            if facts["format"] <= FORMAT:
                found = cls(**facts)
                found.lines()  # which those that were altered by hand may not have
                return found
        except (TypeError, ValueError, LookupError, AttributeError):
            return None
        raise DataError(f"{tag} carries evidence of a later version of this project; `git pull` it")

    @classmethod
    def read(cls, tag: str) -> Self:
        """Reads what a tag carries.

        Raises:
            DataError: it carries none that can be read.
        """
        if found := cls.of(tag):
            return found
        raise DataError(
            f"{tag} was made by hand and carries no evidence, so there is nothing to look at; "
            "versions that `python -m flows.promote` makes carry some"
        )
