"""Make a foreign graph take any number of images at once, where it can."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TensorShapeProto, helper, numpy_helper

from trtjob.converters.onnx.pixels import feed
from trtjob.converters.onnx.read import WORK_OPSET, opset_of
from trtjob.converters.onnx.session import Session
from trtjob.converters.onnx.signature import CHANNELS, FILLED_IN, Foreign, inputs_of, shape_of
from trtjob.converters.pixels import Pixels
from trtjob.engines.protocol import UInt8Array
from trtjob.errors import ConversionError

BATCH = "N"
# Operators may sum in another order for two images than for one, and one of the last boxes kept may then be another; a
# graph that mixes images up, or looks at the first alone, is wrong for half of the values.
_CLOSE, _ALIKE = 1e-3, 0.995


def expect_batch(model: ModelProto) -> str:
    """Let a graph that takes an image alone, [channels, height, width], take it in a batch of one.

    torchvision's detectors, which take a list of images, are traced so. Returns the name that the image had, empty
    where nothing was to be done.
    """
    images = [value for value in inputs_of(model) if value.name not in FILLED_IN]
    shape = shape_of(images[0]) if len(images) == 1 else None
    if shape is None or len(shape) != 3 or shape[0] not in CHANNELS:
        return ""
    (image,) = images
    alone = image.name
    image.name = f"{alone}/batch"
    image.type.tensor_type.shape.dim.insert(0, TensorShapeProto.Dimension(dim_value=1))
    if opset_of(model) >= WORK_OPSET:
        axes = numpy_helper.from_array(np.array([0], np.int64), f"{alone}/axis")
        model.graph.initializer.append(axes)
        squeeze = helper.make_node("Squeeze", [image.name, axes.name], [alone])
    else:
        squeeze = helper.make_node("Squeeze", [image.name], [alone], axes=[0])
    model.graph.node.insert(0, squeeze)
    return alone


def sized(foreign: Foreign, batch: int | str, hw: tuple[int, int]) -> ModelProto:
    """Return a copy of a model whose input has this batch and size, and whose output's shape is left open."""
    model = ModelProto()
    model.CopyFrom(foreign.model)
    for value in model.graph.input:
        value.CopyFrom(
            helper.make_tensor_value_info(value.name, foreign.image.elem_type, foreign.image.shape(batch, hw))
        )
    for value in model.graph.output:
        if not value.type.HasField("tensor_type"):  # chosen from the graph's inside
            continue
        value.type.tensor_type.ClearField("shape")
    return model


def for_any_batch(
    foreign: Foreign, pixels: Pixels, hw: tuple[int, int], images: UInt8Array, expected: Sequence[NDArray[np.floating]]
) -> ModelProto | None:
    """Return the model for any batch, None where it works for one image only.

    images: two different ones; expected: the original model's outputs for them. The model is run on both at once, so
    what is returned has been seen to work.
    """
    model = sized(foreign, BATCH, hw)
    if foreign.image.batch is not None:
        _free_reshapes(model, foreign, hw)
    return model if _agrees(model, foreign, pixels, images, expected) else None


def expect_same(
    model: ModelProto, foreign: Foreign, pixels: Pixels, images: UInt8Array, expected: Sequence[NDArray[np.floating]]
) -> None:
    """Raise ConversionError unless a model of one image says what the original does."""
    if not _agrees(model, foreign, pixels, images[:1], [output[:1] for output in expected]):
        raise ConversionError(
            f"'{foreign.path}' can be brought neither to any batch nor to one image: it was made for "
            f"{foreign.image.batch or 'several'} images at once. Export it again with a batch of 1, or a dynamic one"
        )


def _agrees(
    model: ModelProto, foreign: Foreign, pixels: Pixels, images: UInt8Array, expected: Sequence[NDArray[np.floating]]
) -> bool:
    try:
        session = Session(model, f"'{foreign.path}'")
        found = session.run(foreign.image.name, feed(pixels, images, foreign.image))
    except ConversionError:
        return False
    return all(map(_is_alike, found, expected))


def _is_alike(found: NDArray[np.floating], expected: NDArray[np.floating]) -> bool:
    if found.shape != expected.shape:
        return False
    close = np.isclose(found.astype(np.float64), expected.astype(np.float64), rtol=_CLOSE, atol=1e-7, equal_nan=True)
    return bool(close.mean() >= _ALIKE)


def _free_reshapes(model: ModelProto, foreign: Foreign, hw: tuple[int, int]) -> None:
    """Let reshapes that an exporter wrote with its batch as a number take the batch of what they reshape."""
    batch = foreign.image.batch
    first_sizes = _first_sizes(sized(foreign, batch or 1, hw))
    constants = _integer_constants(model)
    for number, node in enumerate(node for node in model.graph.node if node.op_type == "Reshape"):
        shape = constants.get(node.input[1], [])
        if shape[:1] != [batch] or first_sizes.get(node.input[0]) != batch or not _zero_can_copy(node, shape):
            continue
        name = f"model/batch_free_shape_{number}"
        model.graph.initializer.append(numpy_helper.from_array(np.array([0, *shape[1:]], np.int64), name))
        node.input[1] = name


def _first_sizes(model: ModelProto) -> dict[str, int | None]:
    """Return the first size of each value, as far as it can be told."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # noqa: BLE001 - of unknown sizes nothing is changed, and what comes out is run
        return {}
    shapes = {value.name: shape_of(value) for value in (*graph.input, *graph.output, *graph.value_info)}
    return {name: shape[0] for name, shape in shapes.items() if shape}


def _integer_constants(model: ModelProto) -> dict[str, list[int]]:
    """Return the short lists of integers that a graph holds, by name."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
    return {
        name: numpy_helper.to_array(tensor).tolist()
        for name, tensor in tensors.items()
        if tensor.data_type == TensorProto.INT64 and len(tensor.dims) == 1 and tensor.dims[0] <= 8
    }


def _zero_can_copy(node: NodeProto, shape: list[int]) -> bool:
    """Tell whether 0 as the first size can mean: as it is. With `allowzero` it means none."""
    flags = [attribute for attribute in node.attribute if attribute.name == "allowzero" and attribute.i]
    if flags and 0 in shape:
        return False
    for flag in flags:
        node.attribute.remove(flag)
    return True
