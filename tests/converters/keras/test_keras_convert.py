"""Keras models and TensorFlow graphs: what they are converted to says what they say, and what is none is refused."""

import json
import os
import re
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from converters.keras.networks import NARROW, answers, application, lively, pictures, saved

from trtjob.converters.artefact import Converted, serialised
from trtjob.converters.keras import packages
from trtjob.converters.registry import ModelRegistry
from trtjob.converters.request import ConversionRequest
from trtjob.converters.run import convert_model
from trtjob.converters.sources import convert
from trtjob.converters.spill import folder_of
from trtjob.errors import ConversionError

pytestmark = [pytest.mark.extra, pytest.mark.slow, pytest.mark.usefixtures("keras")]

NETWORKS: dict[str, dict[str, Any]] = {
    "VGG16": {"input_shape": (32, 32, 3)},
    "ResNet50V2": {"input_shape": (64, 64, 3)},
    "MobileNetV2": {"input_shape": (64, 64, 3), **NARROW["MobileNetV2"]},
    "EfficientNet": {"input_shape": (64, 64, 3)},
    "EfficientNetB0": {"input_shape": (64, 64, 3)},
    "ConvNeXt": {"input_shape": (64, 64, 3)},
    "ConvNeXtTiny": {"input_shape": (64, 64, 3)},
}
OF_KNOWN_LAYERS = {"ResNet50V2", "EfficientNetB0", "ConvNeXtTiny"}  # those of others
OF_WEIGHTS_ALONE = {"VGG16", "MobileNetV2"}  # which are read below
IMAGES = 8


def small(ending: str = "softmax", units: int = 3) -> Any:
    layers = packages.keras().layers
    return packages.keras().Sequential(
        [
            packages.keras().Input((9, 8, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(units, activation=ending),
        ]
    )


def with_config(path: Path, old: bytes, new: bytes) -> None:
    """Write a .keras file again, with other bytes in its description."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["config.json"] = members["config.json"].replace(old, new)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)


def expect_agreement(converted: Converted) -> None:
    spec = converted.spec
    images = pictures(IMAGES, spec.input_hw, spec.channels, seed=1)
    session = onnxruntime.InferenceSession(serialised(converted.model, spec), providers=["CPUExecutionProvider"])
    assert converted.reference is not None
    (ours,), theirs = session.run(None, {"images": images}), converted.reference.run(images).scores
    assert ours.shape == (IMAGES, len(spec.labels))
    assert np.ptp(theirs, axis=0).max() > 1e-3  # the answers depend on the image
    # With other kernels TensorFlow differs from itself by as much, in deep networks with random weights.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.argsort(-ours, 1)[:, :5], np.argsort(-theirs, 1)[:, :5])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.chaos] if name in OF_KNOWN_LAYERS | OF_WEIGHTS_ALONE else [])
        for name in NETWORKS
    ],
)
def test_a_network_of_keras_applications_answers_as_predict_does(name: str, tmp_path: Path) -> None:
    path = saved(application(name, classes=20, **NETWORKS[name]), tmp_path / "net.keras")
    expect_agreement(convert(ConversionRequest(model=path)))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_both_whole_formats_are_read(suffix: str, tmp_path: Path) -> None:
    expect_agreement(convert(ConversionRequest(model=saved(lively(small()), tmp_path / f"net{suffix}"))))


def as_keras_2(part: Any) -> Any:
    """Write a description as Keras 2 wrote it."""
    if isinstance(part, list):
        return [as_keras_2(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    if part.get("class_name") == "DTypePolicy":
        return {"class_name": "Policy", "config": {"name": "mixed_float16"}}
    old = {key: as_keras_2(value) for key, value in part.items() if key not in ("module", "registered_name")}
    config = old.get("config")
    if isinstance(config, dict) and old.get("class_name") == "InputLayer":
        config["batch_input_shape"] = config.pop("batch_shape")
        config |= {"sparse": False, "ragged": False, "optional": False}
    elif isinstance(config, dict) and old.get("class_name") == "BatchNormalization":
        config |= {"axis": [3], "fused": True}
    elif isinstance(config, dict) and old.get("class_name") == "DepthwiseConv2D":
        config["groups"] = 1
    return old


def normed() -> Any:
    keras = packages.keras()
    image = keras.Input((9, 8, 3))
    x = keras.layers.Conv2D(4, 3)(image)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(3)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))


def expect_same_as(model: Any, converted: Converted) -> None:
    """Compare with the model that was saved, not with what was built anew of the file."""
    images = pictures(IMAGES, (9, 8), 3, seed=1)
    session = onnxruntime.InferenceSession(
        serialised(converted.model, converted.spec), providers=["CPUExecutionProvider"]
    )
    (ours,) = session.run(None, {"images": images})
    np.testing.assert_allclose(ours, model.predict(images / np.float32(255), verbose=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_sequential", [True, False], ids=["sequential", "functional"])
def test_a_file_of_keras_2_is_read(is_sequential: bool, tmp_path: Path) -> None:
    import h5py

    model = normed()
    if is_sequential:
        layers = packages.keras().layers
        parts = [layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3, activation="softmax")]
        model = packages.keras().Sequential([packages.keras().Input((9, 8, 3)), *parts])
    path = saved(lively(model), tmp_path / "old.h5")
    with h5py.File(path, "r+") as file:
        config = as_keras_2(json.loads(file.attrs["model_config"]))
        if is_sequential:  # its first layer alone says how large an image is
            input_layer, first, *_ = config["config"]["layers"]
            first["config"]["batch_input_shape"] = input_layer["config"]["batch_input_shape"]
            del config["config"]["layers"][0]
        file.attrs["model_config"] = json.dumps(config)
    expect_same_as(model, convert(ConversionRequest(model=path, preprocess="unit")))


def test_modules_of_tensorflow_2_15_are_todays(tmp_path: Path) -> None:
    model = lively(normed())
    path, old = saved(model, tmp_path / "net.keras"), tmp_path / "old.keras"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                data = data.replace(b"keras.src.models.functional", b"keras.src.engine.functional")
            target.writestr(name, data)
    assert b"engine" in zipfile.ZipFile(old).read("config.json")
    expect_same_as(model, convert(ConversionRequest(model=old, preprocess="unit")))


def test_weights_alone_are_read_with_their_network(tmp_path: Path) -> None:
    path = tmp_path / "net.weights.h5"
    application("MobileNetV2", input_shape=(64, 64, 3), classes=5).save_weights(path)
    expect_agreement(convert(ConversionRequest(model=path, arch="MobileNetV2", classes=5, size=(64, 64))))


def test_weights_alone_in_the_layout_before_keras_3_are_read(tmp_path: Path) -> None:
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    path = tmp_path / "vgg16_weights.h5"
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, application("VGG16", input_shape=(32, 32, 3), classes=5))
    expect_agreement(convert(ConversionRequest(model=path, arch="vgg16", classes=5, size=(32, 32))))


def test_weights_alone_need_arch(tmp_path: Path) -> None:
    path = tmp_path / "net.weights.h5"
    small().save_weights(path)
    with pytest.raises(ConversionError, match="--arch"):
        convert(ConversionRequest(model=path))


def test_an_unknown_arch_names_its_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "net.weights.h5"
    small().save_weights(path)
    with pytest.raises(ConversionError, match="resnet50"):
        convert(ConversionRequest(model=path, arch="resnet5"))


def test_a_trained_network_answers_as_predict_does(tmp_path: Path) -> None:
    """Images of two kinds, bright at the left or at the right: it learns to tell them apart."""
    keras = packages.keras()
    keras.utils.set_random_seed(0)
    images = pictures(64, (9, 8)).astype(np.float32)
    kinds = np.arange(64) % 2
    images[kinds == 0, :, :4] *= 0.3
    images[kinds == 1, :, 4:] *= 0.3
    model = small(units=2)
    model.compile("adam", "sparse_categorical_crossentropy")
    with packages.quiet():
        model.fit(images, kinds, epochs=30, verbose=0)
    path = saved(model, tmp_path / "net.keras")
    expect_agreement(convert(ConversionRequest(model=path)))
    converted = convert(ConversionRequest(model=path))
    session = onnxruntime.InferenceSession(
        serialised(converted.model, converted.spec), providers=["CPUExecutionProvider"]
    )
    (scores,) = session.run(None, {"images": images.astype(np.uint8)})
    assert (scores.argmax(1) == kinds).mean() > 0.9


@pytest.mark.parametrize("trained", [False, True], ids=["not compiled", "trained on logits"])
def test_logits_become_probabilities(trained: bool, tmp_path: Path) -> None:
    keras = packages.keras()
    model = lively(small("linear", 6))
    if trained:
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    converted = convert(ConversionRequest(model=saved(model, tmp_path / "net.keras")))
    expect_agreement(converted)
    assert any("logits" in note for note in converted.notes) is trained
    assert any("a softmax was added" in warning for warning in converted.warnings) is not trained


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param("sigmoid", lambda x: 1 / (1 + np.exp(-x)), id="sigmoid"),
        pytest.param("none", lambda x: x, id="none"),
    ],
)
def test_the_user_says_what_makes_scores_of_logits(asked: Any, expected: Any, tmp_path: Path) -> None:
    model = lively(small("linear", 3))
    converted = convert(ConversionRequest(model=saved(model, tmp_path / "net.keras"), scores=asked))
    images = pictures(2, converted.spec.input_hw)
    session = onnxruntime.InferenceSession(
        serialised(converted.model, converted.spec), providers=["CPUExecutionProvider"]
    )
    (scores,) = session.run(None, {"images": images})
    with packages.quiet():
        np.testing.assert_allclose(scores, expected(model.predict(images.astype(np.float32), verbose=0)), atol=1e-4)
    assert converted.warnings == ()


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    keras = packages.keras()
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(5, activation="softmax")]
    model = lively(keras.Sequential([keras.Input((9, 8, 1)), *layers]))
    converted = convert(ConversionRequest(model=saved(model, tmp_path / "net.keras")))
    assert (converted.spec.channels, converted.spec.color) == (1, "gray")
    expect_agreement(converted)


def test_mean_and_deviation_are_part_of_the_graph(tmp_path: Path) -> None:
    keras = packages.keras()
    plain = [keras.layers.Flatten(), keras.layers.Dense(5, activation="softmax")]
    model = lively(keras.Sequential([keras.Input((9, 8, 3)), *plain]))
    path = saved(model, tmp_path / "net.keras")
    converted = convert(ConversionRequest(model=path, mean=(100.0, 110.0, 120.0), std=(50.0,)))
    expect_agreement(converted)
    images = pictures(2, (9, 8))
    expected = model.predict((images - np.array([100, 110, 120], np.float32)) / 50, verbose=0)
    assert converted.reference is not None
    np.testing.assert_allclose(converted.reference.run(images).scores, expected, atol=1e-5)


def frozen(folder: Path) -> Path:
    """A TensorFlow graph with two placeholders' worth of values to choose from: an image's scores, and their sum."""
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        pixels = tf.compat.v1.placeholder(tf.float32, [None, 9, 8, 3], name="pixels")
        matrix = tf.constant(np.random.default_rng(0).normal(size=(216, 4)).astype(np.float32) / 10)
        scores = tf.nn.softmax(tf.reshape(pixels / 255, [-1, 216]) @ matrix, name="scores_of_classes")
        tf.reduce_sum(scores, 1, name="sum")
    path = folder / "net.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.mark.parametrize("output", ["scores_of_classes", "scores_of_classes:0"])
def test_a_frozen_graph_is_read_from_the_output_that_is_named(output: str, tmp_path: Path) -> None:
    request = ConversionRequest(model=frozen(tmp_path), input="pixels", output=output, preprocess="none")
    converted = convert(request)
    expect_agreement(converted)
    assert "Its input is 'pixels', its output 'scores_of_classes'." in converted.notes[0].replace(":0", "")


def test_an_input_that_a_frozen_graph_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="'image'"):
        convert(ConversionRequest(model=frozen(tmp_path), input="image", output="scores_of_classes"))


def test_a_lambda_layer_runs_where_the_user_allows_it(tmp_path: Path) -> None:
    keras = packages.keras()
    layers = [keras.layers.Lambda(lambda x: x * 0.5), keras.layers.Flatten(), keras.layers.Dense(5, "softmax")]
    path = saved(lively(keras.Sequential([keras.Input((9, 8, 3)), *layers])), tmp_path / "net.keras")
    expect_agreement(convert(ConversionRequest(model=path, allow_unsafe=True, preprocess="tf")))


def test_a_saved_model_answers_as_its_function_does(tmp_path: Path) -> None:
    with packages.quiet():
        lively(small()).export(tmp_path / "net", verbose=False)
    expect_agreement(convert(ConversionRequest(model=tmp_path / "net", preprocess="none")))


def test_one_probability_becomes_two_scores(tmp_path: Path) -> None:
    converted = convert(ConversionRequest(model=saved(lively(small("sigmoid", 1)), tmp_path / "net.keras")))
    assert len(converted.spec.labels) == 2
    expect_agreement(converted)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    path = saved(small(), tmp_path / "net.keras")
    first, second = (convert(ConversionRequest(model=path)) for _ in range(2))
    assert serialised(first.model, first.spec) == serialised(second.model, second.spec)


def test_pixels_of_an_unknown_network_have_to_be_said(tmp_path: Path) -> None:
    model = small()
    model = packages.keras().Sequential([packages.keras().Input((9, 8, 3)), *model.layers[1:]])
    with pytest.raises(ConversionError, match="--preprocess"):
        convert(ConversionRequest(model=saved(model, tmp_path / "net.keras")))


def test_a_lambda_layer_is_refused_by_name(tmp_path: Path) -> None:
    keras = packages.keras()
    model = keras.Sequential([keras.Input((9, 8, 3)), keras.layers.Lambda(lambda x: x, name="sly"), *small().layers])
    with pytest.raises(ConversionError, match=r"'sly'.*Lambda.*--allow-unsafe"):
        convert(ConversionRequest(model=saved(model, tmp_path / "net.keras")))


def test_what_gives_a_map_is_no_classifier(tmp_path: Path) -> None:
    keras = packages.keras()
    model = keras.Sequential([keras.Input((9, 8, 3)), keras.layers.Rescaling(0.5), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ConversionError, match="7 x 6 x 2"):
        convert(ConversionRequest(model=saved(model, tmp_path / "net.keras")))


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", b" " * 50_000_000)
        file.writestr("model.weights.h5", b"")
    with pytest.raises(ConversionError, match="claims to hold"):
        convert(ConversionRequest(model=path))


def test_a_network_larger_than_its_weights_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    path = saved(small(), tmp_path / "net.keras")
    with_config(path, b'"units": 3', b'"units": 300000000')
    with pytest.raises(ConversionError, match="numbers, but the network"):
        convert(ConversionRequest(model=path))


# -- what a file might do beside being read ---------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["ReadFile", "WriteFile", "PrintV2", "SaveV2", "TextLineReaderV2"])
def test_a_graph_that_reaches_files_is_refused_and_reaches_none(operation: str, tmp_path: Path) -> None:
    import tensorflow as tf

    secret, made = tmp_path / "secret", tmp_path / "made"
    secret.write_text("0.5")
    graph = tf.Graph()
    with graph.as_default():
        pixels = tf.compat.v1.placeholder(tf.float32, [None, 9, 8, 3], name="pixels")
        scores = tf.nn.softmax(tf.reshape(pixels, [-1, 216])[:, :4])
        effects = {
            "ReadFile": lambda: tf.io.read_file(str(secret)),
            "WriteFile": lambda: tf.raw_ops.WriteFile(filename=str(made), contents="owned"),
            "PrintV2": lambda: tf.raw_ops.PrintV2(input="owned", output_stream=f"file://{made}"),
            "SaveV2": lambda: tf.raw_ops.SaveV2(
                prefix=str(made), tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant(1.0)]
            ),
            "TextLineReaderV2": lambda: tf.raw_ops.TextLineReaderV2(),
        }
        with tf.control_dependencies([effects[operation]()]):
            tf.identity(scores, name="scores_of_classes")
    path = tmp_path / "net.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    request = ConversionRequest(model=path, input="pixels", output="scores_of_classes", preprocess="none")
    with pytest.raises(ConversionError, match=rf"\({operation}\) reads or writes files"):
        convert(request)
    assert not any(tmp_path.glob("made*"))


def test_a_saved_model_whose_answer_saves_something_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    class Sly(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, 9, 8, 3], tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, pixels: Any) -> Any:
            tf.raw_ops.SaveV2(
                prefix=str(tmp_path / "made"), tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant(1.0)]
            )
            return tf.nn.softmax(tf.reshape(pixels, [-1, 216])[:, :4])

    module = Sly()
    with packages.quiet():
        tf.saved_model.save(module, str(tmp_path / "net"), signatures=module.__call__)
    with pytest.raises(ConversionError, match=r"\(SaveV2\) reads or writes files"):
        convert(ConversionRequest(model=tmp_path / "net", preprocess="none"))
    assert not any(tmp_path.glob("made*"))


def test_a_saved_model_of_tensorflow_1_answers_as_its_graph_does(tmp_path: Path) -> None:
    expect_agreement(convert(ConversionRequest(model=saved_by_version_1(tmp_path / "net"), preprocess="none")))


def saved_by_version_1(folder: Path, **sly: Any) -> Path:
    """Write a SavedModel as TensorFlow 1 did. sly: what makes an operation that runs when the model is loaded."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        pixels = tf.compat.v1.placeholder(tf.float32, [None, 9, 8, 3], name="pixels")
        matrix = tf.compat.v1.get_variable("matrix", [216, 4], use_resource=True)
        scores = tf.nn.softmax(tf.reshape(pixels / 255, [-1, 216]) @ matrix)
        session.run(tf.compat.v1.global_variables_initializer())
        start = {name: make(tf) for name, make in sly.items()}
        signature = tf.compat.v1.saved_model.predict_signature_def({"pixels": pixels}, {"scores": scores})
        builder = tf.compat.v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, **start)
        builder.save()
    return folder


def test_a_saved_model_whose_loading_saves_something_is_refused(tmp_path: Path) -> None:
    def save(tf: Any) -> Any:
        return tf.raw_ops.SaveV2(
            prefix=str(tmp_path / "made"), tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant(1.0)]
        )

    with packages.quiet():
        folder = saved_by_version_1(tmp_path / "net", main_op=save)
    with pytest.raises(ConversionError, match=r"\(SaveV2\) reads or writes files"):
        convert(ConversionRequest(model=folder, preprocess="none"))
    assert not any(tmp_path.glob("made*"))


@pytest.mark.parametrize("trick", ["external link", "soft link", "external storage", "virtual", "huge"])
def test_an_hdf5_file_that_is_not_whole_by_itself_is_refused(trick: str, tmp_path: Path) -> None:
    import h5py

    path = saved(small(), tmp_path / "net.h5")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["kernel"] = np.zeros(8, np.float32)
    (tmp_path / "other.bin").write_bytes(bytes(32))
    with h5py.File(path, "r+") as file:
        if trick == "external link":
            file["model_weights/extra"] = h5py.ExternalLink("other.h5", "/kernel")
        elif trick == "soft link":
            file["model_weights/extra"] = h5py.SoftLink("/model_weights")
        elif trick == "external storage":
            file.create_dataset("extra", (8,), np.float32, external=[(str(tmp_path / "other.bin"), 0, 32)])
        elif trick == "virtual":
            layout = h5py.VirtualLayout((8,), np.float32)
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "kernel", (8,))
            file.create_virtual_dataset("extra", layout)
        else:  # a terabyte of nothing
            file.create_dataset("extra", (1 << 38,), np.float32, chunks=(1 << 20,), compression="gzip")
    with pytest.raises(ConversionError, match=r"Save the model as a whole|claims to hold"):
        convert(ConversionRequest(model=path))


def test_a_bomb_inside_the_weights_of_a_keras_file_is_refused(tmp_path: Path) -> None:
    import h5py

    path = saved(small(), tmp_path / "net.keras")
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    weights = tmp_path / "weights.h5"
    weights.write_bytes(members["model.weights.h5"])
    with h5py.File(weights, "r+") as root:
        root.create_dataset("extra", (1 << 34,), np.float32, chunks=(1 << 20,), compression="gzip")
    members["model.weights.h5"] = weights.read_bytes()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    with pytest.raises(ConversionError, match="claims to hold"):
        convert(ConversionRequest(model=path))


def test_another_process_gives_the_same_bytes_and_tensorflow_says_nothing_on_its_terminal(tmp_path: Path) -> None:
    path = saved(lively(small()), tmp_path / "net.keras")
    ours, terminal = os.openpty()
    command = [sys.executable, "-m", "trtjob", "convert", "--local", str(path)]
    environment = {**os.environ, "TRTJOB_HOME": str(tmp_path / "home"), "TERM": "xterm"}
    for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"):
        environment.pop(name, None)
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        said = b"".join(iter(partial(_read, ours), b"")).decode()
    os.close(ours)
    assert process.returncode == 0, said
    assert "parity" in said
    assert not re.search("oneDNN|absl|cpu_feature_guard|rebuild TensorFlow|cuda|CUDA", said)
    converted = convert_model(ConversionRequest(model=path), registry=ModelRegistry(tmp_path / "here"))
    (file,) = (tmp_path / "home" / "models").rglob("*.onnx")
    assert file.read_bytes() == converted.path.read_bytes()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the last one that wrote to it has ended
        return b""


def test_large_weights_go_from_the_file_to_the_network_and_on_without_copies(tmp_path: Path) -> None:
    """A layer of 2 MB: what only large ones go through, in both formats."""
    keras = packages.keras()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(0.01), keras.layers.Flatten(), keras.layers.Dense(2600, "relu")]
    model = keras.Sequential([keras.Input((9, 8, 3)), *layers, keras.layers.Dense(3, "softmax")])
    images = pictures(IMAGES, (9, 8), seed=1)
    for suffix in (".keras", ".h5"):
        converted = convert(ConversionRequest(model=saved(model, tmp_path / f"net{suffix}")))
        assert folder_of(converted.model) is not None
        expected = model.predict(images.astype(np.float32), verbose=0)
        np.testing.assert_allclose(answers(converted, images), expected, rtol=1e-4, atol=1e-5)
        assert converted.reference is not None
        np.testing.assert_allclose(converted.reference.run(images).scores, expected, rtol=1e-4, atol=1e-5)
        assert converted.reference.close is not None
        converted.reference.close()


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    keras = packages.keras()
    layers = [keras.layers.Flatten(), keras.layers.Dense(1300)]
    path = saved(keras.Sequential([keras.Input((9, 8, 3)), *layers]), tmp_path / "net.keras")
    with_config(path, b'"units": 1300', b'"units": 1299')
    with pytest.raises(ConversionError, match=r"its weights do not fit.*\(216, 1300\).*\(216, 1299\)"):
        convert(ConversionRequest(model=path, preprocess="none"))


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_a_large_model_takes_about_three_times_its_file(tmp_path: Path) -> None:
    path = saved(packages.keras().applications.VGG16(weights=None), tmp_path / "vgg16.keras")
    script = (
        "import sys; from pathlib import Path; from trtjob.converters.registry import ModelRegistry;"
        "from trtjob.converters.request import ConversionRequest; from trtjob.converters.run import convert_model;"
        "convert_model(ConversionRequest(model=Path(sys.argv[1])), registry=ModelRegistry(Path(sys.argv[2])));"
        "print(Path('/proc/self/status').read_text())"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "models")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert found is not None
    assert int(found[1]) << 10 <= 3.3 * path.stat().st_size  # 3.07 was seen
