"""The model that scores images: an artifact that is here, or that of the version in a stage."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.core.base.errors import DataError
from tasks.core.base.paths import EXPORT, cache_folder
from tasks.core.data.parquet import read_parquet
from tasks.core.release import git, registry
from tasks.core.release.registry import Registry
from tasks.core.release.revision import Revision
from tasks.core.release.shipped import Shipped


@dataclass(frozen=True)
class Model:
    """An artifact, and the commit of the version that it is of; none: it is of this working copy."""

    artifact: Path
    revision: Revision | None = None

    @property
    def version(self) -> str:
        return self.revision.name if self.revision else ""

    @property
    def name(self) -> str:
        return f"{self.version} ({self.artifact.name})" if self.version else str(self.artifact)

    def table(self, path: Path) -> pd.DataFrame:
        """Reads a table as it was when the model was made.

        Raises:
            FileNotFoundError, DataError: it isn't there.
        """
        return self.revision.parquet(path) if self.revision else read_parquet(path)

    def images(self, now: Path) -> Path:
        """The folder that the paths of the model's manifest are from; in this working copy it is `now`."""
        if not self.revision:
            return now
        return Path(git.parameters(self.revision.commit)["data"]["images"])


def resolve_model(name: str, warn: Callable[[str], object]) -> Model:
    """Gives the model that a name stands for: a stage, or a path.

    The tags of git's remote are fetched first, so that it is what others have promoted, and the version's
    artifact from DVC's cache or remote, its quickest one. A file with the name of a stage is `./production`.

    Args:
        warn: gets what hinders the first; what is known here is then good enough.

    Raises:
        DataError: nothing is in the stage, or its artifact can't be had.
    """
    if name not in registry.STAGES:
        if not Path(name).exists():
            raise DataError(
                f"{name} is not there, and is none of {', '.join(registry.STAGES)}; `make run` makes "
                f"{EXPORT}/, unless a gate says no, and `dvc pull {EXPORT}` brings what is committed"
            )
        return Model(Path(name))
    git.check_place()
    if why := git.fetch():
        warn(f"{why}; what is in {name} may be another version by now")
    champion = Registry.read().champion(name)
    if not champion:
        raise DataError(f"nothing is in {name}: `python -m flows.promote --to {name}`, or name an artifact")
    revision = Revision(champion.tag)
    try:
        shipped = Shipped.of(revision)
        file = shipped.fetch_artifact(shipped.quickest(), cache_folder() / "deployed" / name)
    except DataError as error:
        raise DataError(f"{champion.tag}, which is in {name}, can't be asked: {error}") from None
    return Model(file, revision)
