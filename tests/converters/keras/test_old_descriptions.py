"""What Keras 2 wrote into files, read without Keras."""

from pathlib import Path
from typing import Any

import pytest

from trtjob.converters.keras.calls import modern_calls
from trtjob.converters.keras.functions import is_allowed
from trtjob.converters.keras.messages import last_line, why_unbuilt
from trtjob.converters.keras.modern import modern_config, moved
from trtjob.converters.keras.safety import Known, check_safe
from trtjob.errors import ConversionError

KNOWN = Known(frozenset({"Dense"}), {"TrueDivide": "keras.src.ops.numpy"})


def layer(name: str, *calls: Any, kind: str = "Dense") -> dict[str, Any]:
    return {"class_name": kind, "name": name, "config": {"name": name}, "inbound_nodes": list(calls)}


def model(*layers: dict[str, Any], outputs: Any) -> dict[str, Any]:
    return {"layers": [layer("image"), *layers], "input_layers": [["image", 0, 0]], "output_layers": outputs}


def tensor(*place: Any) -> dict[str, Any]:
    config = {"shape": [], "dtype": "float32", "keras_history": list(place)}
    return {"class_name": "__keras_tensor__", "config": config}


@pytest.mark.parametrize(
    ("call", "args", "kwargs"),
    [
        pytest.param([["image", 0, 0, {}]], [tensor("image", 0, 0)], {}, id="one tensor"),
        pytest.param(
            [["image", 0, 0, {}], ["image", 0, 1, {}]],
            [[tensor("image", 0, 0), tensor("image", 0, 1)]],
            {},
            id="a list of tensors",
        ),
        pytest.param(
            ["image", 0, 0, {"y": 127.5, "name": None}], [tensor("image", 0, 0)], {"y": 127.5}, id="and a number"
        ),
        pytest.param(
            ["_CONSTANT_VALUE", -1, [1.0, 2.0], {"y": ["image", 0, 0]}],
            [[1.0, 2.0]],
            {"y": tensor("image", 0, 0)},
            id="a number first",
        ),
        pytest.param(
            [
                "image",
                0,
                0,
                {"slice_spec": [{"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]},
            ],
            [tensor("image", 0, 0)],
            {
                "slice_spec": [
                    {"class_name": "__ellipsis__", "config": {}},
                    {"class_name": "__slice__", "config": {"start": None, "step": -1, "stop": None}},
                ]
            },
            id="a slice",
        ),
        pytest.param(
            [["image", 0, 0, {"training": False, "mask": None}]], [tensor("image", 0, 0)], {}, id="not in training"
        ),
    ],
)
def test_a_call_says_the_same_in_todays_words(call: Any, args: Any, kwargs: Any) -> None:
    fresh = modern_calls(model(layer("x", call), outputs=[["x", 0, 0]]))
    assert fresh["layers"][1]["inbound_nodes"] == [{"args": args, "kwargs": kwargs}]


def test_a_function_of_a_list_of_one_keeps_the_list() -> None:
    fresh = modern_calls(model(layer("x", [["image", 0, 0, {}]], kind="TFOpLambda"), outputs=[["x", 0, 0]]))
    assert fresh["layers"][1]["inbound_nodes"][0]["args"] == [[tensor("image", 0, 0)]]


def test_calls_of_a_model_were_counted_from_one() -> None:
    inner = layer("inner", [["image", 0, 0, {}]], [["image", 0, 0, {}]], kind="Functional")
    fresh = modern_calls(
        model(inner, layer("x", [["inner", 1, 0, {}], ["inner", 2, 0, {}]]), outputs=[["inner", 2, 0]])
    )
    assert fresh["layers"][2]["inbound_nodes"][0]["args"] == [[tensor("inner", 0, 0), tensor("inner", 1, 0)]]
    assert fresh["output_layers"] == ["inner", 2, 0]  # where Keras still counts so
    assert fresh["input_layers"] == ["image", 0, 0]


def test_todays_calls_stay_as_they_are() -> None:
    today = model(layer("x", {"args": [tensor("image", 0, 0)], "kwargs": {}}), outputs=["x", 0, 0])
    assert modern_calls(today) is today


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("BatchNormalization", {"axis": [3], "renorm": False, "renorm_clipping": None}, {"axis": 3}),
        ("BatchNormalizationV1", {"axis": [3]}, {"axis": 3}),
        ("DepthwiseConv2D", {"groups": 1}, {}),
        ("InputLayer", {"batch_input_shape": [None, 8, 8, 3], "sparse": False}, {"batch_shape": [None, 8, 8, 3]}),
        ("SeparableConv2D", {"kernel_initializer": None, "depth_multiplier": 2}, {"depth_multiplier": 2}),
        ("ThresholdedReLU", {"theta": 0.5}, {"threshold": 0.5}),
        ("Dense", {"dtype": {"class_name": "Policy", "config": {"name": "mixed_float16"}}}, {"dtype": "float32"}),
        ("Dense", {"dtype": {"class_name": "PolicyV1", "config": {"name": "mixed_bfloat16"}}}, {"dtype": "float32"}),
        ("Dense", {"batch_input_shape": [None, 4]}, {}),
    ],
)
def test_settings_are_todays(kind: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    assert modern_config(kind, old, is_old=True) == new


def test_a_row_of_rows_begins_with_the_input_of_the_innermost() -> None:
    dense = {"class_name": "Dense", "config": {"batch_input_shape": [None, 8, 8, 3]}}
    inner = {"class_name": "Sequential", "config": {"layers": [dense]}}
    first, *_ = modern_config("Sequential", {"layers": [inner]}, is_old=True)["layers"]
    assert first == {"class_name": "InputLayer", "config": {"batch_shape": [None, 8, 8, 3], "name": "input"}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("keras.engine.functional", "keras.src.models.functional"),
        ("keras.src.engine.functional", "keras.src.models.functional"),
        ("tf_keras.src.engine.functional", "keras.src.models.functional"),
        ("keras.src.engine.sequential", "keras"),
        ("tf_keras.layers", "keras.layers"),
        ("keras.layers.experimental.preprocessing", "keras.layers"),
        ("keras.engineering", "keras.engineering"),
        ("tf_keras_of_others", "tf_keras_of_others"),
        (None, None),
    ],
)
def test_classes_lie_where_todays_do(old: Any, new: Any) -> None:
    assert moved(old) == new


@pytest.mark.parametrize("name", ["math.truediv", "__operators__.getitem", "compat.v1.pad", "image.resize", "cast"])
def test_a_function_that_computes_is_allowed(name: str) -> None:
    assert is_allowed(name)


SLY = [
    "io.read_file",
    "py_function",
    "numpy_function",
    "raw_ops.ReadFile",
    "compat.v1.py_func",
    "map_fn",
    "load_library",
]


@pytest.mark.parametrize("name", [*SLY, "math.truediv.__globals__", "", None, ["math.truediv"]])
def test_any_other_is_not(name: Any) -> None:
    assert not is_allowed(name)


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("kind", ["TFOpLambda", "SlicingOpLambda"])
@pytest.mark.parametrize("module", [None, "keras.src.layers.core.tf_op_layer", "keras.layers"])
def test_a_function_that_does_more_is_refused_however_deep(kind: str, module: Any, depth: int) -> None:
    part: dict[str, Any] = layer("sly", kind=kind) | {"config": {"name": "sly", "function": "io.read_file"}}
    part |= {} if module is None else {"module": module}
    for _ in range(depth):
        part = {"class_name": "Sequential", "config": {"layers": [part]}}
    with pytest.raises(ConversionError, match=r"'sly'.*'io.read_file'.*--allow-unsafe"):
        check_safe(part, Path("net.h5"), KNOWN)


@pytest.mark.parametrize(
    "kind", ["TensorFlowFunction", "hard_sigmoid_of_keras_2", "ClassMethod", "InstanceMethod", "Mine"]
)
def test_a_class_that_keras_has_not_is_refused(kind: str) -> None:
    with pytest.raises(ConversionError, match=rf"'x'.*custom class '{kind}'.*--allow-unsafe"):
        check_safe(layer("x", kind=kind), Path("net.h5"), KNOWN)


def test_an_operator_of_keras_is_its_own() -> None:
    check_safe(layer("x", kind="TrueDivide"), Path("net.h5"), KNOWN)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Layer 'a' was never built.\n\nA cause.", "A cause"),
        ("At A.call().\n\n\x1b[1mA cause.\x1b[0m\n\nArguments received by A.call():\n  * x=1", "A cause"),
        ("in user code:\n    File a\n    ValueError: A cause.\n", "A cause"),
        ("Not loaded.\nA cause.\nList of objects that could not be loaded:\n[<Dense name=a>]", "A cause"),
        ("", "Exception"),
    ],
)
def test_the_last_line_of_a_long_message_is_shown(said: str, shown: str) -> None:
    assert last_line(Exception(said)) == shown


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Could not interpret activation function identifier: <lambda>", "the function '<lambda>' is not in the file"),
        ("Could not locate function 'mish2'. Make sure custom classes", "the function 'mish2' is not in the file"),
        ("Shapes do not match.", "Keras 3.15 cannot build the network: Shapes do not match. Where"),
    ],
)
def test_a_network_that_cannot_be_built_says_why_and_what_to_do(said: str, why: str) -> None:
    message = why_unbuilt("3.15", ValueError(said))
    assert message.startswith(why)
    assert message.endswith("with model.export('folder') or, of Keras 2, model.save('folder'), and convert that")
