"""The same ONNX graph in the same words, whatever order it was converted in.

tf2onnx walks through sets, so that order and names of nodes and constants change from run to run.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any


def canonicalize(model: Any) -> None:
    """Orders and names nodes and constants by their place on the way from the outputs back.

    A graph with graphs inside (loops, branches), which an image classifier has no use for, is left
    as it is: inner graphs refer to outer names.
    """
    graph = model.graph
    if any(
        attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute
    ):
        return
    _merge_constants(graph)
    nodes = list(_in_order(graph))
    constants = {constant.name: constant for constant in graph.initializer}
    fixed = {value.name for value in [*graph.input, *graph.output]}
    names: dict[str, str] = {name: name for name in fixed | {""}}  # "": an optional input left out
    used = []
    for place, node in enumerate(nodes):
        node.name = f"{node.op_type}_{place}"
        for number, name in enumerate(node.input):
            if name in constants and name not in names:
                names[name] = f"{node.name}/constant_{number}"
                used.append(constants[name])
        for number, name in enumerate(node.output):
            names.setdefault(name, f"{node.name}/output_{number}")
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        _replace(node.attribute, sorted(node.attribute, key=lambda attribute: str(attribute.name)))
    for constant in used:
        constant.name = names[constant.name]
    _replace(graph.node, nodes)
    _replace(graph.initializer, used)
    del graph.value_info[:]  # shapes of inner values, by names that are gone; runtimes infer them
    for value in (*graph.input, *graph.output):
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:  # a free size, which tf2onnx names by how many names it has made
                dim.dim_param = f"dim_{place}" if place else "batch"


def _merge_constants(graph: Any) -> None:
    """Lets constants of the same content be one: which of them a node refers to is chance."""
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for constant in graph.initializer:
        name = constant.name
        constant.name = ""
        same[name] = first.setdefault(constant.SerializeToString(deterministic=True), name)
        constant.name = name
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]


def _in_order(graph: Any) -> Iterator[Any]:
    """Nodes after those whose outputs they use, first inputs first."""
    maker = {name: node for node in graph.node for name in node.output}
    done: set[str] = set()
    waiting = [value.name for value in reversed(graph.output)]
    while waiting:
        node = maker.get(waiting[-1])
        if node is None or node.output[0] in done:
            waiting.pop()
        elif missing := [n for n in node.input if n in maker and maker[n].output[0] not in done]:
            waiting += reversed(missing)
        else:
            waiting.pop()
            done.add(node.output[0])
            yield node


def _replace(field: Any, items: list[Any]) -> None:
    """Puts copies of these messages in the place of a repeated field's own."""
    copies = deepcopy(items)
    del field[:]
    field.extend(copies)
