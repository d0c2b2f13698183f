"""A backbone small enough to train in a test."""

from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

from tasks.core.backbones.tensorflow_setup import keras, tf

FEATURES = 16


def save_tiny_backbone(
    folder: Path, side: int | None = None, *, lively: bool = False, counting: bool = False
) -> None:
    """Saves one convolution as a SavedModel with TF Hub's common image signature, giving 16 features.

    Args:
        side: of the only images that it takes, in pixels; none: any.
        lively: with batch normalization and dropout of its own, which has no seed, as with most of TF Hub's.
        counting: with a count of the images that it was given, as its last variable.
    """
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(FEATURES, 3, 2, activation="relu")(images)
    if lively:
        x = keras.layers.Dropout(0.1)(keras.layers.BatchNormalization(momentum=0.5)(x))
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    seen = tf.Variable(0, dtype=tf.int64, trainable=False, name="seen")

    @tf.function
    def call(inputs: Any, training: bool = False) -> Any:
        if counting:
            seen.assign_add(tf.shape(inputs, tf.int64)[0])
        return model(inputs, training=training)

    for training in (False, True):
        call.get_concrete_function(tf.TensorSpec((None, side, side, 3)), training=training)
    module = tf.train.Checkpoint()
    module.__call__ = call
    module.variables = [*model.variables, seen] if counting else model.variables
    module.trainable_variables = model.trainable_variables
    module.regularization_losses = []
    tf.saved_model.save(module, str(folder))
    _forget_seeds(folder / "saved_model.pb")


def _forget_seeds(file: Path) -> None:
    """What a process gives that has set no seed; one that is deterministic can't."""
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for function in saved.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            if "seed2" in node.attr:
                node.attr["seed"].i = node.attr["seed2"].i = 0
    file.write_bytes(saved.SerializeToString(deterministic=True))


def save_tensorflow_1_backbone(folder: Path) -> None:
    """Saves a mean and a product as TF Hub's format of TensorFlow 1, which can be used but not fine-tuned."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, (None, 32, 32, 3))
        kernel = v1.get_variable("kernel", (3, FEATURES), initializer=v1.glorot_uniform_initializer(seed=1))
        features = tf.matmul(tf.reduce_mean(images, (1, 2)), kernel)
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"images": images}, {"default": features})
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, [], {"default": signature})
        builder.save()
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")  # the format's number
