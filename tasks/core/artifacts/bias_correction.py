"""Corrects what quantization moves a TFLite file's logits by on average.

Rounded weights and activations add a mean to each output of a layer besides noise. What comes of that at the
end of the network is taken from the bias of its head, after Nagel et al. (2019), Data-Free Quantization
Through Weight Equalization and Bias Correction, who do so layer by layer.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tasks.core.base.arrays import Array

DIGITS = 3  # of a logit; rounded so far that another kind of CPU says the same
KINDS = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.INT32: np.int32}  # of a bias


def correct(content: bytes, images: Array, logits: Array) -> bytes:
    """Gives the file with another bias; as it is where its end isn't a dense layer and a softmax.

    Args:
        content: a quantized TFLite file.
        images: float32 (n, size, size, 3).
        logits: what the float model says of them, (n, classes).
    """
    changed = bytearray(content)
    model = schema.Model.GetRootAs(changed, 0)
    head = _head(model)
    if head is None:
        return content
    graph = model.Subgraphs(0)
    bias = graph.Tensors(head.Inputs(2))
    off = (_logits(content, graph, head.Outputs(0), images) - logits).mean(axis=0)
    off = np.round(off - off.mean(), DIGITS)  # softmax doesn't know a common part
    scale = bias.Quantization().ScaleAsNumpy() if bias.Type() == schema.TensorType.INT32 else 1
    kind = KINDS[bias.Type()]
    values = model.Buffers(bias.Buffer()).DataAsNumpy().view(kind)  # within `changed`
    values -= (np.round(off / scale) if kind is np.int32 else off).astype(kind)
    return bytes(changed)


def _head(model: Any) -> Any:
    """The dense layer before the last softmax; none where there is none with a bias of its own."""
    graph = model.Subgraphs(0)
    operators = [graph.Operators(place) for place in range(graph.OperatorsLength())]
    by_output = {operator.Outputs(0): operator for operator in operators}
    kinds = schema.BuiltinOperator

    def is_a(operator: Any, kind: int) -> bool:
        return bool(model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode() == kind)

    softmax = [operator for operator in operators if is_a(operator, kinds.SOFTMAX)]
    head = by_output.get(softmax[-1].Inputs(0)) if softmax else None
    if head is None or not is_a(head, kinds.FULLY_CONNECTED) or head.InputsLength() < 3 or head.Inputs(2) < 0:
        return None
    bias = graph.Tensors(head.Inputs(2))
    # The converter stores what is the same once.
    shared = sum(graph.Tensors(place).Buffer() == bias.Buffer() for place in range(graph.TensorsLength()))
    return head if shared == 1 and bias.Type() in KINDS else None


def _logits(content: bytes, graph: Any, place: int, images: Array) -> Array:
    """What a tensor is for each image, as numbers."""
    interpreter = Interpreter(
        model_content=content,
        # XNNPACK would hide inner tensors.
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    parts = []
    for one in images:  # all inner tensors of several would take GB
        interpreter.set_tensor(image["index"], one[None])
        interpreter.invoke()
        parts.append(interpreter.get_tensor(place).astype(np.float64))
    found, about = np.concatenate(parts), graph.Tensors(place).Quantization()
    if graph.Tensors(place).Type() == schema.TensorType.INT8:
        found = (found - about.ZeroPoint(0)) * about.Scale(0)
    return found
