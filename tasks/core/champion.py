"""The model in use, which a new one is compared with."""

from __future__ import annotations

import re
from io import BytesIO

import pandas as pd

from tasks.core.errors import DarkroomError, ParamError, brief
from tasks.core.paths import PREDICTIONS


def predictions(revision: str) -> pd.DataFrame:
    """Reads the table of predictions that DVC keeps of a git revision, from its cache or else its remote.

    Args:
        revision: a tag or a commit. What a branch names moves, and DVC wouldn't see that it did.

    Raises:
        ParamError: git knows no such revision, or it holds no predictions.
        DarkroomError: they are neither in DVC's cache nor in a remote.
    """
    from dvc.api import DVCFileSystem  # half a second
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError, resolve_rev

    name = str(PREDICTIONS)
    try:
        with Repo(".") as repo:
            if not (repo.scm.get_ref(f"refs/tags/{revision}") or re.fullmatch("[0-9a-f]{7,40}", revision)):
                raise ParamError(
                    f"gate.champion is {revision!r}, which is no tag and no commit; all else moves, "
                    "and DVC wouldn't see that it did (`git fetch --tags` brings the tags of a remote)"
                )
            files = DVCFileSystem(".", rev=resolve_rev(repo.scm, revision))
        if not files.isfile(name):
            raise ParamError(
                f"gate.champion is {revision!r}, where dvc.lock names no {name}; give a commit that holds "
                "the dvc.lock of a whole run"
            )
        with files.open(name, "rb") as file:
            return pd.read_parquet(BytesIO(file.read()))
    except SCMError:
        raise ParamError(
            f"gate.champion is {revision!r}, which git doesn't know; give a tag or a commit, or none "
            "(`git fetch --tags` brings those of a remote)"
        ) from None
    except (FileNotFoundError, DvcException) as error:
        raise DarkroomError(
            f"gate.champion is {revision!r}, whose {name} can't be had ({brief(error)}); take a commit that "
            "holds the dvc.lock of a whole run, `dvc push` where it was made, or set gate.champion to none"
        ) from None
