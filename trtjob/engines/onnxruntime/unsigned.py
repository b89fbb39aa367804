"""int8 as ONNX Runtime computes it fast on x86: values between layers are unsigned, 128 being zero.

Its kernels there multiply unsigned values with signed weights. It brings signed values into that form by itself, but
not one that several nodes read, as every SiLU and every shortcut has: what reads such a value is computed in float32.
The model itself stays signed, for TensorRT takes nothing else.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_SHIFT = 128


def with_unsigned_values(path: Path) -> bytes:
    """Return a model whose values are uint8 instead of int8; its answers are the same, bit for bit.

    Only a zero point that QuantizeLinear reads is moved: weights have no QuantizeLinear, and stay signed.
    """
    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    with_zero = [node for node in graph.node if len(node.input) > 2]
    shifted = {node.input[2] for node in with_zero if node.op_type == "QuantizeLinear"} & constants.keys()
    shifted -= {
        node.input[2] for node in with_zero if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    for name in shifted:
        if constants[name].data_type == TensorProto.INT8:
            zero = numpy_helper.to_array(constants[name]).astype(np.int16) + _SHIFT
            constants[name].CopyFrom(numpy_helper.from_array(zero.astype(np.uint8), name))
    del graph.value_info[:]  # it speaks of int8
    return bytes(model.SerializeToString())
