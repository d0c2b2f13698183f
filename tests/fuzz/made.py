"""`python -m tests.fuzz.made FOLDER`: small artifacts, and a backbone, that TensorFlow must make.

A process of its own, since one that has used TensorFlow can't be forked.
"""

import sys
from pathlib import Path

import numpy as np

from tasks.core.artifacts.exporter import Exporter
from tasks.core.backbones.tensorflow_setup import keras, tf
from tasks.core.base import paths
from tasks.core.base.contract import Contract
from tasks.core.base.files import write_text
from tests.backbone import save_tiny_backbone
from tests.fuzz.targets import CONTRACT


def main(folder: Path) -> None:
    side = CONTRACT["image_size"]
    images = keras.Input((side, side, 3))
    features = keras.layers.GlobalAveragePooling2D(name="backbone")(images)
    model = keras.Model(images, keras.layers.Dense(len(CONTRACT["class_names"]), name="head")(features))
    exporter = Exporter(model, Contract.of(CONTRACT), "tiny", np.zeros((1, side, side, 3), np.float32))
    exporter.tflite(folder / "model.tflite")
    exporter.hdf5(folder / "model.h5")
    # One that reads no encoded images, as the graph for these is half a megabyte.
    tf.saved_model.save(model, str(folder / "saved_model"), signatures={"serving_default": exporter.serve})
    write_text(folder / "saved_model/assets.extra" / paths.CONTRACT, exporter.contract.text())
    save_tiny_backbone(folder / "backbone")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
