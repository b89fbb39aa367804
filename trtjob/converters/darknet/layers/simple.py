"""Layers that do little or, once training is over, nothing."""

from dataclasses import replace

from trtjob.converters.darknet.activations import activate
from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.tensor import Tensor
from trtjob.engines.spec import INPUT_NAME


def activation(net: Network, section: Section, x: Tensor) -> Tensor:
    """An activation by itself (activation_layer.c)."""
    return replace(x, name=activate(net.graph, section, x.name, default="linear"))


def unchanged(_net: Network, _section: Section, x: Tensor) -> Tensor:
    """What only training looks at: [dropout], [cost], and [empty], which is made to do nothing."""
    return x


def contrastive(net: Network, section: Section, x: Tensor) -> Tensor:
    """The loss of embeddings; it has no output once training is over (representation_layer.c)."""
    for name in ("classes", "temperature"):
        section.text(name, "")
    return replace(x, is_head=True)


def implicit(net: Network, section: Section, _x: Tensor) -> Tensor:
    """Learned values that do not depend on the image (representation_layer.c)."""
    filters, atoms = section.integer("filters", 128, least=1), section.integer("atoms", 1, least=1)
    graph = net.graph
    values = graph.constant(net.take(section, "weights", filters, atoms)[:, :, None], "values")
    batch = graph.add("Shape", INPUT_NAME, start=0, end=1)
    shape = graph.add("Concat", batch, graph.integers(filters, atoms, 1), axis=0)
    return Tensor(graph.add("Expand", values, shape), filters, atoms, 1)
