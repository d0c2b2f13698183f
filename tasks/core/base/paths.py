"""Every file that passes between stages, relative to the repository's root.

They stand in `dvc.yaml` too, which can't read Python; a test holds the two against each other.
"""

import hashlib
import os
from pathlib import Path

DIGITS = Path("data/digits")
MANIFEST = Path("data/manifest.parquet")
DATASET = Path("data/dataset")
DATASET_FACTS = "dataset.json"  # in there
MODELS = Path("models")
MODEL_FACTS = "classifier.json"  # in there
TRAIN_LABEL_ERRORS = "label_errors.json"  # in there, of training images
TRAINING = Path("reports/training")
AUGMENTED = "augmented.png"  # in there
VALIDATION = Path("reports/validation.json")
DATA_DOCS = Path("reports/validation")
METRICS = Path("reports/metrics.json")
EVALUATION = Path("reports/evaluation")
PREDICTIONS = Path("reports/predictions.parquet")
LABEL_ERRORS = Path("reports/label_errors.json")
GATES = Path("reports/gates.json")
EXPORT = Path("export")
ARTIFACT_FACTS = "artifacts.json"  # in there
CONTRACT = "classifier.json"  # in there and within artifacts, where `runtimes` has this name too
# All of `artifacts.json`, and this machine's times. DVC doesn't know of it; a checkout leaves another's.
TIMED_ARTIFACTS = EXPORT / "export.json"
PAGE = Path("reports/index.html")


def cache_folder() -> Path:
    """Where everything is kept that can be made again: `DARKROOM_CACHE`, else `.cache`.

    Not the system's temporary folder, TF Hub's default, which is emptied now and then. DVC runs queued
    experiments in copies of the repository inside of it; these share the one cache.
    """
    home, queued, _ = Path.cwd().as_posix().partition("/.dvc/tmp/exps/")
    named = os.environ.get("DARKROOM_CACHE")
    return Path(named).expanduser() if named else Path(home if queued else "") / ".cache"


def hub_cache() -> Path:
    """TF Hub's own cache: `TFHUB_CACHE_DIR`, else a folder in ours."""
    return Path(os.environ.get("TFHUB_CACHE_DIR") or cache_folder() / "tfhub")


def folders_of_others() -> dict[str, str]:
    """Variables of the environment that have TF Hub, Keras and Matplotlib keep their files in our cache.

    The settings that Keras finds in the user's home would change results. Keras 3 imports Matplotlib.
    """
    places = {
        "TFHUB_CACHE_DIR": hub_cache(),
        "KERAS_HOME": cache_folder() / "keras",
        "MPLCONFIGDIR": cache_folder() / "matplotlib",
    }
    return {name: str(place.absolute()) for name, place in places.items()}


def hub_folder(handle: str) -> Path:
    """Where TF Hub's own cache keeps the model of an address."""
    return hub_cache() / hashlib.sha1(handle.encode(), usedforsecurity=False).hexdigest()
