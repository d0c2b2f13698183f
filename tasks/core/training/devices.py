"""What trains: which devices, in what precision, with which compiler. Chosen here, reported in one line."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tasks.core.backbones.tensorflow_setup import keras, tf
from tasks.core.base import console
from tasks.core.base.errors import ParamError
from tasks.core.training import config

Precision = Literal["float32", "float16", "bfloat16"]

# A SavedModel's types are fixed when it is saved, so that Keras' policies don't reach a backbone. The graph
# optimizer does: it turns convolutions and products to the short type and keeps sums and norms in float32.
REWRITES = {"float16": "auto_mixed_precision", "bfloat16": "auto_mixed_precision_onednn_bfloat16"}
TENSOR_CORES = (7, 0)  # the compute capability from which on a GPU multiplies float16 in units of their own
CPU_FACTS = Path("/proc/cpuinfo")  # Linux alone has it


@dataclass(frozen=True)
class Hardware:
    """Where and how a model trains."""

    strategy: Any  # tf.distribute.Strategy
    precision: Precision
    jit: bool
    devices: str
    deterministic: bool

    @property
    def replicas(self) -> int:
        """Devices that share each batch."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes; of several workers one is."""
        cluster = self.strategy.cluster_resolver
        if cluster is None or not cluster.task_type:
            return True
        alone = "chief" not in cluster.cluster_spec().as_dict()
        return cluster.task_type == "chief" or (
            alone and (cluster.task_type, cluster.task_id) == ("worker", 0)
        )

    def line(self) -> str:
        shared = "" if self.replicas == 1 else f", {self.replicas} replicas ({type(self.strategy).__name__})"
        return f"{self.devices}{shared}, {self.precision}{', XLA' if self.jit else ''}"

    def everywhere(self, number: int) -> set[int]:
        """What each of the workers has for this number."""
        each = self.strategy.run(lambda: tf.constant([number]))
        return set(self.strategy.gather(each, 0).numpy().tolist())

    def mean(self, weights: list[np.ndarray]) -> list[np.ndarray]:
        """Of what the workers have for these."""

        def one(array: np.ndarray) -> np.ndarray:
            each = self.strategy.run(lambda: tf.constant(array))
            return np.asarray(self.strategy.reduce("MEAN", each, axis=None))

        return [one(array) for array in weights]

    def optimizer(self, inner: Any) -> Any:
        """Keeps float16's gradients from vanishing by scaling the loss; elsewhere the optimizer itself."""
        return keras.mixed_precision.LossScaleOptimizer(inner) if self.precision == "float16" else inner


def variables(optimizer: Any) -> list[Any]:
    """All that an optimizer remembers. Keras leaves the scale of a loss out of its own list."""
    scale = getattr(optimizer, "_loss_scale", None)
    return [*optimizer.variables, *([scale.current_loss_scale, scale.counter] if scale else [])]


def choose_devices(
    strategy: config.Strategy,
    precision: config.Precision,
    jit: bool | Literal["auto"],
    *,
    deterministic: bool,
) -> Hardware:
    """Chooses what is left to choose by what is there, and prepares TensorFlow for it.

    It must come before anything is computed: a cluster of workers can't be joined later.

    Args:
        deterministic: the same bits for the same work on the same kind of device.

    Raises:
        ParamError: what is asked for is not there, or doesn't go together.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    chosen = _strategy(strategy, len(gpus))
    short = _precision(precision, gpus)
    compiled = (bool(gpus) and short == "float32") if jit == "auto" else jit
    if compiled and short != "float32":
        raise ParamError(
            f"compute.jit is true and compute.precision is {short}; what XLA compiles stays in float32: "
            "turn one of the two off"
        )
    if short != "float32":
        tf.config.optimizer.set_experimental_options({REWRITES[short]: True})
    several = isinstance(chosen, (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy))
    return Hardware(chosen, short, compiled, _devices(gpus if several else gpus[:1]), deterministic)


def _strategy(name: config.Strategy, gpus: int) -> Any:
    cluster = _cluster()
    if name == "auto":
        name = "multi_worker" if cluster else "mirrored" if gpus > 1 else "one"
    if name == "multi_worker":
        if not cluster:
            raise ParamError(
                "compute.strategy is multi_worker, but TF_CONFIG names no cluster; set it in the environment "
                "of each worker"
            )
        console.say("train: waits for all workers that TF_CONFIG names")
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "mirrored":
        kind = "GPU" if gpus else "CPU"
        return tf.distribute.MirroredStrategy(
            [device.name for device in tf.config.list_logical_devices(kind)]
        )
    return tf.distribute.get_strategy()


def _cluster() -> Any:
    """The cluster of `TF_CONFIG`, TensorFlow's own way to tell a worker of the others; none if not set."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        return json.loads(text or "{}").get("cluster")
    except (ValueError, AttributeError):
        raise ParamError(
            f"TF_CONFIG is {text[:80]!r}; it must be JSON with `cluster` and `task`, or not be set"
        ) from None


def _precision(name: config.Precision, gpus: list[Any]) -> Precision:
    if name == ("bfloat16" if gpus else "float16"):  # which would be left as float32 without a word
        device, other = ("GPU", "float16") if gpus else ("CPU", "bfloat16")
        raise ParamError(
            f"compute.precision is {name}, which TensorFlow turns no graph into on a {device}; "
            f"give auto, float32 or {other}"
        )
    if name != "auto":
        return name
    if gpus:
        return "float16" if all(_capability(gpu) >= TENSOR_CORES for gpu in gpus) else "float32"
    return "bfloat16" if _has_bfloat16_units() else "float32"


def _capability(gpu: Any) -> tuple[int, int]:
    found = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
    return (int(found[0]), int(found[1]))


def _has_bfloat16_units() -> bool:
    """Whether this CPU multiplies bfloat16 in units of their own (Intel's AMX); elsewhere it is slower."""
    try:
        return "amx_bf16" in CPU_FACTS.read_text("utf-8")
    except OSError:
        return False


def _devices(gpus: list[Any]) -> str:
    if not gpus:
        return f"{os.cpu_count()} CPU cores"
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
