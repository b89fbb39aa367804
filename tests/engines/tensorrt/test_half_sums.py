"""Sums that are rounded while they grow, beside the same written out in NumPy, and a plan that adds like that."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from converters.darknet import test_random_networks as random_networks
from engines.tensorrt import conversions
from engines.tensorrt.test_agreement import flatten_wrongly
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.spec import INPUT_NAME, SCORES_NAME, ModelSpec, Task
from trtjob.engines.tensorrt.agreement import disagreement
from trtjob.engines.tensorrt.half_sums import round_sums
from trtjob.engines.tensorrt.selfcheck import check_plan, lively_image, reference, rounded_too
from trtjob.errors import EngineError

Halves = NDArray[np.float16]


def halves(seed: int, *shape: int, mean: float = 0.5) -> Halves:
    return np.random.default_rng(seed).normal(mean, 1, shape).astype(np.float16)


def layer(op: str, values: Halves, weights: Halves, bias: Halves | None, **options: Any) -> ModelProto:
    constants = {"weights": weights} | ({} if bias is None else {"bias": bias})
    return model_of(
        [helper.make_node(op, ["values", *constants], ["found"], **options)],
        helper.make_tensor_value_info("values", TensorProto.FLOAT16, values.shape),
        helper.make_tensor_value_info("found", TensorProto.FLOAT16, None),
        constants,
    )


def model_of(
    nodes: list[NodeProto], given: ValueInfoProto, found: ValueInfoProto, constants: Mapping[str, NDArray[Any]]
) -> ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "made", [given], [found], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: ModelProto, values: Halves) -> Halves:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["found"], {"values": values})[0])


def added(pieces: list[NDArray[np.float32]]) -> Halves:
    total = np.zeros_like(pieces[0], np.float16)
    for piece in pieces:
        total = (total.astype(np.float32) + piece).astype(np.float16)
    return total


def product(values: Halves, weights: Halves, each: int = 16) -> Halves:
    wide = values.astype(np.float32), weights.astype(np.float32)
    count = values.shape[-1]
    return added([wide[0][..., at : at + each] @ wide[1][at : at + each] for at in range(0, count, each)])


@pytest.mark.parametrize("is_turned", [0, 1])
def test_a_dense_layer(is_turned: int) -> None:
    values, weights, bias = halves(1, 1, 480), halves(2, 480, 7), halves(3, 7)
    stored = np.ascontiguousarray(weights.T) if is_turned else weights
    model = layer("Gemm", values, stored, bias, transB=is_turned)
    once = run(model, values)
    assert round_sums(model.graph)
    found = run(model, values)
    assert found.tobytes() == (product(values, weights) + bias).tobytes()
    assert found.tobytes() != once.tobytes()


@pytest.mark.parametrize("opset", [13, 18])
def test_a_product_of_rows_of_rows(opset: int) -> None:
    values, weights = halves(1, 1, 5, 96), halves(2, 96, 4)
    model = layer("MatMul", values, weights, None)
    model.opset_import[0].version = opset
    assert round_sums(model.graph)
    assert run(model, values).tobytes() == product(values, weights).tobytes()


def test_a_bias_may_be_left_out_by_its_name() -> None:
    values, weights = halves(1, 1, 96), halves(2, 96, 4)
    model = layer("Gemm", values, weights, None)
    model.graph.node[0].input.append("")
    assert round_sums(model.graph)
    assert run(model, values).tobytes() == product(values, weights).tobytes()


def test_a_convolution_by_its_channels() -> None:
    values, weights, bias = halves(1, 1, 40, 6, 5), halves(2, 8, 40, 3, 3), halves(3, 8)
    options = {"strides": [2, 1], "pads": [1, 1, 1, 1]}
    model = layer("Conv", values, weights, bias, **options)
    assert round_sums(model.graph)
    each = 10  # the largest part of 40 up to 16
    pieces = [
        run(
            layer("Conv", values[:, at : at + each], weights[:, at : at + each], None, **options),
            values[:, at : at + each],
        )
        for at in range(0, 40, each)
    ]
    expected = added([piece.astype(np.float32) for piece in pieces]) + bias[:, None, None]
    np.testing.assert_allclose(run(model, values), expected, rtol=2e-3, atol=0.1)  # the pieces here are rounded, too


@pytest.mark.parametrize(
    "model",
    [
        layer("Conv", halves(1, 1, 16, 4, 4), halves(2, 3, 16, 3, 3), None),
        layer("Conv", halves(1, 1, 64, 4, 4), halves(2, 64, 1, 3, 3), None, group=64),
        layer("Gemm", halves(1, 1, 64), halves(2, 64, 4), halves(3, 4), alpha=2.0),
    ],
    ids=["short", "in groups", "scaled"],
)
def test_others_stay_as_they_are(model: ModelProto) -> None:
    before = model.SerializeToString()
    assert not round_sums(model.graph)
    assert model.SerializeToString() == before


# -- in the check of a plan --------------------------------------------------------------------------------------------

SPEC = ModelSpec(task=Task.CLASSIFY, labels=tuple("abcdefgh"), input_hw=(64, 64), precision="fp16")


def dense(order: NDArray[np.int64]) -> ModelProto:
    """Return a classifier of 12,288 inputs that are added in an order: a network of its own for who rounds."""
    size = 64 * 64 * 3
    weights = halves(4, size, 8, mean=0.3).astype(np.float32) / 60
    constants = {
        "order": order,
        "flat": np.array([0, size]),
        "scale": np.array(1 / 255, np.float16),
        "weights": weights[order].astype(np.float16),
    }
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["halves"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["halves", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["row"]),
        helper.make_node("Gather", ["row", "order"], ["ordered"], axis=1),
        helper.make_node("MatMul", ["ordered", "weights"], ["logits"]),
        helper.make_node("Cast", ["logits"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Softmax", ["wide"], [SCORES_NAME]),
    ]
    return model_of(
        nodes,
        helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", 64, 64, 3]),
        helper.make_tensor_value_info(SCORES_NAME, TensorProto.FLOAT, ["N", 8]),
        constants,
    )


def test_a_plan_that_adds_halves_to_halves_passes(tmp_path: Path) -> None:
    count = 64 * 64 * 3
    path = conversions.write(dense(np.arange(count)), SPEC, tmp_path / "net.onnx")
    plan = dense(np.arange(count)[::-1].copy())
    assert round_sums(plan.graph)
    image = lively_image(SPEC)
    with open_engine(conversions.write(plan, SPEC, tmp_path / "plan.onnx"), threads=1) as engine:
        assert disagreement(engine.infer(image), reference(path, SPEC, image), SPEC) is not None
        check_plan(engine, path, batch=1, title="TensorRT 8.6.1")


def test_one_of_another_network_does_not(tmp_path: Path) -> None:
    count = 64 * 64 * 3
    path = conversions.write(dense(np.arange(count)), SPEC, tmp_path / "net.onnx")
    other = dense(np.arange(count))
    (weights,) = [tensor for tensor in other.graph.initializer if tensor.name == "weights"]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights)[:, ::-1].copy(), "weights"))
    with (
        open_engine(conversions.write(other, SPEC, tmp_path / "other.onnx"), threads=1) as engine,
        pytest.raises(EngineError, match="logits differ"),
    ):
        check_plan(engine, path, batch=1, title="TensorRT 8.6.1")


def test_where_a_layer_has_several_images_in_hand_there_is_no_second_reference(tmp_path: Path) -> None:
    model = dense(np.arange(64 * 64 * 3))
    (product,) = [node for node in model.graph.node if node.op_type == "MatMul"]
    at = list(model.graph.node).index(product)
    constants = {
        "halved": np.array([2, 32, 192, 1]),
        "kernel": halves(6, 32, 32, 1, 1) / 8,
        "whole": np.array([1, 64 * 64 * 3]),
    }
    for node in (
        helper.make_node("Reshape", ["ordered", "halved"], ["two"]),
        helper.make_node("Conv", ["two", "kernel"], ["both"]),
        helper.make_node("Reshape", ["both", "whole"], ["one"]),
    ):
        model.graph.node.insert(at, node)
        at += 1
    product.input[0] = "one"
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    path = conversions.write(model, SPEC, tmp_path / "net.onnx")
    assert reference(path, SPEC, lively_image(SPEC)).scores.shape == (1, 8)
    assert rounded_too(path, SPEC, lively_image(SPEC)) is None


def test_a_misread_network_of_short_sums_is_no_more_than_before(tmp_path: Path) -> None:
    layers = random_networks.conv(6) + random_networks.layer("avgpool") + random_networks.layer("softmax")
    found = conversions.of_head(layers)
    spec = found.spec.model_copy(update={"precision": "fp16"})
    half = conversions.lower_precision(found, "fp16", lively_image(spec))
    path = conversions.write(half, spec, tmp_path / "half.onnx")
    assert rounded_too(path, spec, lively_image(spec)) is None
    flatten_wrongly(half)
    with (
        open_engine(conversions.write(half, spec, tmp_path / "misread.onnx"), threads=1) as engine,
        pytest.raises(EngineError, match="does not answer as the model does"),
    ):
        check_plan(engine, path, batch=1, title="TensorRT 8.6.1")
