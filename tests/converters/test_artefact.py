from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from trtjob.converters.artefact import model_from_graph, pieces, serialised, without_constants
from trtjob.converters.graph import Graph
from trtjob.converters.spill import SPILLED_BYTES, Spill, folder_of, gather, is_spilled, numbers_of
from trtjob.engines.spec import INPUT_NAME, METADATA_KEY, SCORES_NAME, ModelSpec, Task, parse_spec

SPEC = ModelSpec(task=Task.CLASSIFY, labels=("cat", "dog"), input_hw=(1, 2), channels=1, color="gray")


def graph_of(*constants: int) -> Graph:
    """Return a graph that adds constants of so many values each."""
    graph = Graph()
    x = graph.add("Cast", INPUT_NAME, to=onnx.TensorProto.FLOAT)
    for size in constants:
        x = graph.add("Add", x, graph.constant(np.arange(size, dtype=np.float32), "numbers"))
    graph.add("Reshape", x, graph.integers(0, 2), output=SCORES_NAME)
    return graph


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param((), id="hardly a constant"),
        pytest.param((1, 2, 1), id="small ones"),
        pytest.param((30, 3_000, 70_000), id="lengths of one, two and three bytes"),
    ],
)
def test_the_pieces_are_the_whole_file(sizes: tuple[int, ...]) -> None:
    model = model_from_graph(graph_of(*sizes), SPEC)
    joined = b"".join(pieces(model, SPEC))
    assert joined == model.SerializeToString(deterministic=True)
    assert joined == serialised(model, SPEC)


def with_large_constant(spill: Spill | None) -> onnx.ModelProto:
    graph = Graph(spill)
    numbers = np.arange(SPILLED_BYTES, dtype=np.float32).reshape(-1, 64)
    x = graph.add("Cast", INPUT_NAME, to=onnx.TensorProto.FLOAT)
    for array in (numbers, numbers.T, numbers[:1]):
        x = graph.add("Add", x, graph.constant(array, "numbers"))
    graph.add("Reshape", x, graph.integers(0, 2), output=SCORES_NAME)
    return model_from_graph(graph, SPEC)


def test_constants_on_the_disk_make_the_same_file() -> None:
    spill = Spill()
    model, whole = with_large_constant(spill), with_large_constant(None)
    assert [is_spilled(tensor) for tensor in model.graph.initializer] == [True, True, False, False]
    assert b"".join(pieces(model, SPEC)) == b"".join(pieces(whole, SPEC))
    gather(model)
    assert model == whole


def test_a_model_runs_beside_its_constants() -> None:
    spill = Spill()
    model = with_large_constant(spill)
    folder = folder_of(model)
    assert folder is not None
    (folder / "model.onnx").write_bytes(without_constants(model, SPEC))
    onnx.external_data_helper.load_external_data_for_model(linked := onnx.load(folder / "model.onnx"), str(folder))
    assert linked.graph.initializer[0].raw_data == b"".join(numbers_of(model.graph.initializer[0]))
    del spill
    assert not folder.exists()  # no one needs it any more
    assert folder_of(with_large_constant(None)) is None


def test_a_model_from_elsewhere_keeps_all_its_fields() -> None:
    model = model_from_graph(graph_of(3), SPEC)
    model.doc_string, model.domain, model.model_version = "text", "example", 7
    model.opset_import.append(helper.make_opsetid("custom", 2))
    model.graph.doc_string = "a graph"
    model.graph.value_info.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2]))
    model.functions.append(
        helper.make_function("custom", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [])
    )
    assert b"".join(pieces(model, SPEC)) == model.SerializeToString(deterministic=True)


def test_the_spec_replaces_what_the_model_carried() -> None:
    model = model_from_graph(graph_of(3), SPEC)
    helper.set_model_props(model, {METADATA_KEY: "{}", "other": "x"})
    (prop,) = onnx.load_model_from_string(serialised(model, SPEC)).metadata_props
    assert prop.key == METADATA_KEY
    assert parse_spec(prop.value, Path("a.onnx")) == SPEC


def test_the_constants_of_a_graph_are_moved_in_their_order() -> None:
    graph = graph_of(3, 5_000, 4)
    expected = [(constant.name, numpy_helper.to_array(constant).tolist()) for constant in graph.constants]
    model = model_from_graph(graph, SPEC)
    assert [(c.name, numpy_helper.to_array(c).tolist()) for c in model.graph.initializer] == expected
    assert graph.constants == []
