"""[convolutional] and [local]: kernels that move over the image."""

import numpy as np

from trtjob.converters.darknet.activations import activate
from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.geometry import check_side, strides
from trtjob.converters.darknet.layers.folding import factor_and_shift, normalised, take_statistics
from trtjob.converters.darknet.network import Kernel, Network
from trtjob.converters.darknet.tensor import Tensor
from trtjob.engines.protocol import FloatArray

# What changes a convolution's result, with the value that changes nothing.
_UNSUPPORTED = dict.fromkeys(("binary", "xnor", "antialiasing", "flipped", "assisted_excitation", "coordconv"), "0")
_NOT_SHARED = -1_000_000_000  # Darknet's default of `share_index`: 0 shares the weights of layer 0


def convolutional(net: Network, section: Section, x: Tensor) -> Tensor:
    """Convolution, with its batch normalisation folded in, and activation (convolutional_layer.c)."""
    for name, neutral in _UNSUPPORTED.items():
        section.expect(name, neutral)
    filters = section.integer("filters", 1, least=1)
    size = section.integer("size", 1, least=1)
    stride = strides(section)
    given = section.integer("padding", 0)
    padding = size // 2 if section.integer("pad", 0) else given
    dilation = _dilation(section, size, padding)
    height, width = ((side + 2 * padding - size) // step + 1 for side, step in zip(x.hw, stride, strict=True))
    if height < 1 or width < 1:
        raise section.error(f"the kernel of {size}x{size} is larger than its input of {x.height}x{x.width}", "size")
    check_side(section, height, width, "padding")
    groups = _groups(section, x.channels, filters)
    kernel = _kernel(net, section, (filters, x.channels // groups, size, size))
    y = net.graph.add(
        "Conv",
        x.name,
        kernel.weights,
        kernel.bias,
        kernel_shape=[size, size],
        strides=list(stride),
        pads=[padding * dilation] * 4,
        dilations=[dilation, dilation],
        group=groups,
    )
    return Tensor(activate(net.graph, section, y, default="logistic"), filters, height, width)


def _dilation(section: Section, size: int, padding: int) -> int:
    dilation = section.integer("dilation", 1, least=1)
    if size == 1:
        return 1
    if dilation > 1 and 2 * padding + 1 != size:
        # Darknet pads by padding * dilation but computes the output's size without dilation: only then do they agree.
        raise section.error(
            f"dilation={dilation} needs an odd size and a padding of half of it: found size={size}, padding={padding}",
            "dilation",
        )
    return dilation


def _groups(section: Section, channels: int, filters: int) -> int:
    groups = section.integer("groups", 1, least=1)
    if channels % groups or filters % groups:
        raise section.error(
            f"groups={groups}: the input's {channels} channels and filters={filters} cannot both be divided by it",
            "groups",
        )
    return groups


def _kernel(net: Network, section: Section, shape: tuple[int, ...]) -> Kernel:
    """Take the layer's weights, or those of the layer that it shares them with."""
    number = section.integer("share_index", _NOT_SHARED, least=_NOT_SHARED)
    if number != _NOT_SHARED:
        return _shared(net, section, number, shape)
    weights, bias = _folded(net, section, shape)
    if net.input_scale != 1:
        with np.errstate(invalid="ignore"):  # what is no number is reported by the reader
            weights = weights * np.float32(net.input_scale)
    kernel = Kernel(net.graph.constant(weights, "kernel"), net.graph.constant(bias, "bias"), shape)
    if net.input_scale == 1:
        net.kernels[len(net.outputs)] = kernel
    net.input_scale = 1.0
    return kernel


def _shared(net: Network, section: Section, number: int, shape: tuple[int, ...]) -> Kernel:
    _is_normalised(section)  # the shared weights are so already
    kernel = net.kernels.get(net.index(section, number, "share_index"))
    if kernel is None:
        raise section.error(
            f"share_index={number}: expected a [convolutional] after the first layer that has weights of its own",
            "share_index",
        )
    if kernel.shape != shape:
        raise section.error(
            f"share_index={number}: that layer has weights of {_by(kernel.shape)}, this one needs {_by(shape)}",
            "share_index",
        )
    return kernel


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _folded(net: Network, section: Section, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Take a convolution's weights and return kernel and bias, after batch normalisation."""
    bias = net.take(section, "biases", shape[0])
    if not _is_normalised(section):
        return net.take(section, "weights", *shape), bias
    factor, shift = factor_and_shift(net, section, bias, take_statistics(net, section, shape[0]))
    return normalised(net, section, net.take(section, "weights", *shape), factor, shift)


def _is_normalised(section: Section) -> bool:
    """Tell whether there is batch normalisation; `cbn` differs from it in training alone (parser.c)."""
    options = [section.integer(name, 0) for name in ("batch_normalize", "cbn")]
    return any(options)


def local(net: Network, section: Section, x: Tensor) -> Tensor:
    """A convolution with other weights at each place (local_layer.c)."""
    filters, size, stride = (section.integer(name, 1, least=1) for name in ("filters", "size", "stride"))
    padding = 1 if section.integer("pad", 0) else 0  # one pixel, whatever the size
    if padding and size != 3:
        raise section.error(f"pad=1 pads one pixel, which needs size=3: found size={size}", "pad")
    height, width = ((side + 2 * padding - size) // stride + 1 for side in x.hw)
    if height < 1 or width < 1:
        raise section.error(f"the kernel of {size}x{size} is larger than its input of {x.height}x{x.width}", "size")
    places = height * width
    bias = net.take(section, "biases", filters, places)
    weights = net.take(section, "weights", places, filters, x.channels * size * size)
    y = _at_each_place(net, x, weights, _patches(x.hw, size, stride, padding), padding)
    y = net.graph.add("Add", y, net.graph.constant(bias, "bias"))
    y = net.graph.add("Reshape", y, net.graph.integers(0, filters, height, width))
    return Tensor(activate(net.graph, section, y, default="logistic"), filters, height, width)


def _patches(
    hw: tuple[int, int], size: int, stride: int, padding: int
) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """Return where the values of each window are in a padded plane: [size * size, places]."""
    height, width = (side + 2 * padding for side in hw)
    plane = np.arange(height * width).reshape(height, width)
    windows = np.lib.stride_tricks.sliding_window_view(plane, (size, size))[::stride, ::stride]
    return np.ascontiguousarray(windows.reshape(-1, size * size).T, np.int64)


def _at_each_place(
    net: Network,
    x: Tensor,
    weights: FloatArray,
    patches: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]",
    padding: int,
) -> str:
    """Return [N, filters, places]: each place's own matrix times the window there."""
    graph = net.graph
    padded = graph.add("Pad", x.name, graph.integers(0, 0, padding, padding, 0, 0, padding, padding))
    planes = graph.add("Reshape", padded, graph.integers(0, x.channels, -1))
    windows = graph.add("Gather", planes, graph.constant(patches, "patches"), axis=2)
    columns = graph.add("Reshape", windows, graph.integers(0, weights.shape[2], len(weights)))
    # Places first, images last: one product for each place, whatever the batch.
    turned = graph.add("Transpose", columns, perm=[2, 1, 0])
    return graph.add("Transpose", graph.add("MatMul", graph.constant(weights, "kernel"), turned), perm=[2, 1, 0])
