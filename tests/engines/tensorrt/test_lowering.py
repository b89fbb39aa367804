"""What TensorRT 8.6 is given computes what the model does, or is refused by name."""

import itertools
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from converters.darknet import test_random_networks as random_networks
from converters.precision import nets
from engines import tiny
from engines.tensorrt import conversions
from hypothesis import Phase, given, settings
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import convert
from trtjob.engines.protocol import Outputs, UInt8Array
from trtjob.engines.spec import INPUT_NAME, SCORES_NAME, Task
from trtjob.engines.tensorrt.lowering import float_values, lower, lowered
from trtjob.errors import EngineError

REDUCTIONS = re.compile("Reduce(?!Sum$)")


def copy_of(model: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied


def assert_lowered_right(model: ModelProto, images: UInt8Array) -> ModelProto:
    """Lower a model, and see that it is one of opset 17 that 8.6 reads, and answers as before; return it."""
    low = copy_of(model)
    lower(low, "net.onnx")
    assert_readable(low)
    assert_same(conversions.run(low, images), conversions.run(model, images))
    return low


for_chaos = partial(pytest.param, marks=pytest.mark.chaos)


def assert_readable(low: ModelProto) -> None:
    onnx.checker.check_model(low, full_check=True)
    assert {entry.domain: entry.version for entry in low.opset_import}[""] <= 17
    for node in low.graph.node:
        assert node.op_type != "Mish"
        assert len(node.input) == 1 or not REDUCTIONS.match(node.op_type), node.name
        assert onnx.defs.has(node.op_type, 17, ""), node.op_type


def assert_same(found: Outputs, expected: Outputs) -> None:
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6, atol=1e-6)
    if expected.boxes is not None:
        assert found.boxes is not None
        np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-5, atol=1e-5)


# -- every converter's samples -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", conversions.HEADS)
def test_every_darknet_head_stays_what_it_is(head: str) -> None:
    found = conversions.of_head(head)
    assert_lowered_right(found.model, conversions.noise(found.spec))


@pytest.mark.slow
@pytest.mark.parametrize("layers", conversions.LAYERS)
def test_every_darknet_layer_stays_what_it_is(layers: str) -> None:
    found = conversions.of_layers(layers)
    assert_lowered_right(found.model, conversions.noise(found.spec))


@pytest.mark.parametrize("activation", conversions.ACTIVATIONS)
def test_every_darknet_activation_stays_what_it_is(activation: str) -> None:
    found = conversions.of_activation(activation)
    assert_lowered_right(found.model, conversions.noise(found.spec))


@pytest.mark.slow
@settings(max_examples=60, derandomize=True, database=None, phases=[Phase.generate])
@given(example=random_networks.networks())
def test_any_darknet_network_stays_what_it_is(example: random_networks.Example) -> None:
    found = conversions.of_example(example)
    assert_lowered_right(found.model, conversions.noise(found.spec))


# The last one's own ReduceMax has its axes as older opsets do.
@pytest.mark.parametrize(
    ("layout", "opset"),
    [*itertools.product(("columns", "objectness"), (13, 17, 18, 19, 20, 21, 22)), ("final", 13), ("final", 17)],
)
def test_foreign_detectors_stay_what_they_are(layout: str, opset: int, tmp_path: Path) -> None:
    found = conversions.of_foreign(layout, opset, tmp_path)
    assert_lowered_right(found.model, conversions.noise(found.spec))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_stay_what_they_are(precision: str, tmp_path: Path) -> None:
    found = conversions.small_detector(tmp_path)
    images = nets.images(4, (32, 32))
    assert_lowered_right(conversions.lower_precision(found, precision, images), images)


def test_int8_weights_are_quantized_in_the_graph(tmp_path: Path) -> None:
    """TensorRT 8 has no constants of int8, but for the zeros beside steps."""
    found = conversions.small_detector(tmp_path)
    images = nets.images(4, (32, 32))
    low = assert_lowered_right(conversions.lower_precision(found, "int8", images), images)
    constants = {tensor.name: tensor for tensor in low.graph.initializer}
    read = [made.input[0] for made in low.graph.node if made.op_type == "DequantizeLinear"]
    assert read
    assert not constants.keys() & set(read)
    integers = [numpy_helper.to_array(tensor) for tensor in constants.values() if tensor.data_type == TensorProto.INT8]
    assert not any(array.any() for array in integers)


@pytest.mark.parametrize("activation", ["swish", "mish", "logistic", "tanh"])
def test_smooth_activations_of_int8_read_what_is_not_rounded(activation: str) -> None:
    """8.6 has no kernels for them in int8; one step of rounding less is all that changes."""
    found = conversions.of_layers(2 * random_networks.conv(8, 3, activation, pad=1))
    images = conversions.noise(found.spec)
    model = conversions.lower_precision(found, "int8", images)
    low = copy_of(model)
    assert lower(low, "net.onnx")
    assert_readable(low)
    made_by = {name: made for made in low.graph.node for name in made.output}
    parts = [made for made in low.graph.node if made.op_type in ("Sigmoid", "Softplus", "Tanh")]
    assert any(made_by[made.input[0]].op_type == "Conv" for made in parts)
    assert not any(made_by[name].op_type == "DequantizeLinear" for made in parts for name in made.input)
    before, after, exact = (conversions.run(one, images).scores for one in (model, low, found.model))
    assert np.abs(after - before).mean() < 0.02
    assert np.abs(after - exact).mean() <= 1.2 * np.abs(before - exact).mean()


def test_what_others_read_too_stays_rounded(tmp_path: Path) -> None:
    """A convolution's own inputs, and those of additions and ReLUs, are what int8 is for."""
    found = conversions.small_detector(tmp_path)
    images = nets.images(4, (32, 32))
    model = conversions.lower_precision(found, "int8", images)
    low = assert_lowered_right(model, images)
    made_by = {name: made for made in low.graph.node for name in made.output}
    convolutions = [made for made in low.graph.node if made.op_type == "Conv"]
    rounded = [made for made in convolutions if made_by[made.input[0]].op_type == "DequantizeLinear"]
    assert len(rounded) >= len(convolutions) - 2


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("has_zero", [True, False])
def test_weights_of_any_steps_stay_what_they_are(axis: int | None, opset: int, has_zero: bool) -> None:
    random = np.random.default_rng(2)
    weights = random.integers(-128, 128, (3, 3)).astype(np.int8)
    steps = np.float32(0.01) if axis is None else random.uniform(1e-6, 0.1, 3).astype(np.float32)
    constants = {"w": weights, "steps": steps, "zeros": np.zeros_like(steps, np.int8)}
    around = {} if axis is None else {"axis": axis}
    nodes = [node("DequantizeLinear", "w steps zeros" if has_zero else "w steps", "matrix", **around)]
    assert_lowered_right(reading_pixels([*nodes, node("MatMul", "x matrix")], constants, opset=opset), tiny.images(2))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_sample_model_stays_what_it_is(precision: str) -> None:
    found = conversions.digits()
    images = conversions.noise(found.spec)
    model = found.model if precision == "fp32" else conversions.lower_precision(found, precision, images)
    assert_lowered_right(model, images)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name",
    [
        *("tiny", "cifar", "darknet19", "efficientnet_b0"),
        *("yolov2-tiny", "yolov3-tiny", "yolov4-tiny", "yolov7-tiny", "enet-coco"),
        # Large, of the same layers:
        *(for_chaos(name) for name in ("resnet50", "yolov4", "yolov4-csp", "csresnext50-panet-spp")),
    ],
)
def test_the_darknet_zoo_stays_what_it_is(name: str, shared: Path, tmp_path: Path) -> None:
    found = conversions.of_zoo(name, shared / "darknet", tmp_path, side=96)
    assert_lowered_right(found.model, conversions.noise(found.spec, 1))


@pytest.mark.extra
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("arch", ["ConvNeXt", *map(for_chaos, ("ConvNeXtTiny", "MobileNetV2", "EfficientNetB0"))])
@pytest.mark.usefixtures("keras")
def test_keras_classifiers_stay_what_they_are(arch: str, tmp_path: Path) -> None:
    from converters.keras.networks import application, saved

    from trtjob.converters.spill import gather

    path = saved(application(arch, classes=20, input_shape=(64, 64, 3)), tmp_path / "net.keras")
    found = convert(ConversionRequest(model=path))
    gather(found.model)
    assert_lowered_right(found.model, conversions.noise(found.spec))


@pytest.mark.extra
@pytest.mark.slow
@pytest.mark.usefixtures("keras")
def test_keras_upsampling_stays_what_it_is(tmp_path: Path) -> None:
    from converters.keras.networks import saved

    from trtjob.converters.keras import packages

    layers = packages.keras().layers
    net = packages.keras().Sequential(
        [
            packages.keras().Input((9, 8, 3)),
            layers.Conv2D(4, 3),
            layers.UpSampling2D((2, 3)),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    found = convert(ConversionRequest(model=saved(net, tmp_path / "net.keras"), preprocess="unit"))
    assert [node for node in found.model.graph.node if node.op_type == "Resize"]
    assert_lowered_right(found.model, conversions.noise(found.spec))


# -- one rule at a time ------------------------------------------------------------------------------------------------


def reading_pixels(
    nodes: list[NodeProto], constants: dict[str, Any], *, opset: int = 18, last: str = "y"
) -> ModelProto:
    """Return a model of nodes from `x`, float32 [N, 4, 5, 3], to `last`, of which the scores are the sums."""
    around = [
        helper.make_node("Cast", [INPUT_NAME], ["x"], to=TensorProto.FLOAT),
        *nodes,
        helper.make_node("Flatten", [last], ["flat"], axis=1),
        helper.make_node("ReduceSum", ["flat", "one"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "weights"], [SCORES_NAME]),
    ]
    tensors = {"one": np.array([1], np.int64), "weights": np.ones((1, 3), np.float32), **constants}
    graph = helper.make_graph(
        around,
        "rule",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", *tiny.HW, 3])],
        [helper.make_tensor_value_info(SCORES_NAME, TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def integers(*values: int) -> Any:
    return np.array(values, np.int64)


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node(op, ["" if name == "-" else name for name in inputs.split()], [output], op, **attributes)


REDUCED = ["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"]


@pytest.mark.parametrize("axes", [integers(1), integers(2, 3), integers(-1), integers()], ids=str)
@pytest.mark.parametrize("op", [*REDUCED, "ReduceSumSquare", "ReduceProd"])
def test_axes_become_an_attribute(op: str, axes: Any) -> None:
    small = node("Mul", "x tenth", "small")
    model = reading_pixels([small, node(op, "small axes", keepdims=1)], {"axes": axes, "tenth": np.float32(0.01)})
    low = assert_lowered_right(model, tiny.images(2))
    (reduced,) = [made for made in low.graph.node if made.op_type == op]
    assert [list(attribute.ints) for attribute in reduced.attribute if attribute.name == "axes"] == (
        [axes.tolist()] if axes.size else []
    )


def test_axes_may_be_a_node_of_constants() -> None:
    constant = helper.make_node("Constant", [], ["axes"], value_ints=[2])
    assert_lowered_right(reading_pixels([constant, node("ReduceMax", "x axes", keepdims=0)], {}), tiny.images(2))


TAKEN = [
    pytest.param([node("Mish", "x")], {}, id="Mish"),
    pytest.param(
        [node("Pad", "x pads value axes")],
        {"pads": integers(1, 2, 0, 3), "value": np.float32(2), "axes": integers(-1, 1)},
        id="Pad of axes",
    ),
    pytest.param(
        [node("Pad", "x pads - axes", mode="reflect")],
        {"pads": integers(1, 2), "axes": integers(2)},
        id="Pad without a value",
    ),
    pytest.param(
        [node("Resize", "x - scales", axes=[1, 2], mode="linear")],
        {"scales": np.array([2, 3], np.float32)},
        id="Resize by scales of axes",
    ),
    pytest.param(
        [node("Resize", "x - - sizes", axes=[-2], mode="nearest", antialias=0)],
        {"sizes": integers(15)},
        id="Resize to sizes of axes",
    ),
    pytest.param(
        [node("Resize", "x - scales", mode="cubic")],
        {"scales": np.array([1, 2, 2, 1], np.float32)},
        id="Resize as before",
    ),
    pytest.param(
        [helper.make_node("Split", ["x"], ["a", "b"], axis=2, num_outputs=2), node("Concat", "b a", axis=2)],
        {},
        id="Split in unequal parts",
    ),
    pytest.param(
        [helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1), node("Concat", "b a", axis=1)],
        {"sizes": integers(1, 3)},
        id="Split by sizes",
    ),
    pytest.param([node("AveragePool", "x", kernel_shape=[2, 2])], {}, id="AveragePool"),
]


@pytest.mark.parametrize(("nodes", "constants"), TAKEN)
@pytest.mark.parametrize("opset", [18, 21, 22])
def test_what_can_be_said_in_opset_17_is(nodes: list[NodeProto], constants: dict[str, Any], opset: int) -> None:
    assert_lowered_right(reading_pixels(nodes, constants, opset=opset), tiny.images(2))


REFUSED = [
    pytest.param(
        [
            node("Cast", "x", "i", to=TensorProto.INT64),
            node("ReduceMin", "i low", "axis", keepdims=0),
            node("Clip", "axis one one", "one_axis"),
            node("ReduceMax", "x one_axis"),
        ],
        {"low": integers(0, 1, 2, 3)},
        "'ReduceMax' (ReduceMax): its axes are computed",
        id="axes that are computed",
    ),
    pytest.param(
        [node("ReduceMax", "x none", noop_with_empty_axes=1)],
        {"none": integers()},
        "over no axes",
        id="a reduction of nothing",
    ),
    pytest.param(
        [node("Resize", "x - scales", mode="linear", antialias=1)],
        {"scales": np.array([1, 0.5, 0.5, 1], np.float32)},
        "'Resize' (Resize): antialias=1",
        id="antialias",
    ),
    pytest.param(
        [node("Resize", "x - - sizes", axes=[1], mode="nearest")],
        {"sizes": integers(7)},
        "sizes of some axes",
        id="sizes that are no multiples",
    ),
    pytest.param(
        [node("Resize", "x - - sizes", axes=[1, 2], mode="nearest", keep_aspect_ratio_policy="not_larger")],
        {"sizes": integers(8, 8)},
        "keep_aspect_ratio_policy=not_larger",
        id="aspect ratio",
    ),
    pytest.param(
        [node("ScatterND", "x place new", reduction="max")],
        {"place": integers(0).reshape(1, 1), "new": np.ones((1, 4, 5, 3), np.float32)},
        "its reduction",
        id="Scatter with a maximum",
    ),
]


@pytest.mark.parametrize(("nodes", "constants", "said"), REFUSED)
def test_what_cannot_is_refused_by_name(nodes: list[NodeProto], constants: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError, match=re.escape(said)) as caught:
        lower(reading_pixels(nodes, constants), "net.onnx")
    assert "TensorRT 8.6 would misread 'net.onnx'" in str(caught.value)
    assert "Use TensorRT 10 or later" in str(caught.value)


LATER = [
    pytest.param(
        [node("GroupNormalization", "x four four", num_groups=2)], 21, "'GroupNormalization' (Group", id="groups"
    ),
    pytest.param([node("Gelu", "x")], 20, "'Gelu' (Gelu)", id="Gelu"),
    pytest.param([node("Pad", "x pads", mode="wrap")], 19, "mode=wrap", id="Pad that wraps"),
    pytest.param([node("AveragePool", "x", kernel_shape=[2, 2], dilations=[2, 1])], 19, "dilations", id="dilations"),
    pytest.param(
        [node("Resize", "x - scales", coordinate_transformation_mode="half_pixel_symmetric")],
        19,
        "half_pixel_symmetric",
        id="symmetric",
    ),
]


@pytest.mark.parametrize(("nodes", "opset", "said"), LATER)
def test_what_later_opsets_brought_is_refused_by_name(nodes: list[NodeProto], opset: int, said: str) -> None:
    four = np.ones(4, np.float32)
    constants = {"four": four, "pads": integers(0, 1, 0, 0, 0, 0, 0, 0), "scales": np.array([1, 2, 2, 1], np.float32)}
    with pytest.raises(EngineError, match=re.escape(said)):
        lower(reading_pixels(nodes, constants, opset=opset), "net.onnx")


def test_an_opset_that_nobody_has_looked_at_is_refused() -> None:
    model = reading_pixels([node("Relu", "x")], {})
    model.opset_import[0].version = 99
    with pytest.raises(EngineError, match=r"of ONNX opset 99: TensorRT 8\.6 can be given models of up to"):
        lower(model, "net.onnx")


def test_bf16_is_refused(tmp_path: Path) -> None:
    found = conversions.small_detector(tmp_path)
    model = conversions.lower_precision(found, "bf16", nets.images(1, (32, 32)))
    with pytest.raises(EngineError, match=r"computes in bf16 \(.*which TensorRT has from version 10 on"):
        lower(model, "net.onnx")


def test_graphs_inside_of_nodes_are_lowered_too() -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x", "axes"], [name], keepdims=1)], name, [], [value])

    choice = node("If", "yes", then_branch=branch("a", "ReduceMax"), else_branch=branch("b", "ReduceMin"))
    model = reading_pixels([choice], {"yes": np.array(True), "axes": integers(1)})
    low = copy_of(model)
    lower(low, "net.onnx")
    inner = [made for graph in low.graph.node[1].attribute for made in graph.g.node]
    assert [len(made.input) for made in inner] == [1, 1]
    assert_same(conversions.run(low, tiny.images(2)), conversions.run(model, tiny.images(2)))


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_model_that_8_6_reads_is_given_as_it_is(tmp_path: Path) -> None:
    found = conversions.of_foreign("columns", 17, tmp_path)
    path = conversions.write(found.model, found.spec, tmp_path / "model.onnx")
    with lowered(path) as readable:
        assert readable == path


def test_the_stored_model_stays_as_it_is(tmp_path: Path) -> None:
    path = tiny.write_model(tmp_path / "tiny.onnx", Task.CLASSIFY)
    before = path.read_bytes()
    with lowered(path) as readable:
        assert onnx.load(readable).opset_import[0].version == 17
        made = readable
    assert path.read_bytes() == before
    assert not made.exists()


def test_constants_beside_the_model_are_found_and_not_copied(tmp_path: Path) -> None:
    model = tiny.classifier()
    model.graph.node[1].output[0] = "means"
    model.graph.node.append(helper.make_node("MatMul", ["means", "matrix"], [SCORES_NAME]))
    model.graph.initializer.append(numpy_helper.from_array(np.eye(3, dtype=np.float32) * 2, "matrix"))
    (tmp_path / "data").mkdir()
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="data/w.bin", size_threshold=60)
    images = tiny.images(2)
    with lowered(tmp_path / "net.onnx") as readable:
        assert readable.stat().st_size < 1000
        (data,) = (readable.parent / "data").iterdir()
        assert data.resolve() == tmp_path / "data" / "w.bin"
        proto = onnx.load(readable, load_external_data=False)
        onnx.load_external_data_for_model(proto, str(tmp_path))
    np.testing.assert_allclose(conversions.run(proto, images).scores, 2 * images.mean((1, 2)), rtol=1e-5)


def test_constants_outside_of_the_models_folder_are_refused(tmp_path: Path) -> None:
    model = tiny.classifier()
    tensor = model.graph.initializer.add(name="far", dims=[100], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with (
        pytest.raises(EngineError, match=r"keeps constants in '\.\./secret\.bin', outside its folder"),
        lowered(tmp_path / "net.onnx"),
    ):
        pass


def test_what_a_half_model_computes_in_float32_is_known(tmp_path: Path) -> None:
    found = conversions.small_detector(tmp_path)
    model = conversions.lower_precision(found, "fp16", nets.images(1, (32, 32)))
    floats = float_values(conversions.write(model, found.spec, tmp_path / "half.onnx"))
    assert floats is not None
    by_output = {name: made.op_type for made in model.graph.node for name in made.output}
    kinds = {by_output[name] for name in floats}
    assert {"Exp", "Sigmoid", "GatherND", "Concat"} <= kinds  # what makes boxes and scores
    assert not {"Conv", "Cast", "Constant"} & kinds


def test_a_model_without_half_has_nothing_to_hold_to_float32(tmp_path: Path) -> None:
    found = conversions.small_detector(tmp_path)
    assert float_values(conversions.write(found.model, found.spec, tmp_path / "net.onnx")) is None
