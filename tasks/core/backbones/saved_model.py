"""What a SavedModel says of itself, read from its file without loading its graph."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from google.protobuf.message import DecodeError

import tasks.core.backbones.tensorflow_setup  # noqa: F401 (before what imports TensorFlow bare)
from tasks.core.backbones.catalogue import SAVED_MODEL
from tasks.core.base.presence import tell_pointer


@dataclass(frozen=True)
class Declared:
    """What a feature vector takes and gives, as far as it says so."""

    image_size: int | None  # side in pixels of the only squares it takes
    features: int | None
    is_stochastic: bool  # whether it may draw random numbers in training, as for a dropout of its own
    has_endpoints: bool  # whether it gives what its inner layers say, too, when asked to `return_endpoints`


def inspect(folder: Path) -> Declared:
    """Reads the shapes of what is called when the model is: its `__call__`, else its signature.

    Raises:
        ValueError: there is no SavedModel in this folder.
    """
    graph = _read(folder).meta_graphs[0]
    functions = _called(graph.object_graph_def)
    inputs, outputs = _shapes_of_all(functions) if functions else _signature(graph.signature_def)
    sides = {tuple(dim.size for dim in shape.dim[1:3]) for shape in inputs if len(shape.dim) == 4}
    lengths = {shape.dim[1].size for shape in outputs if len(shape.dim) == 2}
    height, width = sides.pop() if len(sides) == 1 else (-1, -1)
    length = lengths.pop() if len(lengths) == 1 else -1
    return Declared(
        image_size=height if height == width > 0 else None,
        features=length if length > 0 else None,
        is_stochastic=any(_drawing(graph)),
        has_endpoints={_is_dict(function.output_signature) for function in functions} == {True, False},
    )


@contextmanager
def copy_with_seed(folder: Path, seed: int) -> Iterator[Path]:
    """Gives a folder that holds the same model for a while, with this seed where it draws without one.

    TensorFlow refuses to draw without a seed where it is to be deterministic, and many models come so.
    """
    saved = _read(folder)
    for place, node in enumerate(_drawing(saved.meta_graphs[0])):
        if not node.attr["seed"].i and not node.attr["seed2"].i:  # TensorFlow's way to write: none
            node.attr["seed"].i, node.attr["seed2"].i = seed, place + 1
    with TemporaryDirectory(prefix="darkroom-seeded-") as top:
        for part in folder.iterdir():
            if part.name != SAVED_MODEL:
                Path(top, part.name).symlink_to(part.resolve())
        Path(top, SAVED_MODEL).write_bytes(saved.SerializeToString())
        yield Path(top)


def _drawing(graph: Any) -> Iterator[Any]:
    """The operations that draw random numbers by seeds of their own."""
    functions = graph.graph_def.library.function
    nodes = chain(graph.graph_def.node, *(function.node_def for function in functions))
    return (node for node in nodes if "seed" in node.attr and "seed2" in node.attr)


def _read(folder: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString((folder / SAVED_MODEL).read_bytes())
    except (FileNotFoundError, DecodeError):
        if told := tell_pointer(folder):
            raise ValueError(told) from None
        saved = None
    if saved is None or not saved.meta_graphs:
        raise ValueError(f"it holds no SavedModel, as its {SAVED_MODEL} is missing or broken")
    return saved


def _called(objects: Any) -> list[Any]:
    """Every trace of a model's `__call__`; none if there is no such thing."""
    children = objects.nodes[0].children if objects.nodes else []
    places = [child.node_id for child in children if child.local_name == "__call__"]
    names = [name for place in places for name in objects.nodes[place].function.concrete_functions]
    return [objects.concrete_functions[name] for name in names]


def _shapes_of_all(functions: list[Any]) -> tuple[list[Any], list[Any]]:
    """The shapes that go into and come out of these."""
    inputs = [shape for each in functions for shape in _shapes(each.canonicalized_input_signature)]
    outputs = [shape for each in functions for shape in _shapes(each.output_signature)]
    return inputs, outputs


def _is_dict(value: Any) -> bool:
    return bool(value.WhichOneof("kind") == "dict_value")


def _shapes(value: Any) -> Iterator[Any]:
    """The shapes of all tensors in the nested arguments or results of a function."""
    match value.WhichOneof("kind"):
        case "tensor_spec_value":
            yield value.tensor_spec_value.shape
        case "tuple_value" | "list_value" as kind:
            for part in getattr(value, kind).values:
                yield from _shapes(part)
        case "dict_value":
            for part in value.dict_value.fields.values():
                yield from _shapes(part)


def _signature(signatures: Any) -> tuple[list[Any], list[Any]]:
    """The shapes of the signature that TF Hub takes where a model can't be called."""
    names = [name for name in ("serving_default", "default") if name in signatures]
    if not names:
        return [], []
    signature = signatures[names[0]]
    inputs, outputs = signature.inputs.values(), signature.outputs.values()
    return [tensor.tensor_shape for tensor in inputs], [tensor.tensor_shape for tensor in outputs]


def canonicalize_fingerprint(folder: Path) -> None:
    """Replaces the random id in a SavedModel's fingerprint by one that depends on its content."""
    from tensorflow.core.protobuf import fingerprint_pb2

    path = folder / "fingerprint.pb"
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.uuid = str(fingerprint.saved_model_checksum)
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))
