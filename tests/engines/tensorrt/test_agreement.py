"""A plan that was misread is told from one that only rounds: here both are graphs that ONNX Runtime computes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from converters.darknet import test_random_networks as random_networks
from engines.tensorrt import conversions
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from trtjob.converters.artefact import Converted
from trtjob.converters.precision.half import rounded_to_bf16
from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import convert
from trtjob.converters.spill import gather
from trtjob.engines.protocol import FloatArray, Outputs
from trtjob.engines.spec import ModelSpec, Precision, Task
from trtjob.engines.tensorrt.agreement import TOLERANCES, disagreement, logits_of
from trtjob.engines.tensorrt.selfcheck import lively_image, without_bf16

for_chaos = partial(pytest.param, marks=pytest.mark.chaos)


def changed(model: ModelProto, change: Callable[[ModelProto], object]) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    change(made)
    return made


def compare(found: ModelProto, expected: ModelProto, spec: ModelSpec, *, precision: Precision = "fp32") -> str | None:
    image = lively_image(spec)
    spec = spec.model_copy(update={"precision": precision})
    return disagreement(conversions.run(found, image), conversions.run(expected, image), spec)


# -- what a parser misreads --------------------------------------------------------------------------------------------


def over_all_axes(model: ModelProto, *, ops: tuple[str, ...] = ()) -> None:
    """Read reductions as TensorRT 8.6 does those of opset 18."""
    for node in model.graph.node:
        is_meant = node.op_type in ops if ops else node.op_type.startswith("Reduce") and node.op_type != "ReduceSum"
        if is_meant and len(node.input) > 1:
            del node.input[1:]


# Those whose answers change: without a scalar in the ranking the graphs do not load at all.
RANKED = [head for head in conversions.HEADS if str(head.id).lower().find("yolo") >= 0]
UNREADABLE = [
    head
    for head in conversions.HEADS
    if str(head.id).startswith(("region", "detection")) and "tree" not in str(head.id)
]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("head", RANKED)
def test_candidates_ranked_by_objectness_alone_are_refused(head: str, precision: Precision) -> None:
    found = conversions.of_head(head)
    problem = compare(changed(found.model, over_all_axes), found.model, found.spec, precision=precision)
    assert problem is not None
    assert problem.startswith("its candidates should come best first")


@pytest.mark.parametrize("head", UNREADABLE)
def test_the_other_heads_do_not_even_load_when_misread(head: str) -> None:
    found = conversions.of_head(head)
    with pytest.raises(Exception, match="TopK"):
        compare(changed(found.model, over_all_axes), found.model, found.spec)


def test_a_tree_of_classes_that_is_misread_is_refused() -> None:
    (head,) = [head for head in conversions.HEADS if head.id == "region of a tree"]
    found = conversions.of_head(str(head.values[0]))
    assert compare(changed(found.model, over_all_axes), found.model, found.spec) is not None


@pytest.mark.parametrize("head", [head for head in conversions.HEADS if str(head.id).startswith("Gaussian")])
def test_scores_with_the_mean_doubt_of_all_boxes_are_refused(head: str) -> None:
    """A Gaussian head takes the mean of four deviations; over all of them every box gets the same."""
    found = conversions.of_head(head)
    misread = changed(found.model, lambda model: over_all_axes(model, ops=("ReduceMean",)))
    assert compare(misread, found.model, found.spec) is not None


@pytest.mark.parametrize("layout", ["objectness"])
def test_foreign_detectors_that_are_misread_are_refused(layout: str, tmp_path: Path) -> None:
    found = conversions.of_foreign(layout, 18, tmp_path, (64, 96))
    assert compare(changed(found.model, over_all_axes), found.model, found.spec) is not None


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_sample_model_misread_is_refused(precision: Precision) -> None:
    found = conversions.digits()
    assert compare(changed(found.model, over_all_axes), found.model, found.spec, precision=precision) is not None


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_official_yolov3_tiny_misread_is_refused(precision: Precision, shared: Path) -> None:
    found = yolov3_tiny(shared)
    assert compare(changed(found.model, over_all_axes), found.model, found.spec, precision=precision) is not None


def yolov3_tiny(shared: Path) -> Converted:
    models = shared / "models"
    return convert(ConversionRequest(model=models / "yolov3-tiny.weights", labels=models / "coco.names"))


ACTIVATION = random_networks.layer("upsample", stride=1, scale=4) + random_networks.conv(8, 3, "mish", pad=1)


def replaced(op: str, by: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == op:
                node.op_type = by

    return change


def reversed_constant(name: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name.endswith(name)]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))

    return change


MISREAD = [
    pytest.param(replaced("Mish", "Relu"), id="another activation"),
    pytest.param(reversed_constant("/cells"), id="boxes in other cells"),
    pytest.param(reversed_constant("/half_anchors"), id="boxes of other anchors"),
    pytest.param(replaced("Exp", "Identity"), id="sides without their exponential"),
    pytest.param(replaced("Sigmoid", "Identity"), id="scores and offsets without their sigmoid"),
]


@pytest.mark.parametrize("change", MISREAD)
def test_other_faults_of_a_parser_are_refused(change: Callable[[ModelProto], None]) -> None:
    found = conversions.of_layers(ACTIVATION)
    assert compare(found.model, found.model, found.spec) is None
    assert compare(changed(found.model, change), found.model, found.spec) is not None


def flatten_wrongly(model: ModelProto) -> None:
    (node,) = [node for node in model.graph.node if node.op_type == "GlobalAveragePool"]
    node.op_type = "GlobalMaxPool"


def test_a_classifier_that_is_misread_is_refused() -> None:
    layers = random_networks.conv(6) + random_networks.layer("avgpool") + random_networks.layer("softmax")
    found = conversions.of_head(layers)
    assert compare(found.model, found.model, found.spec) is None
    assert compare(changed(found.model, flatten_wrongly), found.model, found.spec) is not None


# -- what only rounds --------------------------------------------------------------------------------------------------


def without_pairs(model: ModelProto, kept: float) -> None:
    """Take away a share of int8's roundings, as an engine does that computes two layers as one."""
    random = np.random.default_rng(3)
    names = {
        f"{node.input[0]}/dequantized": node.input[0]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and random.random() > kept
    }
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            node.input[:] = [names.get(name, name) for name in node.input]


def rounded_as_tf32(model: ModelProto) -> None:
    """Round weights to 10 bits of mantissa; what they are multiplied with is in fp16's test."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1 and "decode" not in tensor.name:
            bits = (values.view(np.uint32) + 0x1000) & np.uint32(0xFFFFE000)
            tensor.CopyFrom(numpy_helper.from_array(bits.view(np.float32), tensor.name))


def assert_rounding_passes(found: Converted) -> None:
    image = lively_image(found.spec)
    half = conversions.lower_precision(found, "fp16", image)
    assert compare(half, found.model, found.spec) is None
    assert compare(half, found.model, found.spec, precision="fp16") is None
    assert compare(changed(found.model, rounded_as_tf32), found.model, found.spec) is None
    bf16 = conversions.lower_precision(found, "bf16", image)
    wide = changed(bf16, lambda model: without_bf16(model.graph))
    assert compare(rounded_to_bf16(found.model), wide, found.spec, precision="bf16") is None


def assert_int8_passes(found: Converted) -> None:
    image = lively_image(found.spec)
    model = conversions.lower_precision(found, "int8", np.concatenate([image, conversions.noise(found.spec)]))
    spec = found.spec.model_copy(update={"precision": "int8"})
    expected, too = conversions.run(model, image), conversions.run(model, image, as_written=True)
    assert disagreement(too, expected, spec, expected_too=too) is None
    for kept in (0.5, 0.0):
        fused = changed(model, partial(without_pairs, kept=kept))
        answer = conversions.run(fused, image, as_written=True)
        assert disagreement(answer, expected, spec, expected_too=too) is None


HALVED = [head for head in conversions.HEADS if "conv" in str(head.values[0]) or "connected" in str(head.values[0])]


@pytest.mark.parametrize("head", HALVED)
def test_half_precision_of_any_head_passes(head: str) -> None:
    found = conversions.of_head(head)
    half = conversions.lower_precision(found, "fp16", lively_image(found.spec))
    assert compare(half, found.model, found.spec) is None


def test_rounding_passes(tmp_path: Path) -> None:
    assert_rounding_passes(conversions.small_detector(tmp_path))


@pytest.mark.slow
def test_rounding_of_the_sample_model_passes() -> None:
    assert_rounding_passes(conversions.digits())
    assert_int8_passes(conversions.digits())


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_rounding_of_the_official_yolov3_tiny_passes(shared: Path) -> None:
    assert_rounding_passes(yolov3_tiny(shared))
    assert_int8_passes(yolov3_tiny(shared))


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["yolov4-tiny", "tiny", for_chaos("yolov2-tiny"), for_chaos("darknet19")])
def test_rounding_of_darknets_passes(name: str, shared: Path, tmp_path: Path) -> None:
    found = conversions.of_zoo(name, shared / "darknet", tmp_path, side=128)
    assert_rounding_passes(found)
    assert_int8_passes(found)


@pytest.mark.extra
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.chaos
@pytest.mark.parametrize("arch", ["VGG16", "MobileNetV2"])
@pytest.mark.usefixtures("keras")
def test_rounding_of_keras_classifiers_passes(arch: str, tmp_path: Path) -> None:
    from converters.keras.networks import NARROW, application, saved

    path = saved(application(arch, classes=20, input_shape=(64, 64, 3), **NARROW.get(arch, {})), tmp_path / "net.keras")
    found = convert(ConversionRequest(model=path))
    gather(found.model)  # ONNX Runtime finds constants on the disk beside a model's file alone
    assert_rounding_passes(found)
    assert_int8_passes(found)


@pytest.mark.slow
def test_an_image_without_objects_says_much(shared: Path) -> None:
    """The spread of what is compared is many times the tolerance, so that the comparison is not empty."""
    for found in (conversions.digits(), yolov3_tiny(shared)):
        logits = logits_of(conversions.run(found.model, lively_image(found.spec)).scores[0], 1e-6).max(1)
        tolerance = TOLERANCES["fp32"]
        assert logits.std() > 1
        assert np.ptp(logits) > 20 * (tolerance.share * logits.std() + tolerance.least)


# -- by numbers --------------------------------------------------------------------------------------------------------

DETECTOR = ModelSpec(task=Task.DETECT, labels=("a", "b", "c"), input_hw=(416, 416))
CLASSIFIER = ModelSpec(task=Task.CLASSIFY, labels=tuple("abcdefgh"), input_hw=(64, 96))


def answer(seed: int, count: int = 60) -> Outputs:
    """Return candidates as a detector gives them, best first."""
    random = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(6 - 2 * random.standard_normal((count, 3))))
    corner = random.uniform(0, 400, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(4, 80, (count, 2))], 1)
    order = np.argsort(-scores.max(1))
    return Outputs(boxes[order][None].astype(np.float32), scores[order][None].astype(np.float32))


def with_noise(outputs: Outputs, size: float, seed: int) -> Outputs:
    """Return an answer whose logits and boxes are a little others, in its own order."""
    assert outputs.boxes is not None
    random = np.random.default_rng(seed)
    logits = logits_of(outputs.scores[0], 1e-6) + size * random.uniform(-1, 1, outputs.scores[0].shape)
    scores = 1 / (1 + np.exp(-logits))
    boxes = outputs.boxes[0] + size * random.uniform(-1, 1, outputs.boxes[0].shape)
    order = np.argsort(-scores.max(1))
    return Outputs(boxes[order][None].astype(np.float32), scores[order][None].astype(np.float32))


@given(seed=st.integers(0, 999), size=st.floats(0, 0.05))
@settings(max_examples=40)
def test_little_noise_passes(seed: int, size: float) -> None:
    assert disagreement(with_noise(answer(seed), size, seed), answer(seed), DETECTOR) is None


@given(seed=st.integers(0, 999))
@settings(max_examples=40)
def test_much_noise_does_not(seed: int) -> None:
    assert disagreement(with_noise(answer(seed), 1.5, seed), answer(seed), DETECTOR) is not None


def test_a_sigmoid_that_ends_early_passes() -> None:
    """0.5 + 0.5 tanh(x / 2), in float32, gives steps of 6e-8 instead of small numbers."""
    random = np.random.default_rng(5)
    logits = -12 + 3 * random.standard_normal((300, 2))
    logits = logits[np.argsort(-logits.max(1))].astype(np.float32)
    boxes = answer(5, 300).boxes
    right = (1 / (1 + np.exp(-logits))).astype(np.float32)
    early = (np.float32(0.5) + np.float32(0.5) * np.tanh(logits / np.float32(2))).astype(np.float32)
    assert (early == 0).any()
    assert disagreement(Outputs(boxes, early[None]), Outputs(boxes, right[None]), DETECTOR) is None


def test_what_two_references_differ_by_is_allowed() -> None:
    right, unsure = answer(3), with_noise(answer(3), 0.8, 1)
    found = with_noise(answer(3), 0.8, 2)
    assert disagreement(found, right, DETECTOR) is not None
    assert disagreement(found, right, DETECTOR, expected_too=unsure) is None
    assert disagreement(found, right, DETECTOR, expected_too=right) is not None


def boxes_of(outputs: Outputs) -> FloatArray:
    assert outputs.boxes is not None
    return outputs.boxes


WRONG = [
    pytest.param(lambda found: Outputs(boxes_of(found)[:, ::-1], found.scores), "boxes", id="boxes of others"),
    pytest.param(lambda found: Outputs(boxes_of(found)[..., [1, 0, 3, 2]], found.scores), "boxes", id="x for y"),
    pytest.param(lambda found: Outputs(boxes_of(found) * 0 + 5, found.scores), "boxes", id="one box for all"),
    pytest.param(lambda found: Outputs(boxes_of(found) * 3, found.scores), "boxes", id="boxes too large"),
    pytest.param(
        lambda found: Outputs(boxes_of(found), found.scores[..., ::-1]), "boxes", id="scores of other classes"
    ),
    pytest.param(lambda found: Outputs(boxes_of(found), found.scores * 0.1), "best scores", id="a tenth of the scores"),
    pytest.param(
        lambda found: Outputs(boxes_of(found)[:, ::-1], found.scores[:, ::-1]), "best first", id="worst first"
    ),
    pytest.param(lambda found: Outputs(boxes_of(found) * np.nan, found.scores), "no numbers", id="no numbers"),
    pytest.param(lambda found: Outputs(None, found.scores), "one of them alone", id="no boxes"),
    pytest.param(lambda found: Outputs(boxes_of(found)[:, :9], found.scores[:, :9]), "the shape", id="too few"),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
@pytest.mark.parametrize("precision", TOLERANCES)
def test_a_wrong_answer_is_refused(change: Callable[[Outputs], Outputs], said: str, precision: Precision) -> None:
    spec = DETECTOR.model_copy(update={"precision": precision})
    problem = disagreement(change(answer(1, 200)), answer(1, 200), spec)
    assert problem is not None
    assert said in problem


def probabilities(seed: int) -> FloatArray:
    logits = 2 * np.random.default_rng(seed).standard_normal((1, 8))
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(), np.float32)


def test_a_classifiers_answer_is_compared_class_by_class() -> None:
    right = probabilities(2)
    assert disagreement(Outputs(None, right), Outputs(None, right), CLASSIFIER) is None
    for wrong in (right[:, ::-1], np.full_like(right, 1 / 8), np.roll(right, 1)):
        problem = disagreement(Outputs(None, wrong), Outputs(None, right), CLASSIFIER)
        assert problem is not None
        assert "the classes' logits differ" in problem


def test_scores_that_are_no_probabilities_are_compared_as_they_are() -> None:
    means = np.array([[120, 80, 30, 10, 60, 70, 90, 100]], np.float32)
    assert disagreement(Outputs(None, means + 0.5), Outputs(None, means), CLASSIFIER) is None
    assert disagreement(Outputs(None, means[:, ::-1]), Outputs(None, means), CLASSIFIER) is not None
