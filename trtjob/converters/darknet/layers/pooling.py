"""[maxpool], [local_avgpool] and [avgpool]."""

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.geometry import strides
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.tensor import Tensor


def maxpool(net: Network, section: Section, x: Tensor) -> Tensor:
    """Maximum over windows, padded at the end first (maxpool_layer.c)."""
    for name in ("maxpool_zero_nonmax", "antialiasing"):
        section.expect(name, "0")
    if section.integer("maxpool_depth", 0):
        return _maximum_of_channels(net, section, x)
    return _pooled(net, section, x, "MaxPool")


def local_avgpool(net: Network, section: Section, x: Tensor) -> Tensor:
    """Mean over windows, of the pixels that are in the image (maxpool_layer.c)."""
    return _pooled(net, section, x, "AveragePool")


def _pooled(net: Network, section: Section, x: Tensor, op: str) -> Tensor:
    stride = strides(section)
    size = section.integer("size", section.integer("stride", 1, least=1), least=1)
    padding = section.integer("padding", size - 1)  # of both sides together
    before = padding // 2
    height, width = ((side + padding - size) // step + 1 for side, step in zip(x.hw, stride, strict=True))
    if height < 1 or width < 1:
        raise section.error(f"the window of {size}x{size} is larger than its input of {x.height}x{x.width}", "size")
    outputs = zip((height, width), x.hw, stride, strict=True)
    after = [max(0, (out - 1) * step + size - side - before) for out, side, step in outputs]
    if max(before, *after) >= size:
        raise section.error(f"padding={padding}: some windows of {size} would hold nothing but padding", "padding")
    y = net.graph.add(op, x.name, kernel_shape=[size, size], strides=list(stride), pads=[before, before, *after])
    return Tensor(y, x.channels, height, width)


def _maximum_of_channels(net: Network, section: Section, x: Tensor) -> Tensor:
    """Return of each group of channels with the same remainder, by `out_channels`, the largest."""
    channels = section.integer("out_channels", 1, least=1)
    if x.channels % channels:
        raise section.error(
            f"out_channels={channels}: the input's {x.channels} channels cannot be divided by it", "out_channels"
        )
    graph = net.graph
    shares = graph.add("Reshape", x.name, graph.integers(0, x.channels // channels, channels, *x.hw))
    return Tensor(graph.add("ReduceMax", shares, graph.integers(1), keepdims=0), channels, *x.hw)


def avgpool(net: Network, _section: Section, x: Tensor) -> Tensor:
    """The mean of each channel (avgpool_layer.c)."""
    return Tensor(net.graph.add("GlobalAveragePool", x.name), x.channels, 1, 1)
