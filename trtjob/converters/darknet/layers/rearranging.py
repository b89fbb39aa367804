"""What moves pixels without computing: [upsample], [reorg], [reorg3d] and [crop]."""

import numpy as np

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.geometry import check_side
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.tensor import Tensor


def upsample(net: Network, section: Section, x: Tensor) -> Tensor:
    """Each pixel `stride` times in both directions, times `scale` (upsample_layer.c)."""
    stride = section.integer("stride", 2, least=1)
    check_side(section, x.height * stride, x.width * stride, "stride")
    y = net.graph.add(
        "Resize",
        x.name,
        "",
        net.graph.constant(np.array([1, 1, stride, stride], np.float32), "scales"),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    if (scale := section.number("scale", 1)) != 1:
        y = net.graph.add("Mul", y, net.graph.constant(np.array(scale, np.float32), "scale"))
    return Tensor(y, x.channels, x.height * stride, x.width * stride)


def reorg3d(net: Network, section: Section, x: Tensor) -> Tensor:
    """Blocks of pixels to channels (reorg_layer.c); with `reverse` of values that are read in another shape first."""
    stride = section.integer("stride", 1, least=1)
    if not section.integer("reverse", 0):
        return _space_to_depth(net, section, x, stride)
    wanted = Tensor(x.name, x.channels // stride**2, x.height * stride, x.width * stride)
    turned = _depth_to_space(net, section, _read_as(net, section, x, wanted), stride)
    return _read_as(net, section, turned, wanted)


def reorg(net: Network, section: Section, x: Tensor) -> Tensor:
    """Blocks of pixels to channels, of values that are read in another shape first (reorg_old_layer.c).

    Darknet takes the input's shape for the output's. So its values are read as having fewer channels and a larger
    plane, blocks become channels, and the result is read in the shape that was meant.
    """
    section.expect("flatten", "0")
    stride = section.integer("stride", 1, least=1)
    if extra := section.integer("extra", 0):
        check_side(section, extra, 1, "extra")
        return _with_zeros(net, x, extra)
    if section.integer("reverse", 0):
        return _depth_to_space(net, section, x, stride)
    larger = Tensor(x.name, x.channels // stride**2, x.height * stride, x.width * stride)
    turned = _space_to_depth(net, section, _read_as(net, section, x, larger), stride)
    wanted = Tensor(turned.name, x.channels * stride**2, x.height // stride, x.width // stride)
    return _read_as(net, section, turned, wanted)


def _with_zeros(net: Network, x: Tensor, count: int) -> Tensor:
    """Return all values as a vector with zeros behind them: in pjreddie's go, to pass is one more move."""
    vector = net.graph.add("Reshape", x.name, net.graph.integers(0, x.size, 1, 1))
    y = net.graph.add("Pad", vector, net.graph.integers(0, 0, 0, 0, 0, count, 0, 0))
    return Tensor(y, x.size + count, 1, 1)


def _read_as(net: Network, section: Section, x: Tensor, shape: Tensor) -> Tensor:
    """Return the same values in the same order, in another tensor's shape."""
    if x.size != shape.size:
        raise _indivisible(section, x)
    y = net.graph.add("Reshape", x.name, net.graph.integers(0, shape.channels, *shape.hw))
    return Tensor(y, shape.channels, *shape.hw)


def _space_to_depth(net: Network, section: Section, x: Tensor, stride: int) -> Tensor:
    if x.height % stride or x.width % stride:
        raise _indivisible(section, x)
    y = net.graph.add("SpaceToDepth", x.name, blocksize=stride)
    return Tensor(y, x.channels * stride**2, x.height // stride, x.width // stride)


def _depth_to_space(net: Network, section: Section, x: Tensor, stride: int) -> Tensor:
    if x.channels % stride**2:
        raise _indivisible(section, x)
    y = net.graph.add("DepthToSpace", x.name, blocksize=stride, mode="DCR")
    return Tensor(y, x.channels // stride**2, x.height * stride, x.width * stride)


def _indivisible(section: Section, x: Tensor) -> Exception:
    stride = section.integer("stride", 1)
    return section.error(
        f"stride={stride} does not divide its input of {x.channels}x{x.height}x{x.width} into whole blocks", "stride"
    )


def crop(net: Network, section: Section, x: Tensor) -> Tensor:
    """The middle of the image, from -1 to 1 unless `noadjust` is set (crop_layer.c)."""
    height, width = (section.integer(name, 1, least=1) for name in ("crop_height", "crop_width"))
    if height > x.height or width > x.width:
        raise section.error(f"{height}x{width} cannot be cut out of {x.height}x{x.width}", "crop_height")
    graph = net.graph
    top, left = (x.height - height) // 2, (x.width - width) // 2
    y = x.name
    if (height, width) != x.hw:
        ends = graph.integers(top + height, left + width)
        y = graph.add("Slice", y, graph.integers(top, left), ends, graph.integers(2, 3))
    if not section.integer("noadjust", 0):
        y = graph.add("Mul", y, graph.constant(np.array(2, np.float32), "two"))
        y = graph.add("Sub", y, graph.constant(np.array(1, np.float32), "one"))
    return Tensor(y, x.channels, height, width)
