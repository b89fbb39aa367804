"""Have activations read what is not rounded to int8 yet: TensorRT 8.6 has no kernels for SiLU and Mish in int8.

Its builder takes an activation with the steps before and behind it for one layer of int8, and ends with "Could not find
any implementation for node PWN(...)". Between a convolution, which adds up in 32 bits, and its activation nothing has
to be rounded: what int8 is for is what the next convolution reads. So the graph computes the same with a rounding less.
"""

from collections import defaultdict

from onnx import GraphProto, NodeProto

from trtjob.engines.graph_walk import values_read

# Of what a smooth activation consists, before Mish is lowered and after. ReLU and its like are no trouble.
_PARTS = frozenset({"Mish", "Mul", "Sigmoid", "Softplus", "Tanh"})


def free_activations(graph: GraphProto) -> bool:
    """Let activations read past a QuantizeLinear and its DequantizeLinear, in place. Returns whether any does.

    A pair that something else reads as well stays as it is.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    readers, answers = _readers(graph), {value.name for value in graph.output}
    freed = False
    for node in graph.node:
        quantized = made_by.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if quantized is None or quantized.op_type != "QuantizeLinear" or node.output[0] in answers:
            continue
        reading = readers[node.output[0]]
        if all(reader.op_type in _PARTS for reader in reading):
            for reader in reading:
                reader.input[:] = [quantized.input[0] if name == node.output[0] else name for name in reader.input]
            freed = True
    if freed:
        _drop_unread(graph)
    return freed


def _readers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Return which nodes read each value."""
    found: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in values_read(node):
            found[name].append(node)
    return found


def _drop_unread(graph: GraphProto) -> None:
    """Leave out the pairs that nobody reads any more."""
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        read = _readers(graph).keys() | {value.name for value in graph.output}
        kept = [node for node in graph.node if node.op_type != kind or node.output[0] in read]
        del graph.node[:]
        graph.node.extend(kept)
