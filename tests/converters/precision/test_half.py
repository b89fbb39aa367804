import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from converters.precision import nets
from onnx import ModelProto, TensorProto, helper

from trtjob.converters.artefact import Converted
from trtjob.converters.precision.half import bf16, fp16, rounded_to_bf16, values_to_observe
from trtjob.engines.bf16_opset import BF16_OPSET
from trtjob.engines.spec import BOXES_NAME, INPUT_NAME, SCORES_NAME
from trtjob.errors import ConversionError

Lower = Callable[[ModelProto], ModelProto]
HALVES: dict[str, tuple[int, Lower]] = {
    "fp16": (TensorProto.FLOAT16, lambda model: fp16(model, {})[0]),
    "bf16": (TensorProto.BFLOAT16, bf16),
}
EACH = pytest.mark.parametrize(("half", "lower"), HALVES.values(), ids=HALVES)


@pytest.fixture
def detector(tmp_path: Path) -> Converted:
    return nets.detector(tmp_path)


# --- what becomes 16 bits, and what does not


@EACH
def test_the_model_takes_and_gives_what_it_did(detector: Converted, half: int, lower: Lower) -> None:
    lowered = lower(detector.model)
    onnx.checker.check_model(lowered, full_check=True)
    assert list(lowered.graph.input) == list(detector.model.graph.input)
    assert list(lowered.graph.output) == list(detector.model.graph.output)


@EACH
def test_every_convolution_computes_with_16_bits(detector: Converted, half: int, lower: Lower) -> None:
    lowered = lower(detector.model)
    types = nets.types_of(lowered)
    convolutions = nets.nodes_of(lowered, "Conv")
    assert len(convolutions) == 5
    assert {types[name] for node in convolutions for name in (*node.input, *node.output)} == {half}


@EACH
@pytest.mark.parametrize("scope", ["input", "decode"])
def test_both_ends_of_the_graph_stay_float(detector: Converted, half: int, lower: Lower, scope: str) -> None:
    lowered = lower(detector.model)
    types = nets.types_of(lowered)
    ends = [node for node in lowered.graph.node if node.name.startswith(f"{scope}/") and node.op_type != "Cast"]
    assert ends
    assert half not in {types.get(name) for node in ends for name in (*node.input, *node.output)}


@EACH
def test_the_scales_of_an_enlargement_stay_float(detector: Converted, half: int, lower: Lower) -> None:
    lowered = lower(detector.model)
    types = nets.types_of(lowered)
    (resize,) = nets.nodes_of(lowered, "Resize")
    assert (types[resize.input[0]], types[resize.input[2]]) == (half, TensorProto.FLOAT)


@EACH
def test_values_between_the_layers_are_cast_nowhere(detector: Converted, half: int, lower: Lower) -> None:
    casts = nets.nodes_of(lower(detector.model), "Cast")
    # The bytes to float32, that to 16 bits, and the head's values back.
    assert len(casts) == 3


@EACH
def test_a_softmax_between_layers_stays_float(half: int, lower: Lower) -> None:
    lowered = lower(nets.plain_classifier(activation="Softmax"))
    types = nets.types_of(lowered)
    softmaxes = nets.nodes_of(lowered, "Softmax")
    assert len(softmaxes) == 4
    assert {types[name] for node in softmaxes for name in (*node.input, *node.output)} == {TensorProto.FLOAT}


@pytest.mark.parametrize("activation", ["Mish", "HardSwish"])
@pytest.mark.parametrize(("precision", "is_lowered"), [("fp16", True), ("bf16", False)])
def test_what_tensorrt_does_not_compute_in_bf16_stays_float(activation: str, precision: str, is_lowered: bool) -> None:
    half, lower = HALVES[precision]
    lowered = lower(nets.plain_classifier(activation=activation))
    types = nets.types_of(lowered)
    found = {types[name] for node in nets.nodes_of(lowered, activation) for name in (*node.input, *node.output)}
    assert found == {half if is_lowered else TensorProto.FLOAT}


def test_a_constant_that_both_sides_read_keeps_its_bits_for_the_float_side() -> None:
    third = np.array(1 / 3, np.float32)
    nodes = [
        nets.layer("Conv", ["pixels", "kernel"], "conv"),
        nets.layer("Mul", ["conv", "third"], "scaled"),
        nets.layer("Conv", ["scaled", "kernel"], "last"),
        nets.layer("GlobalAveragePool", ["last"], "mean"),
        nets.layer("Flatten", ["mean"], "flat"),
        nets.layer("Mul", ["flat", "third"], SCORES_NAME),
    ]
    lowered, _ = fp16(nets.classifier(nodes, {"kernel": nets.kernel(3, 3), "third": third}, 3), {})
    assert nets.constant(lowered, "third") == third
    assert nets.constant(lowered, "third/fp16") == np.float16(third)


@EACH
def test_what_has_its_type_from_an_attribute_stays_float(half: int, lower: Lower) -> None:
    ones = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["first"]),
        helper.make_node("Shape", ["first"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=ones),
        helper.make_node("Add", ["first", "ones"], ["more"]),
        helper.make_node("MatMul", ["more", "weights"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y")]
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])
    graph = helper.make_graph(nodes, "ones", values[:1], values[1:], [weights])
    lowered = lower(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    onnx.checker.check_model(lowered, full_check=True)
    assert nets.types_of(lowered)["more/fp16" if half == TensorProto.FLOAT16 else "more/bf16"] == half


def test_what_a_branch_reads_inside_stays_float() -> None:
    value = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)
    branches = {
        f"{name}_branch": helper.make_graph([helper.make_node(op, ["conv0"], ["chosen"])], name, [], [value])
        for name, op in (("then", "Neg"), ("else", "Abs"))
    }
    nodes = [
        nets.layer("Conv", ["pixels", "kernel"], "conv0"),
        helper.make_node("If", ["yes"], ["chosen_value"], name="branch", **branches),
        nets.layer("Conv", ["chosen_value", "kernel"], "conv1"),
        nets.layer("GlobalAveragePool", ["conv1"], "mean"),
        nets.layer("Flatten", ["mean"], SCORES_NAME),
    ]
    model = nets.classifier(nodes, {"kernel": nets.kernel(3, 3), "yes": np.array(True)}, 3)
    expected, found = (nets.run(m, nets.images(1))[SCORES_NAME] for m in (model, fp16(model, {})[0]))
    np.testing.assert_allclose(found, expected, atol=2e-3)


@EACH
def test_a_model_without_layers_is_refused(half: int, lower: Lower) -> None:
    nodes = [nets.layer("GlobalAveragePool", ["pixels"], "mean"), nets.layer("Flatten", ["mean"], SCORES_NAME)]
    with pytest.raises(ConversionError, match=r"nothing in this model can be computed in .*\. Use fp32"):
        lower(nets.classifier(nodes, {}, 3))


# --- what it answers


@pytest.mark.parametrize(("lower", "boxes", "scores"), [(HALVES["fp16"][1], 0.2, 2e-3), (rounded_to_bf16, 2.0, 0.02)])
def test_the_answers_are_near_those_of_float32(detector: Converted, lower: Lower, boxes: float, scores: float) -> None:
    batch = nets.images(2, (32, 32))
    expected, found = nets.run(detector.model, batch), nets.run(lower(detector.model), batch)
    # Candidates of nearly the same score may change places, so each is compared in its own order.
    for name, tolerance in ((BOXES_NAME, boxes), (SCORES_NAME, scores)):
        np.testing.assert_allclose(np.sort(found[name], 1), np.sort(expected[name], 1), atol=tolerance)


def test_the_emulation_rounds_weights_and_values_as_bfloat16_does() -> None:
    nodes = [
        nets.layer("Conv", ["pixels", "kernel"], "conv"),
        nets.layer("ReduceMax", ["conv", "axes"], SCORES_NAME, keepdims=0),
    ]
    weights = nets.kernel(3, 3)
    model = nets.classifier(nodes, {"kernel": weights, "axes": np.array([2, 3])}, 3)
    batch = nets.images(1)

    def rounded(array: np.ndarray) -> np.ndarray:
        return array.astype(ml_dtypes.bfloat16).astype(np.float32)

    pixels = rounded(batch[0].astype(np.float32) * np.float32(1 / 255))
    products = np.einsum("hwc,oc->ohw", pixels, rounded(weights[:, :, 0, 0]))
    expected = rounded(products).max((1, 2))
    np.testing.assert_array_equal(nets.run(rounded_to_bf16(model), batch)[SCORES_NAME][0], expected)


def test_the_emulation_has_what_onnx_runtime_has_not_in_the_opset_of_bf16() -> None:
    nodes = [
        nets.layer("Conv", ["pixels", "kernel"], "conv"),
        nets.layer("RoiAlign", ["conv", "rois", "image"], "part", output_height=1, output_width=1),
        nets.layer("Flatten", ["part"], SCORES_NAME, axis=1),
    ]
    rois = np.array([[0, 0, 2, 2]], np.float32)
    model = nets.classifier(nodes, {"kernel": nets.kernel(3, 3), "rois": rois, "image": np.array([0])}, 3)
    expected, found = (nets.run(one, nets.images(1))[SCORES_NAME] for one in (model, rounded_to_bf16(model)))
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)


def test_bf16_is_written_in_an_opset_whose_convolutions_take_it(detector: Converted) -> None:
    assert [entry.version for entry in bf16(detector.model).opset_import] == [BF16_OPSET]


# --- overflow


def overflowing() -> ModelProto:
    """Return a model in which values of 65,504 and more occur, and go again."""
    nodes = [
        nets.layer("Conv", ["pixels", "kernel"], "conv0"),
        nets.layer("Conv", ["conv0", "large"], "conv1"),
        nets.layer("Conv", ["conv1", "small"], "conv2"),
        nets.layer("Conv", ["conv2", "kernel"], "conv3"),
        nets.layer("GlobalAveragePool", ["conv3"], "mean"),
        nets.layer("Flatten", ["mean"], SCORES_NAME),
    ]
    identity = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    kernel = nets.kernel(3, 3)
    constants = {"kernel": kernel, "large": identity * np.float32(6e4), "small": identity / np.float32(6e4)}
    return nets.classifier(nodes, {name: np.asarray(array) for name, array in constants.items()}, 3)


def test_what_would_overflow_stays_float_with_a_note() -> None:
    model = overflowing()
    lowered, notes = fp16(model, {"conv0": 2.0, "conv1": 1.2e5, "conv2": 2.0, "conv3": 2.0})
    types = nets.types_of(lowered)
    assert [types[f"conv{index}/fp16"] for index in (0, 3)] == [TensorProto.FLOAT16] * 2
    assert [types[f"conv{index}"] for index in (1, 2)] == [TensorProto.FLOAT] * 2
    assert notes == (
        "'conv1' stays float32: its values reach 1.2e+05, and fp16 ends at 65504.",
        "'conv2' stays float32: its values reach 1.2e+05, and fp16 ends at 65504.",
    )
    batch = nets.images(1)
    expected, found = (nets.run(m, batch)[SCORES_NAME] for m in (model, lowered))
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_weights_that_would_overflow_stay_float() -> None:
    nodes = [
        nets.layer("Conv", ["pixels", "large"], "conv0"),
        nets.layer("Conv", ["conv0", "small"], "conv1"),
        nets.layer("GlobalAveragePool", ["conv1"], "mean"),
        nets.layer("Flatten", ["mean"], SCORES_NAME),
    ]
    constants = {"large": nets.kernel(3, 3) * np.float32(1e6), "small": nets.kernel(3, 3)}
    lowered, notes = fp16(nets.classifier(nodes, {name: np.asarray(a) for name, a in constants.items()}, 3), {})
    assert nets.types_of(lowered)["conv0"] == TensorProto.FLOAT
    assert notes[0].startswith("'conv0' stays float32")


def test_what_may_overflow_is_what_becomes_16_bits(detector: Converted) -> None:
    names = values_to_observe(detector.model)
    assert len(names) == len(set(names))
    assert INPUT_NAME not in names
    assert not any(name.startswith("decode/") for name in names)
    assert {f"{node.output[0]}" for node in nets.nodes_of(detector.model, "Conv")} <= set(names)


# --- bytes


def test_lowering_leaves_the_float_model_as_it_is(detector: Converted) -> None:
    before = detector.model.SerializeToString(deterministic=True)
    fp16(detector.model, {})
    bf16(detector.model)
    assert detector.model.SerializeToString(deterministic=True) == before


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_two_processes_write_the_same_bytes(tmp_path: Path, precision: str) -> None:
    nets.write_darknet(tmp_path)
    code = (
        "import sys, hashlib; from pathlib import Path; from converters.precision import nets, test_half as t\n"
        f"lower = t.HALVES['{precision}'][1]; model = lower(nets.detector(Path(sys.argv[1])).model)\n"
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
