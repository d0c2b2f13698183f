"""Every file that passes between stages, relative to the repository's root.

They stand in `dvc.yaml` too, which can't read Python; a test holds the two against each other.
"""

from __future__ import annotations

from pathlib import Path

DIGITS = Path("data/digits")
MANIFEST = Path("data/manifest.parquet")
DATASET = Path("data/dataset")
MODELS = Path("models")
TRAINING = Path("reports/training")
VALIDATION = Path("reports/validation.json")
DATA_DOCS = Path("reports/validation")
METRICS = Path("reports/metrics.json")
PREDICTIONS = Path("reports/predictions.parquet")
GATES = Path("reports/gates.json")
EXPORT = Path("export")
PAGE = Path("reports/index.html")
