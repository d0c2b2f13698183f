"""One place decides what trains, and says what doesn't go together."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.backbones.tensorflow_setup import keras, tf
from tasks.core.base.errors import ParamError
from tasks.core.training import devices
from tasks.core.training.devices import Hardware, choose_devices, variables
from tests.structure import ROOT
from tests.tiny import Tiny


def chosen(**changes: Any) -> Hardware:
    settings: dict[str, Any] = {"strategy": "auto", "precision": "auto", "jit": "auto", "deterministic": True}
    return choose_devices(**settings | changes)


def test_a_cpu_trains_alone_in_float32_without_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs XLA took a hundred times as long for depthwise convolutions."""
    monkeypatch.setattr(devices, "_has_bfloat16_units", lambda: False)
    here = chosen()
    assert (here.replicas, here.precision, here.jit, here.chief) == (1, "float32", False, True)
    assert here.line().endswith(" CPU cores, float32")


FEATURES = """import hashlib
from tasks.core.backbones.layer import backbone_layer, extractor
from tasks.core.backbones.tensorflow_setup import tf
images = tf.cast(tf.reshape(tf.range(2 * 96 * 96 * 3) % 256, (2, 96, 96, 3)), tf.uint8)
features = extractor(backbone_layer("efficientnet_lite0", trainable=False))(images)
print(hashlib.sha256(features.numpy().tobytes()).hexdigest())"""


def test_what_a_user_tells_tensorflow_changes_nothing() -> None:
    """An unknown flag ends a process from within TensorFlow, without a word; other kernels round anew."""
    told: dict[str, str] = {"TF_XLA_FLAGS": "--nonsense", "TF_ENABLE_ONEDNN_OPTS": "0"}
    found = {
        subprocess.run(
            [sys.executable, "-c", FEATURES],
            check=True,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | more,
        ).stdout
        for more in ({}, told)
    }
    assert len(found) == 1


def test_a_cpu_made_for_bfloat16_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_has_bfloat16_units", lambda: True)
    monkeypatch.setattr(tf.config.optimizer, "set_experimental_options", lambda _: None)
    assert chosen().precision == "bfloat16"


@pytest.mark.parametrize(
    ("facts", "has"), [("flags : fpu amx_bf16 amx_tile", True), ("flags : fpu", False), (None, False)]
)
def test_a_cpu_is_asked_for_its_units(
    facts: str | None, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is nobody to ask, as on macOS, it has none."""
    monkeypatch.setattr(devices, "CPU_FACTS", tmp_path / "cpuinfo")
    if facts:
        (tmp_path / "cpuinfo").write_text(facts)
    assert devices._has_bfloat16_units() is has


@pytest.mark.parametrize(("capability", "precision"), [((8, 0), "float16"), ((6, 1), "float32")])
def test_a_gpu_trains_in_what_it_is_made_for(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    """Seen here without a GPU: what TensorFlow would say of one is put in its place."""
    details = {"compute_capability": capability, "device_name": "a GPU"}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["GPU:0"])
    monkeypatch.setattr(tf.config.optimizer, "set_experimental_options", lambda _: None)
    here = chosen()
    assert (here.precision, here.jit) == (precision, precision == "float32")
    assert here.line() == f"1 a GPU, {precision}" + (", XLA" if here.jit else "")


def test_float16_scales_its_loss_and_others_do_not() -> None:
    inner = keras.optimizers.SGD(0.1)
    strategy = tf.distribute.get_strategy()
    scaled = Hardware(strategy, "float16", False, "", True).optimizer(inner)
    assert isinstance(scaled, keras.mixed_precision.LossScaleOptimizer)
    assert Hardware(strategy, "bfloat16", False, "", True).optimizer(inner) is inner


def test_what_is_remembered_of_float16_is_the_scale_of_its_loss_too() -> None:
    """Keras leaves it out of the optimizer's variables: a resumed training would begin with another."""
    first, second = (chosen_float16(keras.optimizers.SGD(0.1, momentum=0.9)) for _ in range(2))
    weights = [tf.Variable([1.0])]
    for optimizer in (first, second):
        optimizer.build(weights)
    first.apply_gradients([(tf.constant([np.inf]), weights[0])])  # too large, so that it is halved
    assert first.loss_scale != second.loss_scale
    for to, of in zip(variables(second), variables(first), strict=True):
        to.assign(of)
    assert first.loss_scale == second.loss_scale


def chosen_float16(inner: Any) -> Any:
    return Hardware(tf.distribute.get_strategy(), "float16", False, "", True).optimizer(inner)


def test_one_worker_agrees_with_itself() -> None:
    """Two, which differ: tests/training/test_distributed.py."""
    arrays = [np.array([0.1, 1 / 3], np.float32), np.zeros((2, 2), np.float32)]
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0"])):
        mean = Hardware(strategy, "float32", False, "", True).mean(arrays)
        assert all(np.array_equal(a, b) for a, b in zip(mean, arrays, strict=True))


def test_xla_and_a_short_type_do_not_go_together() -> None:
    with pytest.raises(ParamError, match=r"compute\.jit is true and compute\.precision is bfloat16"):
        chosen(precision="bfloat16", jit=True)


def test_a_type_that_the_device_would_leave_aside_is_refused() -> None:
    """The line of the log would say float16, and float32 would be trained in."""
    with pytest.raises(ParamError, match=r"compute\.precision is float16, .* on a CPU"):
        chosen(precision="float16")


@pytest.mark.parametrize("text", ["{", "[]", "7"])
def test_a_cluster_that_can_not_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ParamError, match=r"TF_CONFIG is .*must be JSON") as caught:
        chosen()
    assert "\n" not in str(caught.value)


def test_several_workers_need_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps({}))
    with pytest.raises(
        ParamError, match=r"compute\.strategy is multi_worker, but TF_CONFIG names no cluster"
    ):
        chosen(strategy="multi_worker")


@pytest.mark.slow
def test_what_xla_compiles_learns_the_same(tiny: Tiny, tmp_path: Any) -> None:
    plain, compiled = (
        tiny.train(tmp_path / str(jit), hardware=chosen(precision="float32", jit=jit), epochs=1)
        for jit in (False, True)
    )
    assert compiled["val_loss"] == pytest.approx(plain["val_loss"], abs=1e-4)
