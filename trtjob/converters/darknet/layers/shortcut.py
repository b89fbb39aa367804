"""[shortcut]: sums of layers, weighted or not, of one shape or of several."""

import numpy as np

from trtjob.converters.darknet.activations import activate
from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.tensor import Tensor
from trtjob.engines.protocol import FloatArray

# fuse_conv_batchnorm in network.c, which normalises a shortcut's weights too
_SUM_EPSILON = 1e-4
_LEAST_WEIGHT = 1e-3  # of its "relu"
_WEIGHTS = ("none", "per_feature", "per_layer", "per_channel")
_NORMALIZATIONS = ("none", "relu", "avg_relu", "softmax")


def shortcut(net: Network, section: Section, x: Tensor) -> Tensor:
    """The sum of the previous layer and earlier ones (shortcut_layer.c).

    Where a layer is larger or smaller, it is sampled by a whole stride or spread, as pjreddie's Darknet does; of
    channels that only one of the two has, the previous layer's stay and the others are left out.
    """
    for name in ("alpha", "beta"):
        section.expect(name, "1")
    numbers = section.integers("from")
    if not numbers:
        raise section.error("needs the option 'from', such as from=-3")
    others = [net.layer(section, number, "from") for number in numbers]
    weights = _weights(net, section, x, len(numbers) + 1)
    y = x.name if weights is None else _times(net, x.name, weights[0])
    for number, (other, name) in enumerate(zip(others, _fitted(net, section, x, others), strict=True), start=1):
        term = name if weights is None else _times(net, name, weights[number][: other.channels])
        y = _sum(net, y, x.channels, term, min(x.channels, other.channels))
    return Tensor(activate(net.graph, section, y, default="linear"), x.channels, *x.hw)


def _weights(net: Network, section: Section, x: Tensor, count: int) -> FloatArray | None:
    """Take and normalise the weights of the sum's terms: float32 [terms, 1 or channels]; None where it has none."""
    kind = _choice(section, "weights_type", _WEIGHTS)
    normalization = _choice(section, "weights_normalization", _NORMALIZATIONS)
    if kind == "none":
        return None
    weights = net.take(section, "weights", count, x.channels if kind == "per_channel" else 1).astype(np.float64)
    if normalization != "none":
        is_softmax = normalization == "softmax"
        weights = np.exp(weights - weights.max(0)) if is_softmax else np.maximum(weights, _LEAST_WEIGHT)
        weights /= weights.sum(0) + _SUM_EPSILON
    return np.asarray(weights, np.float32)


def _choice(section: Section, name: str, known: tuple[str, ...]) -> str:
    if (value := section.text(name, "none")) not in known:
        raise section.error(f"unknown {name}={value}: expected one of {', '.join(known)}", name)
    return value


def _times(net: Network, x: str, weights: FloatArray) -> str:
    return net.graph.add("Mul", x, net.graph.constant(weights.reshape(-1, 1, 1), "weights"))


def _sum(net: Network, y: str, channels: int, term: str, shared: int) -> str:
    """Add a term to the first channels of a value."""
    graph = net.graph
    if shared == channels:
        return graph.add("Add", y, term)
    first, rest = (
        graph.add("Slice", y, graph.integers(start), graph.integers(end), graph.integers(1))
        for start, end in ((0, shared), (shared, channels))
    )
    return graph.add("Concat", graph.add("Add", first, term), rest, axis=1)


def _fitted(net: Network, section: Section, x: Tensor, others: list[Tensor]) -> list[str]:
    """Return the layers with the height and width of x, and no more channels than it has (shortcut_cpu in blas.c)."""
    return [_with_channels(net, _resampled(net, section, x, other), x.channels) for other in others]


def _with_channels(net: Network, tensor: Tensor, channels: int) -> str:
    if tensor.channels <= channels:
        return tensor.name
    start, end, axis = (net.graph.integers(value) for value in (0, channels, 1))
    return net.graph.add("Slice", tensor.name, start, end, axis)


def _resampled(net: Network, section: Section, x: Tensor, other: Tensor) -> Tensor:
    if x.hw == other.hw:
        return other
    shrinks = {a // b for a, b in zip(other.hw, x.hw, strict=True)}
    grows = {b // a for a, b in zip(other.hw, x.hw, strict=True)}
    if len(shrinks) > 1 or len(grows) > 1:
        sizes = " to ".join(f"{tensor.height}x{tensor.width}" for tensor in (other, x))
        raise section.error(f"cannot add layers of which height and width differ in other ratios: {sizes}", "from")
    stride, spread = max(1, shrinks.pop()), max(1, grows.pop())
    sampled = _sampled(net, x, other, stride)
    return _spread(net, x, sampled, spread) if sampled.hw != x.hw or spread > 1 else sampled


def _sampled(net: Network, x: Tensor, other: Tensor, stride: int) -> Tensor:
    """Return every `stride`-th pixel, no more than x has."""
    height, width = (min(a, b) for a, b in zip(other.hw, x.hw, strict=True))
    if stride == 1 and other.hw == (height, width):
        return other
    graph = net.graph
    ends = graph.integers((height - 1) * stride + 1, (width - 1) * stride + 1)
    y = graph.add("Slice", other.name, graph.integers(0, 0), ends, graph.integers(2, 3), graph.integers(stride, stride))
    return Tensor(y, other.channels, height, width)


def _spread(net: Network, x: Tensor, other: Tensor, spread: int) -> Tensor:
    """Return each pixel at `spread` times its place, with zeros between and behind them."""
    graph = net.graph
    y = graph.add("Reshape", other.name, graph.integers(0, other.channels, other.height, 1, other.width, 1))
    y = graph.add("Pad", y, graph.integers(*[0] * 9, spread - 1, 0, spread - 1))
    height, width = other.height * spread, other.width * spread
    y = graph.add("Reshape", y, graph.integers(0, other.channels, height, width))
    # The last pixel's zeros may reach beyond x, or end before it: a negative padding cuts.
    y = graph.add("Pad", y, graph.integers(*[0] * 6, x.height - height, x.width - width))
    return Tensor(y, other.channels, *x.hw)
