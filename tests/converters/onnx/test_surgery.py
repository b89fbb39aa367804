"""Changing a graph without changing what it computes, where nodes hold graphs of their own."""

import numpy as np
import onnx
import onnxruntime
import pytest
from converters.onnx import graphs
from onnx import TensorProto, helper

from trtjob.converters.onnx.surgery import cut, keep_names_apart, sort_nodes


def branching() -> onnx.ModelProto:
    """A graph whose branches read values from outside, by names that are ours."""
    then = helper.make_graph(
        [graphs.node("Add", "boxes scores", "input/a")], "then", [], [graphs.value("input/a", [2])]
    )
    other = helper.make_graph([graphs.node("Neg", "boxes", "b")], "other", [], [graphs.value("b", [2])])
    return graphs.model(
        [
            graphs.node("Mul", "images two", "boxes"),
            graphs.node("If", "is_high", "scores_out", then_branch=then, else_branch=other),
            graphs.node("Neg", "boxes", "unused"),
        ],
        [graphs.constant("two", [2, 2]), graphs.constant("scores", [10, 20]), graphs.constant("lost", [0])],
        [graphs.value("images", [2]), graphs.value("is_high", [], TensorProto.BOOL)],
        [graphs.value("scores_out", [2]), graphs.value("unused", [2])],
    )


def run(made: onnx.ModelProto, image: str, *, is_high: bool) -> list[float]:
    onnx.checker.check_model(made)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {image: np.array([1, 2], np.float32), "is_high": np.array(is_high)}
    values: list[float] = session.run(["scores_out"], feeds)[0].tolist()
    return values


both_branches = pytest.mark.parametrize(
    ("is_high", "expected"), [pytest.param(True, [12, 24], id="then"), pytest.param(False, [-2, -4], id="else")]
)


@both_branches
def test_names_are_changed_inside_branches_too(is_high: bool, expected: list[float]) -> None:
    made = branching()
    changed = keep_names_apart(made)
    assert set(changed) == {"images", "boxes", "scores", "input/a"}
    assert run(made, changed["images"], is_high=is_high) == expected


def test_a_changed_name_meets_no_other() -> None:
    made = branching()
    for node in made.graph.node:
        node.output[:] = [{"unused": "model/boxes"}.get(name, name) for name in node.output]
    assert keep_names_apart(made)["boxes"] == "model/model/boxes"


@both_branches
def test_what_branches_read_is_not_cut_off(is_high: bool, expected: list[float]) -> None:
    made = branching()
    cut(made, made.graph.output[0])
    assert [value.name for value in made.graph.output] == ["scores_out"]
    assert {tensor.name for tensor in made.graph.initializer} == {"two", "scores"}
    assert len(made.graph.node) == 2
    assert run(made, "images", is_high=is_high) == expected


def test_an_output_without_a_name_leads_to_nothing() -> None:
    """An input that is left out has no name either, and nobody makes it."""
    made = graphs.model(
        [
            helper.make_node("Dropout", ["x"], ["other", ""]),
            helper.make_node("Clip", ["x", "", "two"], ["scores"]),
        ],
        [graphs.constant("two", 2)],
        [graphs.value("x", [2])],
        [graphs.value("scores", [2]), graphs.value("other", [2])],
    )
    cut(made, made.graph.output[0])
    assert [node.op_type for node in made.graph.node] == ["Clip"]
    onnx.checker.check_model(made)


@both_branches
def test_nodes_come_after_what_their_branches_read(is_high: bool, expected: list[float]) -> None:
    made = branching()
    nodes = [made.graph.node[index] for index in (1, 2, 0)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del made.graph.node[:]
    made.graph.node.extend(copies)
    sort_nodes(made.graph)
    assert run(made, "images", is_high=is_high) == expected


def test_a_circle_is_left_to_the_check() -> None:
    made = graphs.model(
        [graphs.node("Neg", "b", "a"), graphs.node("Neg", "a", "b")],
        [],
        [graphs.value("x", [1])],
        [graphs.value("a", [1])],
    )
    sort_nodes(made.graph)
    assert len(made.graph.node) == 2
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(made)
