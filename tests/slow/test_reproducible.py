"""Two cold runs in two clones give the same bytes."""

from pathlib import Path

import pytest

from tasks.core.base.files import read_json
from tests import reproduce
from tests.images import write_classes

pytestmark = pytest.mark.slow


def test_two_cold_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """The built-in backbone, converted and fine-tuned in each of two folders that share nothing but images.

    `make reproduce` compares the same files as they are as shipped: the built-in images, of ten classes, at
    their own size, six epochs, all seven formats and a thousand resamples.
    """
    write_classes(tmp_path / "pictures", count=24)
    small = {
        "data__images": str(tmp_path / "pictures"),
        "image_size": "64",
        "epochs": "2",
        "bootstrap": "100",
        "formats": "[saved_model, h5, tflite_int8, onnx]",
    }
    folders = [tmp_path / "one", tmp_path / "another" / "place"]
    first, second = (
        reproduce.run_cold(folder, settings, **small)
        for folder, settings in zip(folders, reproduce.SETTINGS, strict=True)
    )
    assert {"models", "export", "reports/predictions.parquet", "reports/index.html"} <= set(first)
    assert {"reports/metrics.json", "reports/gates.json", "data/dataset"} <= set(first)
    assert len(read_json(folders[0] / "export/export.json")["artifacts"]) == 4, (
        "there is something to compare"
    )
    assert first == second
    assert (folders[0] / "dvc.lock").read_bytes() == (folders[1] / "dvc.lock").read_bytes()
