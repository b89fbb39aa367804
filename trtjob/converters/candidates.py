"""The last step before a detector is written: its output `candidates`, the few boxes of an image that are looked at.

They are 24 KB of an image where `boxes` and `scores` of 80 classes are 344, and only they leave the GPU as images run.
"""

from onnx import ModelProto, TensorProto, helper

from trtjob.converters.graph import Graph
from trtjob.engines.candidates import WIDTH, count_of
from trtjob.engines.spec import BOXES_NAME, CANDIDATES_NAME, EXTRAS_NAME, SCORES_NAME, ModelSpec, Task

_SCOPE = f"{CANDIDATES_NAME}/"


def add_candidates(model: ModelProto, spec: ModelSpec) -> None:
    """Append `candidates`, float32 [N, M, 6 + extras], to a detector, in place, unless it has them.

    They are those of `candidates_from`, equal ones in any order. The operators mean the same from opset 13 on.
    """
    outputs = {value.name: value for value in model.graph.output}
    if spec.task is not Task.DETECT or CANDIDATES_NAME in outputs:
        return
    batch, boxes, classes = outputs[SCORES_NAME].type.tensor_type.shape.dim
    graph = Graph()
    graph.scope = CANDIDATES_NAME
    count = count_of(boxes.dim_value, classes.dim_value, spec)
    best = _best_pairs if spec.multi_label else _best_classes
    scores, rows, class_ids = best(graph, count, boxes.dim_value, classes.dim_value)
    last = graph.integers(2)
    chosen = graph.add("Unsqueeze", rows, last)
    extras = [graph.add("GatherND", EXTRAS_NAME, chosen, batch_dims=1)] if spec.extras else []
    graph.add(
        "Concat",
        graph.add("GatherND", BOXES_NAME, chosen, batch_dims=1),
        graph.add("Unsqueeze", scores, last),
        graph.add("Unsqueeze", graph.add("Cast", class_ids, to=TensorProto.FLOAT), last),
        *extras,
        output=CANDIDATES_NAME,
        axis=2,
    )
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.constants)
    shape = [batch.dim_param or batch.dim_value, count, WIDTH + spec.extras]
    model.graph.output.append(helper.make_tensor_value_info(CANDIDATES_NAME, TensorProto.FLOAT, shape))


def _best_pairs(graph: Graph, count: int, boxes: int, classes: int) -> tuple[str, str, str]:
    """Append the best of all pairs. Returns their scores, boxes and classes, [N, M] each."""
    scores, pairs = graph.top_k(graph.add("Reshape", SCORES_NAME, graph.integers(0, boxes * classes)), count)
    rows = graph.add("Div", pairs, graph.integers(classes))
    return scores, rows, graph.add("Sub", pairs, graph.add("Mul", rows, graph.integers(classes)))


def _best_classes(graph: Graph, count: int, boxes: int, _classes: int) -> tuple[str, str, str]:
    """Append the best class of each of the best boxes. Returns as `_best_pairs`."""
    flat = graph.integers(0, boxes)
    best, class_ids = (graph.add("Reshape", values, flat) for values in graph.top_k(SCORES_NAME, 1, axis=2))
    scores, rows = graph.top_k(best, count)
    return scores, rows, graph.add("GatherElements", class_ids, rows, axis=1)


def remove_candidates(model: ModelProto) -> None:
    """Undo `add_candidates`: what changes a model's precision must not see them."""
    graph = model.graph
    for values in (graph.node, graph.initializer, graph.output):
        for index in reversed(range(len(values))):
            if f"{values[index].name}/".startswith(_SCOPE):
                del values[index]
