"""The model in use, which a new one is compared with."""

import pandas as pd

from tasks.core.base.errors import DataError, ParamError, Unreachable
from tasks.core.base.paths import PREDICTIONS
from tasks.core.release import git
from tasks.core.release.revision import Revision


def predictions(name: str) -> pd.DataFrame:
    """Reads the table of predictions that DVC keeps of a git revision, from its cache or else its remote.

    Args:
        name: a tag or a commit. What a branch names moves, and DVC wouldn't see that it did.

    Raises:
        ParamError: git knows no such revision, or it holds no predictions.
        DataError: they are neither in DVC's cache nor in a remote, or were altered there.
        Unreachable: the remote can't be asked.
    """
    key = f"gate.champion is {name!r}"
    try:
        revision = Revision(name)
    except DataError:
        raise ParamError(
            f"{key}, which git doesn't know; give a tag or a commit, or none "
            f"(`{git.FETCH_TAGS}` brings those of the remote)"
        ) from None
    if not revision.stays:
        raise ParamError(
            f"{key}, which is no tag and no commit; all else moves, and DVC wouldn't see that it did"
        )
    try:
        if revision.holds(PREDICTIONS):
            return revision.parquet(PREDICTIONS)
    except (DataError, Unreachable) as error:
        raise type(error)(f"{key}: {error}, or set gate.champion to none") from None
    raise ParamError(
        f"{key}, where dvc.lock names no {PREDICTIONS}; give a commit that holds the dvc.lock of a whole run"
    )
