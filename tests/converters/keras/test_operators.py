"""Operators and functions inside a model, of Keras 3 and of Keras 2: answers are those of the model that was saved."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converters.keras.networks import answers, pictures, saved

from trtjob.converters.keras import packages
from trtjob.converters.keras.origin import mode_of
from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import convert
from trtjob.engines.protocol import FloatArray
from trtjob.errors import ConversionError

pytestmark = [pytest.mark.extra, pytest.mark.slow, pytest.mark.usefixtures("keras")]

HW = (9, 8)
IMAGES = pictures(4, HW, seed=1)
FLOATS = IMAGES.astype(np.float32)
MEANS = [103.9, 116.8, 123.7]


def expect_answers(path: Path, expected: FloatArray, **wishes: Any) -> None:
    converted = convert(ConversionRequest(model=path, preprocess="none", **wishes))
    ours = answers(converted, IMAGES)
    assert converted.reference is not None
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours, converted.reference.run(IMAGES).scores, rtol=1e-4, atol=1e-5)


def rest(shape: tuple[int, ...] = (*HW, 3), seed: int = 0) -> Any:
    """A network that comes after what is tested."""
    keras = packages.keras()
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Flatten(), keras.layers.Dense(4, "softmax")]
    return keras.Sequential([keras.Input(shape), keras.layers.Rescaling(0.02), *layers])


# -- Keras 3 ----------------------------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "tf": lambda x: x / 127.5 - 1.0,
    "caffe": lambda x: x[..., ::-1] - packages.keras().ops.convert_to_tensor(MEANS),
    "number first": lambda x: 255.0 - x,
    "two tensors": lambda x: x + x * 0.5,
    "channels": lambda x: packages.keras().ops.stack([x[..., 2], x[..., 1], x[..., 0]], axis=-1),
    "cast": lambda x: packages.keras().ops.cast(x, "float32") * 0.5,
    "bounds": lambda x: packages.keras().ops.minimum(packages.keras().ops.maximum(x, 10.0), 200.0),
    "rectangle": lambda x: x[:, 1:-1, ::2],  # as TensorFlow has it, like the next ones
    "captured constant": lambda x: packages.keras().ops.square(x - packages.keras().ops.convert_to_tensor(MEANS)) / 99,
    "mean": lambda x: x - packages.keras().ops.mean(x, axis=(1, 2), keepdims=True),
    "image": lambda x: packages.keras().ops.image.resize(x, (12, 10)),
}


@pytest.mark.parametrize(
    ("name", "suffix"),
    [  # `make test` takes each in one kind of file, `make chaos` in the other
        pytest.param(name, suffix, marks=pytest.mark.chaos if (place + other) % 2 else ())
        for place, name in enumerate(OPERATIONS)
        for other, suffix in enumerate((".keras", ".h5"))
    ],
)
def test_operations_of_keras_3(name: str, suffix: str, tmp_path: Path) -> None:
    keras = packages.keras()
    image = keras.Input((*HW, 3))
    made = OPERATIONS[name](image)
    model = keras.Model(image, rest(made.shape[1:])(made))
    expect_answers(saved(model, tmp_path / f"net{suffix}"), model.predict(FLOATS, verbose=0))


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        pytest.param(lambda x: x / 127.5 - 1.0, "none", id="tf"),
        pytest.param(lambda x: packages.keras().applications.resnet50.preprocess_input(x), "none", id="caffe"),
        pytest.param(lambda x: packages.keras().applications.densenet.preprocess_input(x), "none", id="torch"),
        pytest.param(lambda x: x * (1 / 255), "none", id="a factor"),
        pytest.param(
            lambda x: packages.keras().layers.Rescaling(1 / 255)(packages.keras().layers.Resizing(9, 8)(x)),
            "none",
            id="after another size",
        ),
        pytest.param(lambda x: (x - 0.5) * 2, None, id="pixels of 0 to 1"),
        pytest.param(lambda x: x, None, id="nothing"),
    ],
)
def test_what_begins_with_numbers_for_bytes_takes_bytes(prepare: Callable[[Any], Any], expected: str | None) -> None:
    keras = packages.keras()
    flips = keras.Sequential([keras.Input((*HW, 3)), keras.layers.RandomFlip()])
    image = keras.Input((*HW, 3))
    made = keras.layers.Conv2D(2, 3)(prepare(flips(image)))
    mode = mode_of(keras.Model(image, made))
    assert (mode and mode[0]) == expected


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda layers: layers.Resizing(12, 10), id="stretch"),
        pytest.param(lambda layers: layers.Resizing(4, 8, crop_to_aspect_ratio=True), id="cut and stretch"),
        pytest.param(lambda layers: layers.Resizing(5, 20, interpolation="nearest"), id="nearest"),
        pytest.param(lambda layers: layers.CenterCrop(4, 5), id="middle"),
        pytest.param(lambda layers: layers.CenterCrop(12, 5), id="middle of what is too small"),
        pytest.param(lambda layers: layers.UpSampling2D(2, interpolation="bilinear"), id="up"),
        pytest.param(lambda layers: layers.Normalization(mean=MEANS, variance=[9.0, 4.0, 1.0]), id="normalised"),
        pytest.param(lambda layers: layers.RandomFlip(), id="flip"),
        pytest.param(lambda layers: layers.RandomErasing(), id="erase"),
        pytest.param(lambda layers: layers.RandomInvert(), id="invert"),
    ],
)
def test_layers_that_prepare_images(make: Callable[[Any], Any], tmp_path: Path) -> None:
    keras = packages.keras()
    image = keras.Input((*HW, 3))
    made = make(keras.layers)(image)
    model = keras.Model(image, rest(made.shape[1:])(made))
    expect_answers(saved(model, tmp_path / "net.keras"), model.predict(FLOATS, verbose=0))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("is_dict", [False, True], ids=["a list", "a dict"])
def test_one_of_several_outputs_is_named(is_dict: bool, suffix: str, tmp_path: Path) -> None:
    keras = packages.keras()
    keras.utils.set_random_seed(0)
    image = keras.Input((*HW, 3))
    features = keras.layers.Flatten()(keras.layers.Rescaling(0.02)(image))
    kinds = [keras.layers.Dense(n, "softmax", name=name)(features) for n, name in ((3, "breed"), (2, "sex"))]
    model = keras.Model(image, dict(zip(("breed", "sex"), kinds, strict=True)) if is_dict else kinds)
    path = saved(model, tmp_path / f"net{suffix}")
    said = model.predict(FLOATS, verbose=0)
    expect_answers(path, said["sex"] if is_dict else said[1], output="sex")
    with pytest.raises(ConversionError, match=r"2 outputs: 'breed', 'sex'.*--output NAME"):
        convert(ConversionRequest(model=path, preprocess="none"))
    with pytest.raises(ConversionError, match=r"no output 'age'.*'breed', 'sex'"):
        convert(ConversionRequest(model=path, preprocess="none", output="age"))


def test_one_logit_is_the_second_of_two_classes(tmp_path: Path) -> None:
    keras = packages.keras()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(0.01), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((*HW, 3)), *layers])
    path = saved(model, tmp_path / "net.keras")
    with pytest.raises(ConversionError, match="--scores sigmoid"):
        convert(ConversionRequest(model=path))
    second = 1 / (1 + np.exp(-model.predict(FLOATS, verbose=0)))
    expect_answers(path, np.concatenate([1 - second, second], axis=1), scores="sigmoid")


# -- Keras 2 ----------------------------------------------------------------------------------------------------------


def function(name: str, *call: Any, sliced: bool = False) -> dict[str, Any]:
    """Describe a call of a function of TensorFlow as Keras 2 did."""
    kind = "SlicingOpLambda" if sliced else "TFOpLambda"
    config = {"name": f"tf.{name}", "trainable": True, "dtype": "float32", "function": name}
    return {"class_name": kind, "config": config, "name": f"tf.{name}", "inbound_nodes": list(call)}


def with_functions(folder: Path, model: Any, *functions: dict[str, Any]) -> Path:
    """Save functions and then a model as Keras 2 did."""
    import h5py

    keras = packages.keras()
    image = keras.Input(model.input_shape[1:], name="image")
    path = saved(keras.Model(image, model(image)), folder / "old.h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        first, inner = config["config"]["layers"]
        del first["config"]["batch_shape"]
        first["config"]["batch_input_shape"] = [None, *HW, 3]
        # A model's own making counted as its first call.
        inner["inbound_nodes"] = [[[functions[-1]["name"], 0, 0, {}]]]
        config["config"]["layers"] = [first, *functions, inner]
        config["config"]["input_layers"] = [["image", 0, 0]]
        config["config"]["output_layers"] = [[inner["name"], 1, 0]]
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"
    return path


def operation(name: str, kind: str, source: str, constants: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    """Describe an operation of a graph as TensorFlow 2.0 to 2.3 did."""
    node = {"name": name, "op": kind, "attr": attributes}
    config = {"name": name, "trainable": True, "dtype": "float32", "node_def": node, "constants": constants}
    name = f"tf_op_layer_{name}"
    calls = [[[source, 0, 0, {}]]]
    return {"class_name": "TensorFlowOpLayer", "config": config, "name": name, "inbound_nodes": calls}


EVERYTHING = {"start": None, "stop": None, "step": None}
FUNCTIONS: dict[str, tuple[list[dict[str, Any]], Callable[[FloatArray], FloatArray]]] = {
    "tf": (
        [
            function("math.truediv", ["image", 0, 0, {"y": 127.5, "name": None}]),
            function("math.subtract", ["tf.math.truediv", 0, 0, {"y": 1.0, "name": None}]),
        ],
        lambda x: x / np.float32(127.5) - 1,
    ),
    "caffe": (
        [
            function(
                "__operators__.getitem",
                ["image", 0, 0, {"slice_spec": [{"class_name": "__ellipsis__"}, {**EVERYTHING, "step": -1}]}],
                sliced=True,
            ),
            function("nn.bias_add", ["tf.__operators__.getitem", 0, 0, {"bias": MEANS, "data_format": "NHWC"}]),
        ],
        lambda x: x[..., ::-1] + np.array(MEANS, np.float32),
    ),
    "number first": (
        [function("math.subtract", ["_CONSTANT_VALUE", -1, MEANS, {"y": ["image", 0, 0]}])],
        lambda x: np.array(MEANS, np.float32) - x,
    ),
    "two tensors": (
        [function("__operators__.add", ["image", 0, 0, {"y": ["image", 0, 0], "name": None}])],
        lambda x: x + x,
    ),
    "a list": (
        [function("concat", [["image", 0, 0, {"axis": -1}], ["image", 0, 0, {"axis": -1}]])],
        lambda x: np.concatenate([x, x], axis=-1),
    ),
    "cast and clip": (
        [
            function("cast", ["image", 0, 0, {"dtype": "float32"}]),
            function("clip_by_value", ["tf.cast", 0, 0, {"clip_value_min": 9, "clip_value_max": 200}]),
        ],
        lambda x: np.clip(x, 9, 200),
    ),
    "rectangle": (
        [
            function(
                "__operators__.getitem",
                ["image", 0, 0, {"slice_spec": [EVERYTHING, {**EVERYTHING, "start": 1, "stop": -1}, EVERYTHING]}],
                sliced=True,
            )
        ],
        lambda x: x[:, 1:-1],
    ),
    "first version": (
        [function("compat.v1.pad", ["image", 0, 0, {"paddings": [[0, 0], [1, 1], [0, 0], [0, 0]], "name": None}])],
        lambda x: np.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0)]),
    ),
    "of TensorFlow 2.0": (
        [
            operation("truediv", "RealDiv", "image", {"1": 127.5}, T={"type": "DT_FLOAT"}),
            operation("sub", "Sub", "tf_op_layer_truediv", {"0": 1.0}),
        ],
        lambda x: 1 - x / np.float32(127.5),
    ),
    "caffe of TensorFlow 2.0": (
        [
            operation(
                "strided_slice",
                "StridedSlice",
                "image",
                {"1": [0, 0], "2": [0, 0], "3": [1, -1]},
                begin_mask={"i": "2"},
                end_mask={"i": "2"},
                ellipsis_mask={"i": "1"},
            ),
            operation("bias", "BiasAdd", "tf_op_layer_strided_slice", {"1": MEANS}),
        ],
        lambda x: x[..., ::-1] + np.array(MEANS, np.float32),
    ),
    "image": (
        [function("image.resize", ["image", 0, 0, {"size": [18, 16], "method": "nearest"}])],
        lambda x: x.repeat(2, 1).repeat(2, 2),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_tensorflow_in_a_file_of_keras_2(name: str, tmp_path: Path) -> None:
    functions, compute = FUNCTIONS[name]
    expected = compute(FLOATS)
    model = rest(expected.shape[1:])
    path = with_functions(tmp_path, model, *functions)
    expect_answers(path, model.predict(expected, verbose=0))


def test_a_function_that_is_not_allowed_is_refused(tmp_path: Path) -> None:
    path = with_functions(tmp_path, rest(), function("io.read_file", ["image", 0, 0, {}]))
    with pytest.raises(ConversionError, match=r"'tf.io.read_file'.*--allow-unsafe"):
        convert(ConversionRequest(model=path, preprocess="none"))
    with pytest.raises(ConversionError, match="is not allowed"):  # not even then: it is no code of the file's
        convert(ConversionRequest(model=path, preprocess="none", allow_unsafe=True))


def test_a_row_of_rows_of_keras_2_is_read(tmp_path: Path) -> None:
    """Teachable Machine's: a Sequential of Sequentials, whose innermost layer says how large an image is."""
    import h5py

    keras = packages.keras()
    keras.utils.set_random_seed(0)
    features = keras.Sequential([keras.Input((*HW, 3)), keras.layers.Rescaling(0.01), keras.layers.Flatten()])
    classes = keras.Sequential([keras.Input((216,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(3, "softmax")])
    model = keras.Sequential([keras.Input((*HW, 3)), features, classes])
    path = saved(model, tmp_path / "old.h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        del config["config"]["layers"][0]
        for inner in config["config"]["layers"]:
            shape = inner["config"]["layers"].pop(0)["config"]["batch_shape"]
            inner["config"]["layers"][0]["config"]["batch_input_shape"] = shape
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.4.0"
    expect_answers(path, model.predict(FLOATS, verbose=0))


def test_hard_sigmoid_was_another_function(tmp_path: Path) -> None:
    import h5py

    keras = packages.keras()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(0.01), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((*HW, 3)), *layers])
    logits = model.predict(FLOATS, verbose=0)
    model.layers[-1].activation = keras.activations.hard_sigmoid
    path = saved(model, tmp_path / "old.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = "2.15.0"
    expect_answers(path, np.clip(0.2 * logits + 0.5, 0, 1), scores="none")
