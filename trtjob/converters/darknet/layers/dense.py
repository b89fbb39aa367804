"""[connected], and what works on whole vectors: [softmax]."""

import numpy as np

from trtjob.converters.darknet.activations import activate
from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.layers.folding import factor_and_shift, normalised, take_statistics
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.tensor import Tensor
from trtjob.converters.darknet.tree import group_softmax, tree_of


def connected(net: Network, section: Section, x: Tensor) -> Tensor:
    """Every value to every output, with batch normalisation folded in, and activation (connected_layer.c)."""
    count = section.integer("output", 1, least=1)
    bias = net.take(section, "biases", count)
    weights = net.take(section, "weights", count, x.size)
    if section.integer("batch_normalize", 0):  # unlike a convolution's, after the weights
        factor, shift = factor_and_shift(net, section, bias, take_statistics(net, section, count))
        weights, bias = normalised(net, section, weights, factor, shift)
    graph = net.graph
    flat = graph.add("Flatten", x.name, axis=1)
    y = graph.add("Gemm", flat, graph.constant(weights, "weights"), graph.constant(bias, "bias"), transB=1)
    y = graph.add("Reshape", y, graph.integers(0, count, 1, 1))
    return Tensor(activate(graph, section, y, default="logistic"), count, 1, 1)


def softmax(net: Network, section: Section, x: Tensor) -> Tensor:
    """Softmax over the whole vector, or each of its groups (softmax_layer.c).

    With `spatial`: over the channels at each place, without temperature, as Darknet does on a GPU; its CPU code does
    not look at the option.
    """
    temperature = section.number("temperature", 1)
    if temperature <= 0:
        raise section.error(f"temperature={temperature:g}: expected a number above 0", "temperature")
    tree = tree_of(section, net.weights.path)
    if tree is None and section.number("spatial", 0):
        return Tensor(net.graph.add("Softmax", x.name, axis=1), x.channels, *x.hw)
    groups = section.integer("groups", 1, least=1)
    if x.size % groups:
        raise section.error(f"groups={groups}: the input's {x.size} values cannot be divided by it", "groups")
    graph = net.graph
    y = x.name
    if temperature != 1:
        y = graph.add("Div", y, graph.constant(np.array(temperature, np.float32), "temperature"))
    if tree is None:
        y = graph.add("Softmax", graph.add("Reshape", y, graph.integers(0, groups, -1)), axis=2)
    else:
        tree.expect(section, x.size)
        net.tree = tree
        y = group_softmax(graph, tree, graph.add("Reshape", y, graph.integers(0, 1, -1)))
    return Tensor(graph.add("Reshape", y, graph.integers(0, x.channels, x.height, x.width)), x.channels, *x.hw)
