"""What comes after training: evaluating beside a bare forward pass, and artifacts beside the SavedModel.

Run it after `make run`, on an idle machine: python -m benchmarks.after_training
"""

import dataclasses
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.__main__ import in_turn
from tasks import evaluate, export
from tasks.check import Params
from tasks.core.artifacts import isolation
from tasks.core.backbones import tensorflow_setup
from tasks.core.base import params, paths
from tasks.core.base.files import read_json, write_json
from tasks.core.training import classifier
from tasks.core.training.dataset import Dataset

RESULTS = Path(__file__).with_name("after_training.json").absolute()
ROUNDS = 5
P = params.load(Params)


def evaluating(top: Path) -> dict[str, Any]:
    """Seconds of the stage with the model loaded, robustness apart, and of a pass over the test split."""
    model, _ = classifier.load(paths.MODELS)
    data, predict = Dataset.load(paths.DATASET.absolute()), classifier.predictor(model)
    manifest, labels = paths.MANIFEST.absolute(), Path(P.data.labels).absolute()
    p = dataclasses.replace(P.evaluate, robustness=0)

    def forward() -> None:
        for batch in data.read("test", p.batch_size):
            predict(batch["image"])

    os.chdir(top)  # what it writes is not for keeping
    ours, bare = in_turn(ROUNDS, lambda: evaluate.measure(predict, data, manifest, labels, p), forward)
    return {
        "pictures": data.size("test"),
        "evaluate_s": ours,
        "forward_s": bare,
        "ratio": ours / bare,
        "aim": 2,
    }


def exporting(top: Path) -> dict[str, Any]:
    """Seconds to write and prove all artifacts, and what the files are like beside the SavedModel."""
    temperature = read_json(paths.METRICS)["calibration"]["temperature"]
    start = time.perf_counter()
    folders = (paths.MODELS, paths.DATASET, Path(P.data.images), top)
    facts = export.export(*folders, P.export, temperature)["artifacts"]
    seconds = time.perf_counter() - start
    shipped = {kind: fact["file"] for kind, fact in facts.items() if fact["passed"]}
    times = isolation.time_artifacts(top, shipped)
    size = facts["tflite"]["bytes"]
    artifacts = {
        kind: {"agreement": fact["agreement"], "latency_ratio": times.get(kind, {}).get("latency_ratio")}
        | {"of_the_float_tflite": round(fact["bytes"] / size, 3)}
        for kind, fact in facts.items()
    }
    return {"seconds": seconds, "aim_s": 90, "artifacts": artifacts}


def main() -> None:
    tensorflow_setup.deterministic(0)
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        exported = exporting(Path(one))
        measured = evaluating(Path(other))
        os.chdir(home)
    write_json(RESULTS, {"cores": os.cpu_count(), "evaluating": measured, "exporting": exported})
    print(f"evaluating | bare forward pass: {measured['ratio']:.2f} (aim: at most 2)")
    print(f"all artifacts written and proved: {exported['seconds']:.0f} s (aim: under 90)")
    for kind, fact in exported["artifacts"].items():
        print(f"{kind:16}" + "  ".join(f"{name} {value}" for name, value in fact.items()))


if __name__ == "__main__":
    main()
