"""One small function for each type of layer. A new type is one more function here and one test.

A function reads its section, takes its weights in the file's order, appends its nodes, and returns its output.
Formulas are those of AlexeyAB/darknet, commit 59596d78; the file is named where one needs it.
"""

from collections.abc import Callable

import numpy as np

from trtjob.converters.darknet.activations import activate
from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.network import MAX_SIDE, Network, Tensor
from trtjob.converters.darknet.yolo import yolo
from trtjob.engines.protocol import FloatArray

LayerFunction = Callable[[Network, Section, Tensor], Tensor]

BATCHNORM_EPSILON = 1e-5  # normalize_cpu in blas.c; pjreddie's has 1e-6 outside the root


# What changes a convolution's result, with the value that changes nothing.
_UNSUPPORTED = {
    "groups": "1",
    "dilation": "1",
    "share_index": "-1000000000",  # 0 would share the weights of layer 0
    **dict.fromkeys(("binary", "xnor", "antialiasing", "flipped", "assisted_excitation", "coordconv"), "0"),
}


def convolutional(net: Network, section: Section, x: Tensor) -> Tensor:
    """Convolution, with its batch normalisation folded in, and activation (convolutional_layer.c)."""
    for name, neutral in _UNSUPPORTED.items():
        section.expect(name, neutral)
    filters = section.integer("filters", 1, least=1)
    size = section.integer("size", 1, least=1)
    stride = _stride(section, 1)
    padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
    height, width = ((side + 2 * padding - size) // stride + 1 for side in x.hw)
    if height < 1 or width < 1:
        raise section.error(f"the kernel of {size}x{size} is larger than its input of {x.height}x{x.width}", "size")
    _check_side(section, height, width, "padding")
    kernel, bias = _folded(net, section, (filters, x.channels, size, size))
    scale, net.input_scale = net.input_scale, 1.0
    y = net.graph.add(
        "Conv",
        x.name,
        net.graph.constant(kernel * np.float32(scale), "kernel"),
        net.graph.constant(bias, "bias"),
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=[padding] * 4,
    )
    return Tensor(activate(net.graph, section, y, default="logistic"), filters, height, width)


def _folded(net: Network, section: Section, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Take a convolution's weights and return kernel and bias, after batch normalisation."""
    filters = shape[0]
    bias = net.take(section, "biases", filters)
    if not section.integer("batch_normalize", 0):
        return net.take(section, "weights", *shape), bias
    scale, mean, variance = (net.take(section, name, filters) for name in ("scales", "means", "variances"))
    kernel = net.take(section, "weights", *shape)
    if (variance < 0).any():
        net.suspect(section, "some variances are negative")
    with np.errstate(over="ignore", invalid="ignore"):  # reported below, or by the reader
        factor = scale / np.sqrt(np.maximum(variance, 0).astype(np.float64) + BATCHNORM_EPSILON)
        folded_kernel = (kernel * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
        folded_bias = (bias - mean * factor).astype(np.float32)
    if not (np.isfinite(folded_kernel).all() and np.isfinite(folded_bias).all()):
        net.suspect(section, "some weights are too large once they are normalised")
    return folded_kernel, folded_bias


def maxpool(net: Network, section: Section, x: Tensor) -> Tensor:
    """Maximum over windows, padded at the end first (maxpool_layer.c)."""
    for name in ("maxpool_depth", "maxpool_zero_nonmax", "antialiasing"):
        section.expect(name, "0")
    stride = _stride(section, 1)
    size = section.integer("size", stride, least=1)
    padding = section.integer("padding", size - 1)  # of both sides together
    before = padding // 2
    height, width = ((side + padding - size) // stride + 1 for side in x.hw)
    if height < 1 or width < 1:
        raise section.error(f"the window of {size}x{size} is larger than its input of {x.height}x{x.width}", "size")
    after = [max(0, (out - 1) * stride + size - side - before) for out, side in ((height, x.height), (width, x.width))]
    if max(before, *after) >= size:
        raise section.error(f"padding={padding}: some windows of {size} would hold nothing but padding", "padding")
    y = net.graph.add(
        "MaxPool",
        x.name,
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=[before, before, *after],
    )
    return Tensor(y, x.channels, height, width)


def route(net: Network, section: Section, x: Tensor) -> Tensor:
    """Earlier layers' channels, or one group of them, one after the other (route_layer.c)."""
    numbers = section.integers("layers")
    if not numbers:
        raise section.error("needs the option 'layers', such as layers=-1,8")
    groups = section.integer("groups", 1, least=1)
    group = section.integer("group_id", 0)
    if group >= groups:
        raise section.error(f"group_id={group}: expected less than groups={groups}", "group_id")
    inputs = [net.layer(section, number, "layers") for number in numbers]
    if len({tensor.hw for tensor in inputs}) > 1:
        sizes = ", ".join(f"{tensor.height}x{tensor.width}" for tensor in inputs)
        raise section.error(f"its inputs differ in size: {sizes}", "layers")
    parts = [_group(net, section, tensor, groups, group) for tensor in inputs]
    channels = sum(tensor.channels // groups for tensor in inputs)
    y = parts[0] if len(parts) == 1 else net.graph.add("Concat", *parts, axis=1)
    return Tensor(y, channels, *inputs[0].hw)


def _group(net: Network, section: Section, x: Tensor, groups: int, group: int) -> str:
    if groups == 1:
        return x.name
    if x.channels % groups:
        raise section.error(f"groups={groups}: the input's {x.channels} channels cannot be divided by it", "groups")
    share = x.channels // groups
    start, end, axis = (net.graph.integers(value) for value in (share * group, share * (group + 1), 1))
    return net.graph.add("Slice", x.name, start, end, axis)


def shortcut(net: Network, section: Section, x: Tensor) -> Tensor:
    """The sum of the previous layer and earlier ones (shortcut_layer.c)."""
    section.expect("weights_type", "none")
    numbers = section.integers("from")
    if not numbers:
        raise section.error("needs the option 'from', such as from=-3")
    y = x.name
    for number in numbers:
        other = net.layer(section, number, "from")
        if (other.channels, *other.hw) != (x.channels, *x.hw):
            shapes = " and ".join(f"{t.channels}x{t.height}x{t.width}" for t in (x, other))
            raise section.error(f"from={number}: adding layers of different shapes, {shapes}, is not supported", "from")
        y = net.graph.add("Add", y, other.name)
    return Tensor(activate(net.graph, section, y, default="linear"), x.channels, *x.hw)


def upsample(net: Network, section: Section, x: Tensor) -> Tensor:
    """Each pixel `stride` times in both directions (upsample_layer.c)."""
    section.expect("scale", "1")
    stride = section.integer("stride", 2, least=1)
    _check_side(section, x.height * stride, x.width * stride, "stride")
    y = net.graph.add(
        "Resize",
        x.name,
        "",
        net.graph.constant(np.array([1, 1, stride, stride], np.float32), "scales"),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return Tensor(y, x.channels, x.height * stride, x.width * stride)


def _check_side(section: Section, height: int, width: int, name: str) -> None:
    """Refuse what could only fill the memory: a mistyped number."""
    if max(height, width) > MAX_SIDE:
        raise section.error(f"its output of {height}x{width} is too large: at most {MAX_SIDE} are possible", name)


def _stride(section: Section, default: int) -> int:
    stride = section.integer("stride", default, least=1)
    for name in ("stride_x", "stride_y"):
        section.expect(name, str(stride))
    return stride


LAYERS: dict[str, LayerFunction] = {
    "convolutional": convolutional,
    "maxpool": maxpool,
    "route": route,
    "shortcut": shortcut,
    "upsample": upsample,
    "yolo": yolo,
}
