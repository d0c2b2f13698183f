"""Two cold runs in two clones give the same bytes."""

from pathlib import Path

import pytest

from tasks.core.base.files import read_json
from tests import reproduce
from tests.images import write_classes

pytestmark = pytest.mark.slow


def test_two_cold_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """The built-in backbone, converted and fine-tuned in each of two folders that share nothing but images.

    `make reproduce` compares the same with all as shipped: the built-in images, of ten classes, at their
    own size, six epochs and a thousand resamples.
    """
    write_classes(tmp_path / "pictures", count=24)
    projects = [reproduce.clone(tmp_path / "one"), reproduce.clone(tmp_path / "another" / "place")]
    for project in projects:
        images = str(tmp_path / "pictures")
        project.set(data__images=images, image_size="64", epochs="2", bootstrap="100")
    settings = reproduce.SETTINGS[0], reproduce.SETTINGS[1] | reproduce.settings_of_a_user(tmp_path / "home")
    first, second = (
        reproduce.run_cold(project, each) for project, each in zip(projects, settings, strict=True)
    )
    one, another = (project.folder for project in projects)
    assert {"models", "export", "reports/predictions.parquet", "reports/index.html"} <= set(first)
    assert {"reports/metrics.json", "reports/gates.json", "data/dataset"} <= set(first)
    assert len(read_json(one / "export/export.json")["artifacts"]) == 7, "there is something to compare"
    assert first == second
    assert (one / "dvc.lock").read_bytes() == (another / "dvc.lock").read_bytes()
