"""TensorFlow as this project wants it: quiet, seeded, deterministic.

Import `tf`, `keras` and `hub` from here and nowhere else: what must be set before TensorFlow
is loaded is set here.
"""

import atexit
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from tasks.core.base.console import quiet
from tasks.core.base.paths import folders_of_others

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TF Hub layers are written for Keras 2, that is tf-keras
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its errors are raised as exceptions too
# What would change results. TensorFlow advises to set the first, and ends the process at an unknown XLA flag.
NOT_HEEDED = (
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_SET_ONEDNN_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "TF_XLA_FLAGS",
)
for told in NOT_HEEDED:
    os.environ.pop(told, None)
os.environ.update(folders_of_others())

with quiet():
    import tensorflow as tf
    import tensorflow_hub as hub
    import tf_keras as keras

    for gpu in tf.config.list_physical_devices("GPU"):  # leave to others what isn't needed
        tf.config.experimental.set_memory_growth(gpu, True)

logging.getLogger("tensorflow").setLevel(logging.ERROR)
tf.get_logger().setLevel(logging.ERROR)

AUTOTUNE = tf.data.AUTOTUNE
Function = TypeVar("Function", bound=Callable[..., Any])


def deterministic(seed: int) -> None:
    """Makes this process give the same bits for the same work on the same kind of CPU."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def unconverted(function: Function) -> Function:
    """Has AutoGraph leave a function alone, and all that it calls; for what branches on no tensor.

    It would write them anew, TF Hub's layer among them, which takes up to half of a short stage.
    """
    return cast(Function, tf.autograph.experimental.do_not_convert(function))


def without_autotune(stream: Any) -> Any:
    """A `tf.data.Dataset` that ends at once.

    tf.data's tuner may hold the end of one up until its own thread wakes, and that sleeps for twice as long
    each time: 10 ms at first, a minute at last. Without it, what may run side by side does so on every core.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return stream.with_options(options)


@contextmanager
def without_keras_3() -> Iterator[None]:
    """Has TF Hub load a model without Keras 3, which it imports for a name that only Keras 2 has had.

    It goes on without it in either case; the import takes as long as a third of TensorFlow's.
    """
    was_there = "keras" in sys.modules
    if not was_there:
        sys.modules["keras"] = cast(Any, None)  # so that the import fails
    try:
        yield
    finally:
        if not was_there:
            del sys.modules["keras"]


@atexit.register
def _remove_bytecode() -> None:
    """AutoGraph removes what it has written to the temporary folder; the bytecode of that it leaves there."""
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file") and module.__file__:
            file = Path(importlib.util.cache_from_source(module.__file__))
            file.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: another process's are there too
                file.parent.rmdir()


def verbosity() -> int:
    """Keras' own progress bar on a terminal, a line an epoch elsewhere."""
    return 1 if sys.stdout.isatty() else 2


__all__ = [
    "AUTOTUNE",
    "deterministic",
    "hub",
    "keras",
    "tf",
    "unconverted",
    "verbosity",
    "without_autotune",
    "without_keras_3",
]
