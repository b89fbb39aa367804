"""Change a foreign graph without changing what it computes: cut it down, and keep its names apart from ours."""

from collections.abc import Iterable

from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from trtjob.engines.graph_walk import graphs_of, values_read
from trtjob.engines.spec import (
    BOXES_NAME,
    CANDIDATES_NAME,
    EXTRAS_NAME,
    INPUT_NAME,
    PROTOTYPES_NAME,
    SCORES_NAME,
)

# The scopes of what is put before and after a foreign graph.
FRONT, END = "input", "decode"
_OURS = frozenset({INPUT_NAME, BOXES_NAME, SCORES_NAME, EXTRAS_NAME, PROTOTYPES_NAME, CANDIDATES_NAME})
# From it on, constants need not be inputs as well.
IR_OF_PLAIN_CONSTANTS = 4
_OUR_SCOPES = (f"{FRONT}/", f"{END}/", f"{CANDIDATES_NAME}/")


def sort_nodes(graph: GraphProto) -> None:
    """Put each node after those that it reads, as ONNX wants it; tools that lower precision append theirs at the end.

    Nodes that stand in order stay in it.
    """
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    order: dict[int, None] = {}
    waiting = list(range(len(graph.node)))[::-1]
    seen: set[int] = set()
    while waiting:
        index = waiting[-1]
        if index in order:
            waiting.pop()
            continue
        seen.add(index)
        earlier = dict.fromkeys(makers[name] for name in values_read(graph.node[index]) if name in makers)
        missing = [maker for maker in earlier if maker not in seen]
        if missing:  # in a circle, which the check finds, none is
            waiting.extend(reversed(missing))
        else:
            order[waiting.pop()] = None
    if list(order) != sorted(order):
        nodes = [NodeProto.FromString(graph.node[index].SerializeToString()) for index in order]
        del graph.node[:]
        graph.node.extend(nodes)


def cut(model: ModelProto, *outputs: ValueInfoProto) -> None:
    """Leave what leads to some outputs, as the model's only ones, and no texts of the exporter's: they hold its paths.

    Shapes of values inside are forgotten, too: another batch makes them wrong.
    """
    graph = model.graph
    # They may be parts of what is cleared now.
    kept_outputs = [ValueInfoProto.FromString(output.SerializeToString()) for output in outputs]
    names = {output.name for output in kept_outputs}
    del graph.output[:]
    graph.output.extend(kept_outputs)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    nodes = _leading_to(graph, names)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in values_read(node)} | names
    for field in (graph.initializer, graph.sparse_initializer):
        kept = [
            tensor for tensor in field if (tensor.name if field is graph.initializer else tensor.values.name) in read
        ]
        del field[:]
        field.extend(kept)
    del graph.input[:], model.training_info[:], model.metadata_props[:]
    graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, IR_OF_PLAIN_CONSTANTS)
    _forget_texts(model)


def _leading_to(graph: GraphProto, outputs: Iterable[str]) -> list[NodeProto]:
    """Return copies of the nodes that outputs depend on, in their order."""
    wanted, kept = set(outputs), []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(values_read(node))
            copy = NodeProto()
            copy.CopyFrom(node)
            kept.append(copy)
    return kept[::-1]


def _forget_texts(model: ModelProto) -> None:
    model.doc_string = ""
    for graph in graphs_of(model.graph):
        del graph.value_info[:], graph.metadata_props[:]
        graph.doc_string = ""
        for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
            part.doc_string = ""
            del part.metadata_props[:]
        for node in graph.node:
            for attribute in node.attribute:
                attribute.doc_string = ""


def keep_names_apart(model: ModelProto) -> dict[str, str]:
    """Give the values of a model other names where they could meet ours; return which, by their old names.

    A name is changed wherever it stands, in the graphs inside nodes, too, and its new one stood nowhere: it means what
    it meant.
    """
    known = {name for graph in graphs_of(model.graph) for name in _names(graph)}
    changed: dict[str, str] = {}
    for name in sorted(known):
        if name in _OURS or name.startswith(_OUR_SCOPES):
            new = f"model/{name}"
            while new in known:
                new = f"model/{new}"
            changed[name] = new
            known.add(new)
    if changed:
        for graph in graphs_of(model.graph):
            _rename(graph, changed)
    return changed


def _names(graph: GraphProto) -> Iterable[str]:
    yield from (tensor.name for tensor in (*graph.initializer, *graph.input, *graph.output))
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield from (*node.input, *node.output)


def _rename(graph: GraphProto, changed: dict[str, str]) -> None:
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = changed.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = changed.get(sparse.values.name, sparse.values.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = changed.get(annotation.tensor_name, annotation.tensor_name)
        for entry in annotation.quant_parameter_tensor_names:
            entry.value = changed.get(entry.value, entry.value)
    for node in graph.node:
        node.input[:] = [changed.get(name, name) for name in node.input]
        node.output[:] = [changed.get(name, name) for name in node.output]
