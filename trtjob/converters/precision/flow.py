"""How values flow through a graph: who makes and reads them, and which nodes lie between its layers."""

from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtjob.engines.graph_walk import values_read

# Kinds of nodes that multiply with weights, and which of their inputs the weights are.
WEIGHTED = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}


class Flow:
    """A model's graph, to be read; nodes are known by their position, for their names may be missing.

    The model is a copy whose constants are all initializers. constants: by name.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = _with_initializers(model)
        self.nodes: Sequence[NodeProto] = self.model.graph.node
        self.constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.makers = {name: index for index, node in enumerate(self.nodes) for name in node.output}
        self.readers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in dict.fromkeys(values_read(node)):
                self.readers[name].append(index)
        self.outputs = [value.name for value in self.model.graph.output]

    def constant(self, name: str) -> NDArray[np.float32]:
        """Return the numbers of a constant that is float32."""
        return numpy_helper.to_array(self.constants[name])

    def layers(self) -> set[int]:
        """Return the nodes that are a network's layers: they multiply with weights.

        A convolution to a single channel is arithmetic: so newer YOLO heads take the mean of a distribution.
        """
        return {
            index
            for index, node in enumerate(self.nodes)
            if (weights := self._weights(node)) is not None and not (node.op_type == "Conv" and weights.dims[0] == 1)
        }

    def _weights(self, node: NodeProto) -> TensorProto | None:
        position = WEIGHTED.get(node.op_type)
        return None if position is None else self.constants.get(node.input[position])

    def before(self, layers: AbstractSet[int]) -> set[int]:
        """Return the nodes that one of the layers reads, directly or not."""
        found: set[int] = set()
        for index in reversed(range(len(self.nodes))):
            readers = (reader for name in self.nodes[index].output for reader in self.readers[name])
            if any(reader in layers or reader in found for reader in readers):
                found.add(index)
        return found

    def after(self, layers: AbstractSet[int]) -> set[int]:
        """Return the nodes that read one of the layers, directly or not."""
        found: set[int] = set()
        for index, node in enumerate(self.nodes):
            makers = (self.makers[name] for name in values_read(node) if name in self.makers)
            if any(maker in layers or maker in found for maker in makers):
                found.add(index)
        return found

    def between(self, layers: set[int]) -> set[int]:
        """Return the layers and all nodes from one of them to another."""
        return layers | (self.after(layers) & self.before(layers))

    def float_values(self) -> set[str]:
        """Return the names of all values and constants that are float32."""
        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        values = {
            value.name
            for value in (*inferred.input, *inferred.output, *inferred.value_info)
            if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        return values | {name for name, tensor in self.constants.items() if tensor.data_type == TensorProto.FLOAT}

    def with_nodes(self, nodes: Sequence[NodeProto], constants: Sequence[TensorProto]) -> ModelProto:
        """Return the model with other nodes, and those of its and the new constants that they read."""
        read = {name for node in nodes for name in values_read(node)}
        kept = [tensor for tensor in (*self.model.graph.initializer, *constants) if tensor.name in read]
        graph = self.model.graph
        document = helper.make_graph(nodes, graph.name, list(graph.input), list(graph.output), kept)
        return helper.make_model(
            document,
            opset_imports=list(self.model.opset_import),
            ir_version=self.model.ir_version,
            producer_name=self.model.producer_name,
            functions=list(self.model.functions),
        )


def has_graph(node: NodeProto) -> bool:
    """Tell whether a node holds a graph of its own: a loop or a branch."""
    return any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute)


def _with_initializers(model: ModelProto) -> ModelProto:
    """Return a copy of the model whose Constant nodes of tensors have become initializers."""
    copy = ModelProto()
    copy.CopyFrom(model)
    nodes = []
    for node in copy.graph.node:
        value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            value.name = node.output[0]
            copy.graph.initializer.append(value)
        else:
            nodes.append(node)
    del copy.graph.node[:], copy.graph.value_info[:]
    copy.graph.node.extend(nodes)
    return copy
