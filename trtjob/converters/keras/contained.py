"""TensorFlow graphs that stay within themselves: neither their loading nor their run touches what is not theirs."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from trtjob.converters.request import ConversionRequest
from trtjob.errors import ConversionError

# The families of TensorFlow's operations that read or write files, reach into a network, or call back into Python.
_REACHES_OUT = re.compile(
    "File(?!name|spec)|Reader|Record|LMDB|Dataset|DataService|Save|Restore|Checkpoint|LoadAndRemap|Summary|ImportEvent|"
    "Print|Dump|^Debug|PyFunc|Rpc"
)
_RESTORING = frozenset({"RestoreV2"})
# What restores and saves a model's own variables, and no answer runs.
_SAVER = _RESTORING | {"SaveV2", "MergeV2Checkpoints"}
_NOTHING: frozenset[str] = frozenset()
_INITIALISERS = ("saved_model_main_op", "legacy_init_op")


def expect_contained(graph_def: Any, request: ConversionRequest) -> None:
    """Raise ConversionError for a graph whose run reaches beyond its inputs."""
    _expect(_all_nodes(graph_def), request, _NOTHING)


def expect_dormant(graph_def: Any, request: ConversionRequest) -> None:
    """Raise ConversionError for what reaches out of a graph, but for a saver, which must not be run."""
    _expect(_all_nodes(graph_def), request, _SAVER)


def expect_loadable(meta: Any, request: ConversionRequest) -> None:
    """Raise ConversionError for a SavedModel (its MetaGraphDef) whose loading does more than restore its variables."""
    graph_def = meta.graph_def
    expect_dormant(graph_def, request)
    bodies = {function.signature.name: function.node_def for function in graph_def.library.function}
    if meta.object_graph_def.nodes:
        # TensorFlow 2 restores by itself; to make tables and the like, it runs some of these functions.
        roots = [node for name in meta.object_graph_def.concrete_functions for node in bodies.get(name, ())]
        _expect(_called(roots, bodies), request, _NOTHING)
    else:
        roots = list(_above(graph_def, _run_at_start(meta)))
        _expect(_called(roots, bodies), request, _RESTORING)


def _expect(nodes: Iterable[Any], request: ConversionRequest, allowed: frozenset[str]) -> None:
    for node in () if request.allow_unsafe else nodes:
        if _REACHES_OUT.search(node.op) and node.op not in allowed:
            raise ConversionError(
                f"'{request.model}': the operation '{node.name}' ({node.op}) reads or writes files or runs Python when "
                "the graph is run. Export the model without it, or pass --allow-unsafe if you trust whoever made it"
            )


def _all_nodes(graph_def: Any) -> Iterator[Any]:
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def _run_at_start(meta: Any) -> set[str]:
    """Return the nodes that TensorFlow 1's loader runs."""
    names = {meta.saver_def.restore_op_name}
    for key in _INITIALISERS:
        names.update(meta.collection_def[key].node_list.value if key in meta.collection_def else ())
    for key, signature in meta.signature_def.items():
        if key.startswith("__saved_model_"):
            names.update(output.name for output in signature.outputs.values())
    return names


def _above(graph_def: Any, names: Iterable[str]) -> Iterator[Any]:
    """Yield the nodes of these names and all that they depend on."""
    nodes = {node.name: node for node in graph_def.node}
    pending, seen = [node_name(name) for name in names], set[str]()
    while pending:
        node = nodes.get(pending.pop())
        if node is not None and node.name not in seen:
            seen.add(node.name)
            pending += map(node_name, node.input)
            yield node


def node_name(value: str) -> str:
    """Return the name of the node that makes a value, or that has to run before: `conv` of `conv:0` and of `^conv`."""
    return value.lstrip("^").split(":")[0]


def _called(roots: list[Any], bodies: dict[str, Any]) -> Iterator[Any]:
    """Yield nodes, and those of all functions that they call, and so on."""
    pending, seen = list(roots), set[str]()
    while pending:
        node = pending.pop()
        yield node
        called = {node.op}
        for value in node.attr.values():
            called |= {value.func.name, *(function.name for function in value.list.func)}
        for name in called & bodies.keys() - seen:
            seen.add(name)
            pending += bodies[name]
