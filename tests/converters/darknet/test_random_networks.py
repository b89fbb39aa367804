"""The converter against an independent reading of Darknet: see `reference.py`, which is checked first.

Networks are small and made up, with random weights, so that every option of every layer comes up in some company.
"""

import importlib.util
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from converters.darknet.reference import (
    ACTIVATIONS,
    Array,
    Network,
    Section,
    run_darknet,
    run_file,
    sections_of,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trtjob.converters.darknet.convert import convert
from trtjob.converters.request import ConversionRequest
from trtjob.engines.spec import INPUT_NAME
from trtjob.errors import DarknetParseError

TOLERANCE = 1e-4  # of the largest value
MAX_CANDIDATES = 1024  # of a converted detector

# Recordings of Darknet that NumPy follows within seconds. ResNet's is pjreddie's, whose batch norm is a little another.
CHECKED = ["tiny", "cifar", "darknet19", "efficientnet_b0", "resnet50"]
CHECKED_DETECTORS = ["yolov2-tiny", "yolov3-tiny", "yolov4-tiny", "yolov7-tiny", "enet-coco"]


@dataclass(frozen=True)
class Recorded:
    """What Darknet itself answered, and what the reference answers."""

    data: Any
    net: Network


@pytest.fixture(scope="session")
def recorded_by_name(shared: Path) -> dict[str, Recorded]:
    """What was run already: the tests come in random order."""
    return {}


@pytest.fixture
def recorded(request: pytest.FixtureRequest, shared: Path, recorded_by_name: dict[str, Recorded]) -> Recorded:
    name: str = request.param
    if name not in recorded_by_name:
        source = shared / "darknet"
        data = np.load(source / f"{name}.npz")
        image = np.asarray(cv2.imdecode(data["png"], cv2.IMREAD_COLOR_RGB), np.uint8)
        with tempfile.TemporaryDirectory(prefix="trtjob-test-") as folder:
            weights = Path(folder) / "a.weights"
            weights_builder(source).build(source / f"{name}.npz", weights)
            recorded_by_name[name] = Recorded(data, run_file(source / "cfg" / f"{name}.cfg", weights, image))
    return recorded_by_name[name]


def weights_builder(source: Path) -> Any:
    """Return the recordings' own script as a module."""
    spec = importlib.util.spec_from_file_location("build_weights", source / "build_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("recorded", [*CHECKED, *CHECKED_DETECTORS], indirect=True)
def test_the_reference_has_the_values_of_darknets_last_layers(recorded: Recorded) -> None:
    data, net = recorded.data, recorded.net
    names = [key.removesuffix("_index") for key in data.files if key.startswith("out_") and key.endswith("_index")]
    assert names
    for name in names:
        values = net.outputs[int(name[4:7])].ravel()[data[f"{name}_index"]]
        assert largest_difference(values, data[f"{name}_value"]) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("recorded", CHECKED, indirect=True)
def test_the_reference_has_darknets_probabilities(recorded: Recorded) -> None:
    assert largest_difference(recorded.net.probabilities(), recorded.data["probs"]) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("recorded", CHECKED_DETECTORS, indirect=True)
def test_the_reference_has_every_box_of_darknet(recorded: Recorded) -> None:
    rows, found = recorded.data["boxes"], recorded.net.detections()
    assert len(rows) > 10
    for row in rows:
        # The suppression has set some scores to 0.
        is_kept = row[5:] > 0
        boxes = np.abs(found.cxcywh - row[:4]).max(1)
        scores = np.abs(found.scores - row[5:])[:, is_kept].max(1, initial=0)
        assert np.maximum(boxes, scores).min() < 2e-3


def largest_difference(ours: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the largest difference, relative to the largest value."""
    assert ours.shape == reference.shape
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


class RandomNumbers:
    """Weights that keep values near 1 from layer to layer, as trained ones do, and remember their order."""

    def __init__(self, seed: int, version: tuple[int, int] = (0, 2)) -> None:
        self.version = version
        self.transposed = False
        self.generator = np.random.default_rng(seed)
        self.taken: list[NDArray[np.float32]] = []

    def take(self, what: str, *shape: int) -> Array:
        normal = self.generator.standard_normal(shape)
        by_kind = {
            "kernels": lambda: normal / math.sqrt(shape[-1]),
            "bias": lambda: 0.4 * normal,
            "mean": lambda: 0.4 * normal,
            "scale": lambda: 1 + 0.3 * normal,
            "variance": lambda: self.generator.uniform(0.2, 2, shape),
            "factors": lambda: 0.5 + normal,
            "values": lambda: normal,
        }
        numbers = by_kind[what]().astype(np.float32)
        self.taken.append(numbers)
        return numbers.astype(np.float64)

    def content(self) -> bytes:
        """Return the weights file. Before version 0.2 the number of images seen has 4 bytes."""
        major, minor = self.version
        header = np.array([major, minor, 0], "<i4").tobytes() + bytes(8 if major * 10 + minor >= 2 else 4)
        return header + b"".join(numbers.tobytes() for numbers in self.taken)


@dataclass(frozen=True)
class Example:
    """A network that the reference has run."""

    cfg: str
    image: NDArray[np.uint8] = field(repr=False)
    numbers: RandomNumbers = field(repr=False)
    net: Network = field(repr=False)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """Show a person the network, and none of its numbers: hypothesis would print them all."""
        printer.text(f"\n{self.cfg}")


# What a cfg may name: a tree of nine classes, and three of them.
FILES = {
    "classes.tree": "a -1\nb -1\nc 0\nd 0\ne 1\nf 1\ng 1\nh 2\ni 2\n",
    "classes.map": "2\n8\n5\n",
}


def example_of(cfg: str, *, seed: int = 0, version: tuple[int, int] = (0, 2)) -> Example:
    """Return a network with random weights, and an image of its size."""
    options = dict(line.split("=") for line in cfg.partition("\n\n")[0].splitlines()[1:])
    image = random_image(seed, *(int(options[name]) for name in ("height", "width", "channels")))
    numbers = RandomNumbers(seed, version)
    return Example(cfg, image, numbers, run_darknet(cfg, numbers, image, FILES))


def random_image(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def convert_and_run(example: Example) -> list[NDArray[np.float32]]:
    """Return what the converted network answers: boxes and scores, or scores."""
    net = example.net
    labels = net.heads[0].scores.shape[1] if net.heads else net.probabilities().size
    with tempfile.TemporaryDirectory(prefix="trtjob-test-") as folder:
        for name, content in FILES.items():
            (Path(folder) / name).write_text(content)
        weights = Path(folder) / "net.weights"
        weights.write_bytes(example.numbers.content())
        weights.with_suffix(".cfg").write_text(example.cfg)
        weights.with_suffix(".names").write_text("".join(f"class {number}\n" for number in range(labels)))
        model = convert(ConversionRequest(model=weights)).model
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    batch = np.stack([255 - example.image, example.image])
    return [answers[1] for answers in session.run(None, {INPUT_NAME: batch})]


def assert_the_converter_agrees(example: Example) -> None:
    outputs = convert_and_run(example)
    if example.net.heads:
        assert_same_detections(example, *outputs)
    else:
        (scores,) = outputs
        assert largest_difference(scores, example.net.probabilities()) < TOLERANCE


def assert_same_detections(example: Example, boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    """Compare detections as a set: nothing says in which order they come, and only the best need be there."""
    expected = example.net.detections()
    height, width = example.image.shape[:2]
    xyxy = corners(expected.cxcywh) * [width, height, width, height]
    assert np.isfinite(xyxy).all()
    assert boxes.shape == (min(len(xyxy), MAX_CANDIDATES), 4)
    # In each column a value of the box, relative to the image or to the box where that is larger, or a score.
    sizes = np.maximum(np.abs(xyxy).max(1), max(height, width))
    # ONNX Runtime's sigmoid is right to some 1e-8, which is much of a score where no score is more than nearly nothing.
    largest_score = max(0.01, np.abs(expected.scores).max())
    differences = np.zeros((len(boxes), len(xyxy)))
    for ours, theirs in zip(boxes.T, xyxy.T, strict=True):
        differences = np.maximum(differences, np.abs(ours[:, None] - theirs) / sizes)
    for ours, theirs in zip(scores.T, expected.scores.T, strict=True):
        differences = np.maximum(differences, np.abs(ours[:, None] - theirs) / largest_score)
    unknown = float(differences.min(1).max())
    assert unknown < TOLERANCE, "a detection that Darknet does not have"
    best = expected.scores.max(1)
    least = np.sort(best)[-len(boxes)] + TOLERANCE if len(boxes) < len(best) else -np.inf
    missing = float(differences.min(0)[best > least].max())
    assert missing < TOLERANCE, "a detection of Darknet's is missing"


def corners(cxcywh: Array) -> Array:
    centres, halves = cxcywh[:, :2], cxcywh[:, 2:] / 2
    return np.concatenate([centres - halves, centres + halves], 1)


INPUT = """\
[net]
width=10
height=7
channels=3

[convolutional]
filters=8
size=3
pad=1
activation=leaky
"""

# 8 channels of 8 x 12: what halves the sides of its input.
EVEN_INPUT = INPUT.replace("width=10", "width=12").replace("height=7", "height=8")

# Reads every value of the layer before it.
HEAD = """\
[convolutional]
filters=14
size=1
activation=linear

[yolo]
mask=0,2
num=3
anchors=2,3, 7,5, 9,4
classes=2
"""


def layer(kind: str, **options: object) -> str:
    """Write a layer's section. A trailing underscore is Python's affair: `from_`."""
    return f"\n[{kind}]\n" + "".join(f"{name.rstrip('_')}={value}\n" for name, value in options.items())


def conv(filters: int = 8, size: int = 1, activation: str = "linear", **options: object) -> str:
    return layer("convolutional", filters=filters, size=size, activation=activation, **options)


LAYER_EXAMPLES = [
    pytest.param(conv(size=3, pad=1, batch_normalize=1), id="convolution with batch norm"),
    pytest.param(conv(size=3), id="convolution without padding"),
    pytest.param(conv(size=3, pad=1, padding=0), id="convolution whose pad beats padding"),
    pytest.param(conv(size=3, padding=2), id="convolution with more padding than half its size"),
    pytest.param(conv(size=2, pad=1), id="convolution of even size"),
    pytest.param(conv(size=4, pad=1, stride=2), id="convolution of even size with a stride"),
    pytest.param(conv(size=1, pad=1, stride=3), id="convolution of size 1 with a stride"),
    pytest.param(conv(size=3, pad=1, stride_x=2, stride_y=3), id="convolution with two strides"),
    pytest.param(conv(size=3, pad=1, stride=1, stride_x=2), id="convolution with one stride of its own"),
    pytest.param(conv(size=3, pad=1, dilation=2), id="convolution with dilation"),
    pytest.param(conv(size=5, padding=2, dilation=3, stride=2), id="convolution with dilation and stride"),
    pytest.param(conv(size=1, dilation=4), id="convolution of size 1 with dilation"),
    pytest.param(conv(size=3, pad=1, groups=4, filters=12, batch_normalize=1), id="convolution in groups"),
    pytest.param(conv(size=3, pad=1, groups=8), id="convolution by channel"),
    pytest.param("\n[conv]\nfilters=4\nsize=1\n", id="convolution by its other name, logistic"),
    pytest.param(conv(size=3, pad=1, batch_normalize=1) + conv(size=3, dilation=2, pad=1, share_index=-1), id="share"),
    pytest.param(
        conv(size=3, pad=1, batch_normalize=1)
        + conv(size=1)
        + conv(size=3, stride=2, pad=1, share_index=1, batch_normalize=1, activation="mish"),
        id="share of batch norm, too",
    ),
    pytest.param(layer("maxpool", size=2, stride=2), id="maxpool of an odd side"),
    pytest.param(layer("maxpool", size=2, stride=1), id="maxpool 2 with stride 1"),
    pytest.param(layer("maxpool", size=3, stride=2), id="maxpool 3 with stride 2"),
    pytest.param(layer("maxpool", size=3, stride=2, padding=0), id="maxpool without padding"),
    pytest.param(layer("maxpool", size=3, stride=2, padding=1), id="maxpool with odd padding"),
    pytest.param(layer("maxpool", size=3, stride=1, padding=4), id="maxpool with much padding"),
    pytest.param(layer("maxpool", size=5, stride=1), id="maxpool of a pyramid"),
    pytest.param(layer("maxpool", size=4, stride_x=1, stride_y=2), id="maxpool with two strides"),
    pytest.param(layer("maxpool", stride=3), id="maxpool whose size is its stride"),
    pytest.param(layer("max", maxpool_depth=1, out_channels=4), id="maxpool over channels"),
    pytest.param(layer("local_avgpool", size=3, stride=2), id="local average"),
    pytest.param(layer("local_avgpool", size=4, stride=1), id="local average of even size"),
    pytest.param(layer("local_avgpool", size=2, stride_x=1, stride_y=2, padding=0), id="local average, two strides"),
    pytest.param(layer("avgpool"), id="average"),
    pytest.param(layer("upsample", stride=2), id="upsample"),
    pytest.param(layer("upsample", stride=3, scale=0.5), id="upsample with a scale"),
    pytest.param(layer("maxpool", size=3, stride=1) + layer("route", layers="-1,0"), id="route of two"),
    pytest.param(layer("route", layers="0", groups=4, group_id=2), id="route of a group"),
    pytest.param(conv(4) + conv(2) + layer("route", layers="-1, 0, -2", groups=2, group_id=1), id="route of groups"),
    pytest.param(conv() + layer("shortcut", from_="-2", activation="leaky"), id="shortcut"),
    pytest.param(conv(5) + layer("shortcut", from_="0"), id="shortcut from more channels"),
    pytest.param(conv(11) + layer("shortcut", from_="0", activation="swish"), id="shortcut from fewer channels"),
    pytest.param(conv(5) + conv() + layer("shortcut", from_="-2,0"), id="shortcut of three"),
    pytest.param(
        conv(5) + conv() + layer("shortcut", from_="-2,0", weights_type="per_feature", weights_normalization="relu"),
        id="shortcut with a weight for each input",
    ),
    pytest.param(
        conv(5) + conv() + layer("shortcut", from_="-2,0", weights_type="per_channel", weights_normalization="relu"),
        id="shortcut with weights for each channel",
    ),
    pytest.param(
        conv(9) + conv() + layer("shortcut", from_="-2,0", weights_type="per_channel", weights_normalization="softmax"),
        id="shortcut with softmax weights",
    ),
    pytest.param(
        conv(9) + layer("shortcut", from_="0", weights_type="per_layer", weights_normalization="avg_relu"),
        id="shortcut with weights by their other names",
    ),
    pytest.param(conv(12, 1, stride=3) + layer("shortcut", from_="0"), id="shortcut from one three times as large"),
    pytest.param(
        conv(12, 2, stride=2) + layer("upsample", stride=2) + layer("shortcut", from_="-2", activation="relu"),
        id="shortcut from a smaller one",
    ),
    pytest.param(conv(8, 3) + layer("shortcut", from_="0"), id="shortcut from a slightly larger one"),
    pytest.param(
        layer("avgpool") + conv(8, activation="logistic") + layer("scale_channels", from_="0"),
        id="scale channels",
    ),
    pytest.param(
        conv(1, activation="logistic") + layer("scale_channels", from_="-2", scale_wh=1, activation="relu"),
        id="scale places",
    ),
    pytest.param(conv() + layer("sam", from_="-2", activation="leaky"), id="sam"),
    pytest.param(layer("implicit", filters=8) + layer("scale_channels", from_="0"), id="implicit"),
    pytest.param(layer("implicit", filters=3, atoms=4, mean=1), id="implicit with atoms"),
    pytest.param(layer("batchnorm"), id="batch norm"),
    pytest.param(layer("normalization"), id="normalization"),
    pytest.param(layer("lrn", size=3, alpha=0.3, beta=0.6, kappa=2), id="normalization of 3"),
    pytest.param(layer("normalization", size=4, alpha=0.3, kappa=2), id="normalization of even size"),
    pytest.param(layer("normalization", size=5, alpha=0.2, kappa=4), id="normalization of 5"),
    pytest.param(layer("crop", crop_height=4, crop_width=7, flip=1, angle=7), id="crop"),
    pytest.param(layer("crop", crop_height=5, crop_width=3, noadjust=1), id="crop without adjustment"),
    pytest.param(layer("dropout", probability=0.5), id="dropout"),
    pytest.param(layer("empty"), id="empty"),
    pytest.param(layer("activation", activation="elu"), id="activation"),
    pytest.param(layer("activation"), id="activation by default"),
    pytest.param(layer("connected", output=9, activation="tanh"), id="connected"),
    pytest.param(layer("connected", output=9, batch_normalize=1), id="connected with batch norm, logistic"),
    pytest.param(layer("conn", output=9) + layer("connected", output=4, activation="linear"), id="connected twice"),
    pytest.param(layer("local", filters=3, size=3, activation="leaky"), id="local"),
    pytest.param(layer("local", filters=2, size=3, pad=1, stride=2), id="local with padding, logistic"),
]

EVEN_EXAMPLES = [
    pytest.param(conv(8, 3, stride=2, pad=1) + layer("shortcut", from_="0"), id="shortcut from a larger one"),
    pytest.param(layer("reorg", stride=2), id="reorg"),
    pytest.param(layer("reorg", stride=2, reverse=1), id="reorg in reverse"),
    pytest.param(conv(9) + layer("maxpool", size=3, stride=1) + layer("reorg", stride=1), id="reorg of stride 1"),
    pytest.param(layer("reorg3d", stride=2), id="reorg3d"),
    pytest.param(layer("reorg3d", stride=4), id="reorg3d of stride 4"),
    pytest.param(conv(16) + layer("reorg3d", stride=2, reverse=1), id="reorg3d in reverse"),
]


@pytest.mark.parametrize("layers", LAYER_EXAMPLES)
def test_a_layer_is_darknets(layers: str) -> None:
    assert_the_converter_agrees(example_of(f"{INPUT}{layers}\n{HEAD}"))


@pytest.mark.parametrize("layers", EVEN_EXAMPLES)
def test_a_layer_of_even_sides_is_darknets(layers: str) -> None:
    assert_the_converter_agrees(example_of(f"{EVEN_INPUT}{layers}\n{HEAD}"))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_is_darknets(activation: str) -> None:
    # Values from -30 to 30 or so, where an exponential or a step shows; then small ones again, for those of the head.
    larger, smaller = layer("upsample", stride=1, scale=12), layer("upsample", stride=1, scale=0.1)
    assert_the_converter_agrees(example_of(f"{INPUT}{larger}{conv(8, 1, activation)}{smaller}\n{HEAD}"))


HEAD_EXAMPLES = [
    pytest.param(conv(14) + layer("yolo", num=2, classes=2, anchors="3,4, 5,2"), id="yolo without a mask"),
    pytest.param(conv(7) + layer("yolo", mask=1, num=2, classes=2, anchors="3,4,5,2#, 7"), id="yolo with a comment"),
    pytest.param(
        conv(6) + layer("yolo", num=1, classes=1, anchors="3,4", scale_x_y=1.2), id="yolo of one class, scaled"
    ),
    pytest.param(
        conv(21, activation="logistic")
        + layer("yolo", mask="0,1,2", num=3, classes=2, anchors="3,4,5,2,9,9", new_coords=1, scale_x_y=2.0),
        id="yolo with new coordinates",
    ),
    pytest.param(
        conv(7)
        + layer("yolo", mask=1, num=2, classes=2, anchors="3,4,5,2", scale_x_y=1.05)
        + layer("route", layers="-3")
        + conv(8, 3, stride=2, pad=1)
        + layer("upsample", stride=3)
        + conv(14)
        + layer("yolo", mask="1,0", num=2, classes=2, anchors="3,4,5,2", scale_x_y=1.5),
        id="two yolos",
    ),
    pytest.param(
        layer("upsample", stride=3) + conv(14) + layer("yolo", num=2, classes=2, anchors="3,4, 5,2"),
        id="yolo with more boxes than are kept",
    ),
    pytest.param(
        conv(22) + layer("Gaussian_yolo", num=2, classes=2, anchors="3,4, 5,2", scale_x_y=1.1), id="Gaussian yolo"
    ),
    pytest.param(
        conv(11) + layer("Gaussian_yolo", mask=1, num=2, classes=2, anchors="3,4,5,2", yolo_point="left_top"),
        id="Gaussian yolo of corners",
    ),
    pytest.param(
        conv(11) + layer("Gaussian_yolo", mask=0, num=2, classes=2, anchors="3,4,5,2", yolo_point="right_bottom"),
        id="Gaussian yolo of other corners",
    ),
    pytest.param(
        conv(16) + layer("region", num=2, classes=3, coords=4, softmax=1, anchors="0.7,0.9, 2.5,1.2"), id="region"
    ),
    pytest.param(
        conv(16, activation="logistic") + layer("region", num=2, classes=3, anchors="0.7,0.9, 2.5,1.2"),
        id="region without softmax",
    ),
    pytest.param(
        layer("connected", output=9 * (3 + 2 * 5), activation="linear")
        + layer("detection", side=3, num=2, classes=3, coords=4, softmax=1, sqrt=1),
        id="detection",
    ),
    pytest.param(
        layer("connected", output=4 * (2 + 3 * 5), activation="logistic")
        + layer("detection", side=2, num=3, classes=2, coords=4),
        id="detection without softmax and square root",
    ),
    pytest.param(
        layer("local", filters=11, size=1)
        + layer("crop", crop_height=7, crop_width=7, noadjust=1)
        + layer("detection", num=2, classes=1, coords=4),
        id="detection of a local layer",
    ),
    pytest.param(layer("avgpool") + layer("softmax"), id="softmax"),
    pytest.param(
        layer("avgpool") + layer("soft", temperature=2.5) + layer("cost", type="sse"), id="softmax and a cost"
    ),
    pytest.param(layer("softmax", groups=4), id="softmax in groups, of an image"),
    pytest.param(layer("softmax"), id="softmax over all of an image"),
    pytest.param(conv(9) + layer("avgpool") + layer("softmax", tree="classes.tree"), id="softmax of a tree"),
    pytest.param(
        conv(28) + layer("region", num=2, classes=9, anchors="1,2,3,1", tree="classes.tree"), id="region of a tree"
    ),
    pytest.param(
        conv(28) + layer("region", num=2, classes=9, anchors="1,2,3,1", tree="classes.tree", map="classes.map"),
        id="region of a tree, with a map",
    ),
    pytest.param(layer("softmax", spatial=1, noloss=1), id="softmax at each place"),
    pytest.param(
        layer("connected", output=5, activation="linear") + layer("softmax", groups=1), id="connected softmax"
    ),
    pytest.param(layer("maxpool", size=2, stride=2) + conv(6) + layer("avgpool") + layer("softmax"), id="classifier"),
]


@pytest.mark.parametrize("head", HEAD_EXAMPLES)
def test_a_head_is_darknets(head: str) -> None:
    assert_the_converter_agrees(example_of(f"{INPUT}{head}"))


REFUSED_EXAMPLES = [
    pytest.param(
        layer("maxpool", maxpool_depth=1, out_channels=3), "out_channels=3", id="uneven maxpool over channels"
    ),
    pytest.param(layer("upsample", stride=-2), "stride=-2", id="downsample"),
    pytest.param(conv(6) + layer("reorg", stride=1) + layer("reorg", stride=2), "stride=2", id="uneven reorg"),
    pytest.param(conv() + conv(share_index=-1) + conv(share_index=-1), "share_index=-1", id="share of a share"),
    pytest.param(conv(3) + conv(8, 3, share_index=0), "share_index=0", id="share of the first"),
    pytest.param(conv(size=3, dilation=2), "dilation=2", id="dilation without padding"),
    pytest.param(conv(size=3, flipped=1), "flipped=1", id="flipped kernels"),
]


@pytest.mark.parametrize(("layers", "named"), REFUSED_EXAMPLES)
def test_what_is_not_converted_is_refused_by_name(layers: str, named: str) -> None:
    """Darknet runs these, some of them on memory that is not theirs; no cfg of its own has them."""
    numbers = RandomNumbers(0)
    numbers.take("values", 2000)
    example = Example(f"{INPUT}{layers}\n{HEAD}", random_image(0, 7, 10, 3), numbers, example_of(INPUT + HEAD).net)
    with pytest.raises(DarknetParseError, match=named):
        convert_and_run(example)


@pytest.mark.parametrize(
    "version",
    [
        pytest.param((0, 1), id="of 4 bytes"),
        pytest.param((0, 2), id="of 8 bytes"),
        pytest.param((1, 0), id="of the next major version"),
    ],
)
def test_a_header_is_darknets(version: tuple[int, int]) -> None:
    layers = layer("connected", output=9, activation="tanh") + layer("connected", output=4, batch_normalize=1)
    assert_the_converter_agrees(example_of(f"{INPUT}{layers}\n{layer('softmax')}", version=version))


def test_a_crop_may_come_first() -> None:
    image = INPUT.partition("\n\n")[0]
    layers = layer("crop", crop_height=5, crop_width=8) + conv(8, 3, pad=1, batch_normalize=1)
    assert_the_converter_agrees(example_of(f"{image}\n{layers}\n{HEAD}"))


def test_a_pooling_may_come_first() -> None:
    image = INPUT.partition("\n\n")[0]
    assert_the_converter_agrees(example_of(f"{image}\n{layer('maxpool', size=2, stride=2)}\n{HEAD}"))


def test_an_image_may_be_grey() -> None:
    assert_the_converter_agrees(example_of(f"{INPUT.replace('channels=3', 'channels=1')}\n{HEAD}"))


Draw = st.DrawFn
Options = dict[str, object]

MAX_CHANNELS = 24
MAX_SIDE = 40
MAX_CELLS = 200  # of a head, so that it has few boxes to compare

# Where all channels are small, this one divides a rounding error by nearly nothing: only the fixed examples have it.
OF_CONVOLUTIONS = sorted(ACTIVATIONS.keys() - {"normalize_channels"})
# What Darknet computes elsewhere, and does not give zeros for: activate() in activations.c does not know all of them.
OF_SHORTCUTS = sorted(name for name in OF_CONVOLUTIONS if not name.startswith("normalize") and name != "hard_mish")
OF_OTHERS = sorted(set(OF_SHORTCUTS) - {"swish", "mish"})


@dataclass
class Draft:
    """A network that grows: what it has so far is computed already, so every layer knows its input."""

    draw: Draw
    net: Network
    cfg: str
    readable: list[int] = field(default_factory=list)  # layers that others may read: no heads

    @property
    def x(self) -> Array:
        return self.net.x

    def add(self, kind: str, **options: object) -> None:
        text = layer(kind, **options)
        self.cfg += text
        self.net.add(*sections_of(text))
        if kind not in HEADS:
            self.readable.append(len(self.net.outputs) - 1)

    def pick(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def reference(self, index: int) -> int:
        """Write a layer's number from the beginning or backwards from the next layer."""
        return int(self.pick(index, index - len(self.net.outputs)))

    def earlier(self, is_fit: Callable[[Array], bool]) -> list[int]:
        return [index for index in self.readable if is_fit(self.net.outputs[index])]


def divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def add_convolution(draft: Draft) -> None:
    channels, *hw = draft.x.shape
    groups = draft.pick(*divisors(channels))
    filters = groups * draft.pick(*range(1, max(2, 9 // groups)))
    size = draft.pick(1, 1, 2, 3, 3, 3, 4, 5)
    options = window_options(draft, size, hw)
    if options is None:
        return
    if draft.pick(0, 1):
        options["batch_normalize"] = 1
    if groups > 1:
        options["groups"] = groups
    draft.add("convolutional", filters=filters, size=size, activation=draft.pick(*OF_CONVOLUTIONS), **options)


def window_options(draft: Draft, size: int, hw: list[int]) -> Options | None:
    """Draw a convolution's padding, stride and dilation; None where its windows do not fit.

    Left out is what Darknet computes from memory that is not the image's: dilation with another padding than half the
    size, and padding or a stride of its own for y where size and stride are 1 (forward_convolutional_layer).
    """
    paddings: list[Options] = [{}, {"pad": 1}, {"pad": 1, "padding": 9}]
    if size > 1:
        paddings += [{"padding": count} for count in range(size)]
    options: Options = dict(draft.pick(*paddings))
    padding = size // 2 if "pad" in options else int(str(options.get("padding", 0)))
    if any(side + 2 * padding < size for side in hw):
        return None
    options |= draft.pick({}, {}, {"stride": 2}, {"stride": 3}, {"stride_x": 2, "stride_y": 3})
    if size > 1 and draft.pick(0, 1):
        options |= draft.pick({"stride_y": 2}, {"stride_x": 1, "stride_y": 2, "stride": 3})
    if 2 * padding == size - 1 and draft.pick(0, 1):
        options["dilation"] = draft.pick(2, 3)
    return options


def add_shared_convolution(draft: Draft) -> None:
    sources = [
        (index, section)
        for index, section in enumerate(draft.net.sections)
        if index and is_shareable(section) and len(draft.net.outputs[index - 1]) == len(draft.x)
    ]
    if not sources:
        return
    index, source = draft.pick(*sources)
    size = source.integer("size", 1)
    options = window_options(draft, size, list(draft.x.shape[1:]))
    if options is None:
        return
    same = {name: source.options[name] for name in ("filters", "size", "groups") if name in source.options}
    options["share_index"] = draft.reference(index)
    draft.add("convolutional", **same, **options, activation=draft.pick(*OF_CONVOLUTIONS))


def is_shareable(section: Section) -> bool:
    return section.kind == "convolutional" and "share_index" not in section.options


def add_pooling(draft: Draft) -> None:
    size, hw = draft.pick(1, 2, 2, 3, 3, 4, 5), draft.x.shape[1:]
    options: Options = dict(draft.pick({}, *({"padding": count} for count in range(2 * size - 1))))
    if any(side + int(str(options.get("padding", size - 1))) < size for side in hw):
        return
    options |= draft.pick({"stride": 1}, {"stride": 2}, {"stride": 3}, {"stride_x": 1, "stride_y": 2}, {"stride_x": 2})
    draft.add(draft.pick("maxpool", "maxpool", "local_avgpool"), size=size, **options)


def add_depth_pooling(draft: Draft) -> None:
    draft.add("maxpool", maxpool_depth=1, out_channels=draft.pick(*divisors(len(draft.x))))


def add_upsample(draft: Draft) -> None:
    stride = draft.pick(1, 2, 3)
    if stride * max(draft.x.shape[1:]) <= MAX_SIDE:
        draft.add("upsample", stride=stride, **draft.pick({}, {"scale": 0.5}, {"scale": 1.5}))


def add_route(draft: Draft) -> None:
    first = draft.pick(*draft.readable)
    hw = draft.net.outputs[first].shape[1:]
    same = draft.earlier(lambda output: output.shape[1:] == hw)
    layers = [first, *(draft.pick(*same) for _ in range(draft.pick(0, 1, 1, 2)))]
    channels = [len(draft.net.outputs[index]) for index in layers]
    groups = draft.pick(1, *divisors(math.gcd(*channels)))
    if sum(channels) // groups <= MAX_CHANNELS:
        options = {"groups": groups, "group_id": draft.pick(*range(groups))} if groups > 1 else {}
        draft.add("route", layers=",".join(str(draft.reference(index)) for index in layers), **options)


def add_shortcut(draft: Draft) -> None:
    same = draft.earlier(lambda output: output.shape[1:] == draft.x.shape[1:])
    layers = [draft.pick(*same) for _ in range(draft.pick(1, 1, 1, 2, 3))] if same else []
    if not layers:
        return
    options: Options = dict(draft.pick({}, {}, {"weights_type": "per_feature"}, {"weights_type": "per_channel"}))
    if options:
        options["weights_normalization"] = draft.pick("relu", "softmax")
    numbers = ",".join(str(draft.reference(index)) for index in layers)
    draft.add("shortcut", from_=numbers, activation=draft.pick(*OF_SHORTCUTS), **options)


def add_shortcut_between_sizes(draft: Draft) -> None:
    if fit := draft.earlier(lambda output: is_multiple(output.shape[1:], draft.x.shape[1:])):
        draft.add("shortcut", from_=draft.reference(draft.pick(*fit)), activation=draft.pick("linear", "leaky"))


def is_multiple(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Tell whether the sides are other ones, and in about the same ratio (pjreddie's assertions in shortcut_cpu)."""
    ratios = {(x // y, y // x) for x, y in zip(a, b, strict=True)}
    return a != b and len(ratios) == 1


def add_channel_factors(draft: Draft) -> None:
    """Squeeze and excite, or factors that no image has a part in."""
    index = draft.pick(*draft.readable)
    target = draft.net.outputs[index]
    if draft.pick(0, 1):
        draft.add("avgpool")
        draft.add("convolutional", filters=len(target), size=1, activation=draft.pick("logistic", "swish", "hardtan"))
    else:
        draft.add("implicit", filters=len(target))
    draft.add("scale_channels", from_=draft.reference(index), activation=draft.pick(*OF_OTHERS))


def add_place_factors(draft: Draft) -> None:
    fit = draft.earlier(lambda output: output.shape[1:] == draft.x.shape[1:])
    draft.add("convolutional", filters=1, size=1, activation="logistic")
    if fit:
        draft.add("scale_channels", from_=draft.reference(draft.pick(*fit)), scale_wh=1)


def add_sam(draft: Draft) -> None:
    if fit := draft.earlier(lambda output: output.shape == draft.x.shape):
        draft.add("sam", from_=draft.reference(draft.pick(*fit)), activation=draft.pick(*OF_OTHERS))


def add_reorg(draft: Draft) -> None:
    """Left out: odd sides, where Darknet writes or reads beyond what it has."""
    channels, *hw = draft.x.shape
    if channels % 4:
        draft.add("convolutional", filters=draft.pick(4, 8, 16), size=1, activation="linear")
        channels = len(draft.x)
    kind = draft.pick("reorg", "reorg3d")
    if 2 * max(hw) <= MAX_SIDE and (kind == "reorg" or channels % 16 == 0) and draft.pick(0, 1):
        draft.add(kind, stride=2, reverse=1)
    elif not any(side % 2 for side in hw) and 4 * channels <= 2 * MAX_CHANNELS:
        draft.add(kind, stride=2)


def add_normalization(draft: Draft) -> None:
    size = draft.pick(2, 3, 4, 5)
    if len(draft.x) >= size:
        # A kappa that keeps the sum positive, which Darknet's own does not promise.
        kappa = draft.pick(1, 2) + 0.1 * float((draft.x**2).sum(0).max())
        draft.add("normalization", size=size, alpha=0.1, beta=draft.pick(0.5, 0.75), kappa=f"{kappa:.3f}")


def add_crop(draft: Draft) -> None:
    _, height, width = draft.x.shape
    options = draft.pick({}, {"noadjust": 1})
    crop_height, crop_width = (draft.pick(*range((side + 1) // 2, side + 1)) for side in (height, width))
    draft.add("crop", crop_height=crop_height, crop_width=crop_width, **options)


def add_local(draft: Draft) -> None:
    size, pad = draft.pick((1, 0), (2, 0), (3, 0), (3, 1))
    if all(size <= side <= 12 for side in draft.x.shape[1:]):
        options = {"pad": pad, "stride": draft.pick(1, 2), "activation": draft.pick(*OF_OTHERS)}
        draft.add("local", filters=draft.pick(1, 2, 3), size=size, **options)


def add_connected(draft: Draft) -> None:
    options = draft.pick({}, {"batch_normalize": 1})
    draft.add("connected", output=draft.pick(*range(1, 17)), activation=draft.pick(*OF_OTHERS), **options)


def add_simple(draft: Draft) -> None:
    kind = draft.pick("batchnorm", "dropout", "activation", "empty")
    options = {"activation": {"activation": draft.pick(*OF_OTHERS)}, "dropout": {"probability": 0.3}}
    draft.add(kind, **options.get(kind, {}))


# What a network is made of, the usual more often than the rest.
LAYER_MAKERS: list[Callable[[Draft], None]] = [
    *[add_convolution] * 5,
    add_shared_convolution,
    *[add_pooling] * 2,
    add_depth_pooling,
    *[add_upsample] * 2,
    *[add_route] * 3,
    *[add_shortcut] * 3,
    *[add_shortcut_between_sizes] * 2,
    add_channel_factors,
    add_place_factors,
    add_sam,
    add_reorg,
    add_normalization,
    add_crop,
    add_local,
    *[add_simple] * 2,
]


def end_in_yolo(draft: Draft) -> None:
    """End in one to three heads, of any of the anchors, each after the first on some earlier layer."""
    kind = draft.pick("yolo", "yolo", "Gaussian_yolo")
    classes, total = draft.pick(1, 2, 3), draft.pick(1, 2, 3)
    options: Options = {"num": total, "classes": classes, "anchors": anchors(draft, total, 20)}
    if is_new := kind == "yolo" and draft.pick(0, 1):
        options["new_coords"] = 1
    for head in range(draft.pick(1, 2, 3)):
        if head:
            draft.add("route", layers=draft.reference(draft.pick(*draft.readable)))
        mask = draft.draw(st.lists(st.integers(0, total - 1), min_size=1, unique=True))
        shrink(draft)
        values = classes + (5 if kind == "yolo" else 9)
        activation = "logistic" if is_new else "linear"
        draft.add("convolutional", filters=len(mask) * values, size=1, activation=activation)
        options |= draft.pick({}, {"scale_x_y": 1.1}, {"scale_x_y": 2.0})
        if kind == "Gaussian_yolo":
            options["yolo_point"] = draft.pick("center", "left_top", "right_bottom")
        draft.add(kind, mask=",".join(map(str, mask)), **options)


def end_in_region(draft: Draft) -> None:
    classes, total = draft.pick(1, 2, 3), draft.pick(1, 2, 3)
    shrink(draft)
    draft.add("convolutional", filters=total * (5 + classes), size=1, activation=draft.pick("linear", "logistic"))
    draft.add("region", num=total, classes=classes, softmax=draft.pick(0, 1), anchors=anchors(draft, total, 4))


def end_in_detection(draft: Draft) -> None:
    side, total, classes = draft.pick(1, 2, 3), draft.pick(1, 2), draft.pick(1, 2, 3)
    draft.add("connected", output=side**2 * (5 * total + classes), activation=draft.pick("linear", "logistic"))
    flags = {"softmax": draft.pick(0, 1), "sqrt": draft.pick(0, 1)}
    draft.add("detection", side=side, num=total, classes=classes, coords=4, **flags)


def end_in_classes(draft: Draft) -> None:
    shrink(draft)
    match draft.pick("average", "connected", "image"):
        case "average":
            draft.add("avgpool")
        case "connected":
            add_connected(draft)
            add_connected(draft)
    options = {"groups": draft.pick(*divisors(draft.x.size)), "temperature": draft.pick(1, 0.5, 3)}
    draft.add("softmax", **draft.pick({}, options))
    if draft.pick(0, 1):
        draft.add("cost", type="sse")


def shrink(draft: Draft) -> None:
    while draft.x[0].size > MAX_CELLS:
        draft.add("maxpool", size=3, stride=2)


def anchors(draft: Draft, count: int, largest: int) -> str:
    numbers = st.integers(1, 10 * largest).map(lambda tenths: f"{tenths / 10}")
    comma: str = draft.pick(",", ", ")
    return comma.join(draft.draw(st.lists(numbers, min_size=2 * count, max_size=2 * count)))


HEADS = {"yolo", "Gaussian_yolo", "region", "detection", "softmax", "cost"}
ENDS = [end_in_yolo, end_in_yolo, end_in_region, end_in_detection, end_in_classes, end_in_classes]


@st.composite
def networks(draw: Draw) -> Example:
    """Draw a network of 4 to 12 layers or a few more, and compute what it answers."""
    hw, channels, seed = (
        draw(st.tuples(*[st.integers(5, 32)] * 2)),
        draw(st.sampled_from([1, 3])),
        draw(st.integers(0, 99)),
    )
    numbers = RandomNumbers(seed, draw(st.sampled_from([(0, 2), (0, 1), (2, 0)])))
    image = random_image(seed, *hw, channels)
    cfg = f"[net]\nheight={hw[0]}\nwidth={hw[1]}\nchannels={channels}\n"
    draft = Draft(draw, Network(numbers, image.transpose(2, 0, 1) / 255), cfg)
    while not draft.readable:
        add_convolution(draft)
    for make in draw(st.lists(st.sampled_from(LAYER_MAKERS), min_size=2, max_size=9)):
        make(draft)
    draw(st.sampled_from(ENDS))(draft)
    return Example(draft.cfg, image, numbers, draft.net)


# Without shrinking, which would take minutes: a network is small enough to read as it is.
drawn_the_same_each_time = settings(derandomize=True, database=None, deadline=None, phases=[Phase.generate])


@pytest.mark.slow
@settings(drawn_the_same_each_time, max_examples=60)
@given(example=networks())
def test_any_network_is_darknets(example: Example) -> None:
    assert_the_converter_agrees(example)


@pytest.mark.chaos
@settings(drawn_the_same_each_time, max_examples=300)
@given(example=networks())
def test_any_of_many_networks_is_darknets(example: Example) -> None:
    assert_the_converter_agrees(example)
