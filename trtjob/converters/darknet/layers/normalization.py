"""[batchnorm] and [normalization]."""

import numpy as np

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.layers.folding import factor_and_shift, normalised, take_statistics
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.tensor import Tensor
from trtjob.engines.protocol import FloatArray

_MAX_CHANNELS = 4096  # of [normalization], whose sums take the square of it in memory


def batchnorm(net: Network, section: Section, x: Tensor) -> Tensor:
    """Batch normalisation by itself (batchnorm_layer.c). Its weights begin with the bias, which pjreddie's have not."""
    bias = net.take(section, "biases", x.channels)
    factor, shift = factor_and_shift(net, section, bias, take_statistics(net, section, x.channels))
    factor, shift = normalised(net, section, factor, np.ones_like(factor), shift)
    y = net.graph.add("Mul", x.name, net.graph.constant(factor.reshape(-1, 1, 1), "factor"))
    y = net.graph.add("Add", y, net.graph.constant(shift.reshape(-1, 1, 1), "shift"))
    return Tensor(y, x.channels, *x.hw)


def normalization(net: Network, section: Section, x: Tensor) -> Tensor:
    """Local response normalisation: x / (kappa + alpha * sum of neighbours' squares)^beta (normalization_layer.c)."""
    if x.channels > _MAX_CHANNELS:
        raise section.error(f"its input has {x.channels} channels: at most {_MAX_CHANNELS} are possible")
    size = section.integer("size", 5, least=1)
    alpha, beta, kappa = (
        section.number(name, value) for name, value in (("alpha", 1e-4), ("beta", 0.75), ("kappa", 1))
    )
    if size // 2 > x.channels:
        raise section.error(f"size={size}: half of it is more than the input's {x.channels} channels", "size")
    graph = net.graph
    # The sums over the neighbours are a 1x1 convolution of the squares.
    kernel = (alpha * _neighbours(x.channels, size))[:, :, None, None].astype(np.float32)
    bias = np.full(x.channels, kappa, np.float32)
    squares = graph.add("Mul", x.name, x.name)
    norms = graph.add("Conv", squares, graph.constant(kernel, "neighbours"), graph.constant(bias, "kappa"))
    factor = graph.add("Pow", norms, graph.constant(np.array(-beta, np.float32), "beta"))
    return Tensor(graph.add("Mul", x.name, factor), x.channels, *x.hw)


def _neighbours(channels: int, size: int) -> FloatArray:
    """Return which squares are in each channel's sum, as Darknet has them: float32 [channels, channels].

    It slides a window from one channel to the next, but begins with one square too few, so that this one is missing
    in the sums where it should be and taken out where it is not: it comes in with a factor of -1 there.
    """
    sums = np.zeros((channels, channels), np.float32)
    sums[0, : size // 2] = 1
    for channel in range(1, channels):
        sums[channel] = sums[channel - 1]
        first, last = channel - (size - 1) // 2 - 1, channel + size // 2
        if first >= 0:
            sums[channel, first] -= 1
        if last < channels:
            sums[channel, last] += 1
    return sums
