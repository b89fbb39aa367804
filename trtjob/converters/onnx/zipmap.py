"""ZipMap, by which scikit-learn's and Azure's classifiers end in a table of labels: the scores before it are kept."""

from onnx import ModelProto, NodeProto, TensorProto, helper

_DOMAIN = "ai.onnx.ml"


def cut_zipmap(model: ModelProto) -> tuple[str, tuple[str, ...]]:
    """Take a ZipMap off the end of a graph.

    Returns the value that it took, and its labels; both empty where there is none.
    """
    outputs = {value.name: value for value in model.graph.output}
    for node in model.graph.node:
        if node.op_type == "ZipMap" and node.domain == _DOMAIN and node.output[0] in outputs:
            value = helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, ["N", "classes"])
            outputs[node.output[0]].CopyFrom(value)
            found = node.input[0], _labels(node)
            model.graph.node.remove(node)
            return found
    return "", ()


def _labels(node: NodeProto) -> tuple[str, ...]:
    for attribute in node.attribute:
        if attribute.strings:
            return tuple(" ".join(name.decode("utf-8", "replace").split()) for name in attribute.strings)
        if attribute.ints:
            return tuple(f"class_{number}" for number in attribute.ints)
    return ()
