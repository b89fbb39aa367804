import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from converters.precision import nets
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from trtjob.converters.artefact import Converted
from trtjob.converters.precision.calibration import observe
from trtjob.converters.precision.int8 import ACTIVATION_STEPS, WEIGHT_STEPS, int8_plan, quantized
from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import BOXES_NAME, SCORES_NAME
from trtjob.errors import ConversionError

Constants = dict[str, NDArray[np.generic]]


@pytest.fixture
def detector(tmp_path: Path) -> Converted:
    return nets.detector(tmp_path)


def int8_of(model: ModelProto, images: UInt8Array) -> ModelProto:
    plan = int8_plan(model)
    histograms = observe(plan.model, plan.values, images, lambda _: None)
    return quantized(plan, {name: histogram.largest for name, histogram in histograms.items()})


def int8_detector(detector: Converted) -> ModelProto:
    return int8_of(detector.model, nets.images(4, (32, 32)))


def makers_of(model: ModelProto) -> dict[str, str]:
    return {name: node.op_type for node in model.graph.node for name in node.output}


def chain(*layers: tuple[str, str], constants: Constants, classes: int = 3) -> ModelProto:
    """Return a classifier of convolutions, (name, kernel) each, without activations."""
    nodes, value = [], "pixels"
    for name, weights in layers:
        bias = [f"{name}_bias"] if f"{name}_bias" in constants else []
        nodes.append(nets.layer("Conv", [value, weights, *bias], name))
        value = name
    nodes += [nets.layer("GlobalAveragePool", [value], "mean"), nets.layer("Flatten", ["mean"], SCORES_NAME)]
    return nets.classifier(nodes, constants, classes)


# --- what becomes int8


def test_the_model_takes_and_gives_what_it_did(detector: Converted) -> None:
    lowered = int8_detector(detector)
    onnx.checker.check_model(lowered, full_check=True)
    assert list(lowered.graph.input) == list(detector.model.graph.input)
    assert list(lowered.graph.output) == list(detector.model.graph.output)


def test_all_layers_but_the_first_and_the_last_read_and_give_int8(detector: Converted) -> None:
    lowered = int8_detector(detector)
    makers = makers_of(lowered)
    readers = {name: node.op_type for node in lowered.graph.node for name in node.input}
    first, *inner, last = nets.nodes_of(lowered, "Conv")
    assert len(inner) == 3
    for node in inner:
        assert [makers[name] for name in node.input[:2]] == ["DequantizeLinear"] * 2
        assert readers[node.output[0]] == "QuantizeLinear"
    for node in (first, last):
        assert makers.get(node.input[1]) is None
        assert makers[node.input[0]] != "DequantizeLinear"


def test_what_makes_boxes_and_scores_stays_float(detector: Converted) -> None:
    makers = makers_of(int8_detector(detector))
    decoding = [node for node in int8_detector(detector).graph.node if node.name.startswith("decode/")]
    assert decoding
    assert "DequantizeLinear" not in {makers.get(name) for node in decoding for name in node.input}


def test_every_zero_point_is_zero_and_int8(detector: Converted) -> None:
    # TensorRT's parser refuses any other.
    lowered = int8_detector(detector)
    pairs = [*nets.nodes_of(lowered, "QuantizeLinear"), *nets.nodes_of(lowered, "DequantizeLinear")]
    zeros = [nets.constant(lowered, node.input[2]) for node in pairs]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)


def test_biases_stay_float(detector: Converted) -> None:
    # TensorRT has no DequantizeLinear of int32.
    lowered = int8_detector(detector)
    types = nets.types_of(lowered)
    assert {types[node.input[2]] for node in nets.nodes_of(lowered, "Conv")} == {TensorProto.FLOAT}


def test_weights_have_7_bits_and_steps_for_each_channel(detector: Converted) -> None:
    lowered = int8_detector(detector)
    quantized_weights = [node for node in nets.nodes_of(lowered, "DequantizeLinear") if "weights" in node.name]
    assert len(quantized_weights) == 3
    for node in quantized_weights:
        weights, steps = (nets.constant(lowered, name) for name in node.input[:2])
        assert np.abs(weights.reshape(len(weights), -1).astype(np.int64)).max(1).tolist() == [WEIGHT_STEPS] * 8
        assert steps.shape == (8,)


def test_what_only_moves_values_keeps_their_steps(detector: Converted) -> None:
    lowered = int8_detector(detector)
    (resize,) = nets.nodes_of(lowered, "Resize")
    steps = {node.output[0]: node.input[1] for node in nets.nodes_of(lowered, "DequantizeLinear")}
    before = nets.constant(lowered, steps[resize.input[0]])
    after = nets.constant(lowered, steps[f"{resize.output[0]}/dequantized"])
    assert before == after


def test_a_step_is_the_127th_part_of_what_is_kept() -> None:
    model = chain(("a", "k"), ("b", "k"), ("c", "k"), constants={"k": nets.kernel(3, 3)})
    plan = int8_plan(model)
    assert plan.values == ("a", "b")
    lowered = quantized(plan, {"a": 12.7, "b": 0.0})
    assert nets.constant(lowered, "a/step") == np.float32(12.7 / ACTIVATION_STEPS)
    assert nets.constant(lowered, "b/step") == 1  # nothing but zeros was seen


def test_a_step_is_no_zero_though_next_to_nothing_was_seen() -> None:
    plan = int8_plan(chain(("a", "k"), ("b", "k"), ("c", "k"), constants={"k": nets.kernel(3, 3)}))
    lowered = quantized(plan, {"a": 1e-44, "b": 1e-36})
    assert nets.constant(lowered, "a/step") == nets.constant(lowered, "b/step") == 1


def test_a_convolution_to_one_channel_at_the_end_is_not_taken_for_a_layer() -> None:
    """So the mean of a distribution is computed, in which newer YOLO models give a box's edges."""
    constants: Constants = {"k": nets.kernel(3, 3), "bins": np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1)}
    model = chain(("a", "k"), ("b", "k"), ("c", "k"), ("mean_bin", "bins"), constants=constants, classes=1)
    assert int8_plan(model).values == ("a", "b")


@pytest.mark.parametrize("layers", [1, 2])
def test_a_model_that_has_no_layer_between_the_first_and_the_last_is_refused(layers: int) -> None:
    names = [(name, "k") for name in "ab"[:layers]]
    with pytest.raises(ConversionError, match="nothing in this model can become int8"):
        int8_plan(chain(*names, constants={"k": nets.kernel(3, 3)}))


# --- what it answers


def test_a_detectors_answers_are_near_those_of_float32(detector: Converted) -> None:
    batch = nets.images(4, (32, 32))
    expected, found = nets.run(detector.model, batch), nets.run(int8_of(detector.model, batch), batch)
    for name, tolerance in ((BOXES_NAME, 3.0), (SCORES_NAME, 0.1)):
        np.testing.assert_allclose(np.sort(found[name], 1), np.sort(expected[name], 1), atol=tolerance)


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Sigmoid", "HardSwish", "Mish", "Elu", "Softplus"])
def test_any_activation_may_stand_between_the_layers(activation: str) -> None:
    model, images = nets.plain_classifier(activation=activation), nets.images(4)
    expected, found = (nets.run(m, images)[SCORES_NAME] for m in (model, int8_of(model, images)))
    np.testing.assert_allclose(found, expected, atol=0.03)


def matrix_product(op: str, **attributes: int | float) -> ModelProto:
    """Return three matrix products, the middle one of a kind."""
    shape = (5, 4) if attributes.get("transB") else (4, 5)
    nodes = [
        nets.layer("GlobalAveragePool", ["pixels"], "mean"),
        nets.layer("Flatten", ["mean"], "flat"),
        nets.layer("MatMul", ["flat", "first"], "a"),
        nets.layer(op, ["a", "middle", *(["offset"] if op == "Gemm" else [])], "b", **attributes),
        nets.layer("MatMul", ["b", "last"], SCORES_NAME),
    ]
    constants: Constants = {
        "first": nets.kernel(3, 4)[:, :, 0, 0],
        "middle": nets.kernel(*shape, seed=1)[:, :, 0, 0] * np.array([1, 10, 0.1, 2, 3][: shape[1]], np.float32),
        "offset": np.arange(5, dtype=np.float32),
        "last": nets.kernel(5, 3, seed=2)[:, :, 0, 0],
    }
    return nets.classifier(nodes, constants, 3)


PRODUCTS = {
    "MatMul": matrix_product("MatMul"),
    "Gemm": matrix_product("Gemm"),
    "Gemm of a transposed matrix": matrix_product("Gemm", transB=1),
}


@pytest.mark.parametrize("model", PRODUCTS.values(), ids=PRODUCTS)
def test_a_matrix_product_becomes_int8_by_column(model: ModelProto) -> None:
    images = nets.images(4)
    lowered = int8_of(model, images)
    (steps,) = (nets.constant(lowered, name) for name in ["b/weights/steps"])
    assert steps.shape == (5,)
    expected, found = (nets.run(m, images)[SCORES_NAME] for m in (model, lowered))
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


def test_a_matrix_product_with_factors_stays_float() -> None:
    with pytest.raises(ConversionError, match="nothing in this model can become int8"):
        int8_plan(matrix_product("Gemm", alpha=0.5))


def test_a_channel_of_almost_no_weights_keeps_its_bias() -> None:
    """Its bias, in steps as small as its weights, would not fit into ONNX Runtime's 32 bits."""
    weights = nets.kernel(3, 3)
    weights[1] = 1e-14
    constants: Constants = {
        "k": nets.kernel(3, 3, seed=1),
        "weak": weights,
        "b_bias": np.array([0.1, 0.5, -0.2], np.float32),
    }
    model, images = chain(("a", "k"), ("b", "weak"), ("c", "k"), constants=constants), nets.images(2)
    expected, found = (nets.run(m, images)[SCORES_NAME] for m in (model, int8_of(model, images)))
    np.testing.assert_allclose(found, expected, atol=0.05)


# --- the first layer's pooling


def stem(activation: str, **attributes: float) -> ModelProto:
    nodes = [
        nets.layer("Conv", ["pixels", "k"], "a"),
        nets.layer(activation, ["a"], "active", **attributes),
        nets.layer("MaxPool", ["active"], "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        nets.layer("Conv", ["pooled", "k"], "b"),
        nets.layer("Conv", ["b", "k"], "c"),
        nets.layer("GlobalAveragePool", ["c"], "mean"),
        nets.layer("Flatten", ["mean"], SCORES_NAME),
    ]
    return nets.classifier(nodes, {"k": nets.kernel(3, 3)}, 3)


RISING = {"Relu": stem("Relu"), "LeakyRelu": stem("LeakyRelu", alpha=0.1)}
OTHERS = {"Elu": stem("Elu"), "LeakyRelu that falls": stem("LeakyRelu", alpha=-0.1)}


@pytest.mark.parametrize("model", RISING.values(), ids=RISING)
def test_the_first_pooling_goes_before_a_rising_activation_and_changes_nothing(model: ModelProto) -> None:
    plan = int8_plan(model)
    order = [node.op_type for node in plan.model.graph.node]
    assert order[4] == "MaxPool"
    images = nets.images(2)
    expected, found = (nets.run(m, images)[SCORES_NAME] for m in (model, plan.model))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("model", OTHERS.values(), ids=OTHERS)
def test_a_pooling_stays_behind_any_other_activation(model: ModelProto) -> None:
    assert [node.op_type for node in int8_plan(model).model.graph.node][5] == "MaxPool"


# --- bytes


def test_lowering_leaves_the_float_model_as_it_is(detector: Converted) -> None:
    before = detector.model.SerializeToString(deterministic=True)
    int8_detector(detector)
    assert detector.model.SerializeToString(deterministic=True) == before


def test_a_model_of_nameless_nodes_and_constants_in_nodes_becomes_the_same() -> None:
    """Other tools write so."""
    model, images = nets.plain_classifier(), nets.images(2)
    other = ModelProto()
    other.CopyFrom(model)
    tensors = list(other.graph.initializer)
    del other.graph.initializer[:]
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in tensors]
    nodes += list(model.graph.node)
    del other.graph.node[:]
    other.graph.node.extend(nodes)
    for node in other.graph.node:
        node.name = ""
    found, expected = (nets.run(int8_of(m, images), images)[SCORES_NAME] for m in (other, model))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    nets.write_darknet(tmp_path)
    code = (
        "import sys, hashlib; from pathlib import Path; from converters.precision import nets, test_int8 as t\n"
        "model = t.int8_detector(nets.detector(Path(sys.argv[1])))\n"
        "print(hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1
