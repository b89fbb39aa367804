import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from converters.darknet.networks import CFG, CFG_NUMBERS, normal, onnx_from_darknet, sigmoid, write_model, write_weights
from numpy.typing import NDArray
from onnx import TensorProto

from trtjob import __version__
from trtjob.converters.darknet.convert import convert as darknet_converted
from trtjob.converters.darknet.layers import LAYERS
from trtjob.converters.request import ConversionRequest
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.engines.spec import METADATA_KEY, ModelSpec, NmsKind, ResizeMode, Sampling, SourceFile, Task, load_spec
from trtjob.errors import ConversionError, DarknetParseError

# A second head on the output of layer 0.
SECOND_HEAD = "[route]\nlayers=0\n[yolo]\nanchors=3,5\nclasses=2\n"
# A head that follows layer 0, to try what comes between.
HEAD = CFG[CFG.index("[yolo]") :]
BODY = CFG[: CFG.index("[yolo]")]


NEITHER = (
    "is neither a detector, which ends in [yolo], [region] or [detection], nor a classifier, which ends in a value for "
    "each class: its last layer gives "
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.onnx"


def convert(folder: Path, cfg: str = CFG, numbers: int = CFG_NUMBERS) -> ModelSpec:
    """Convert a small network to `out.onnx`."""
    return onnx_from_darknet(write_model(folder, cfg=cfg, numbers=numbers), folder / "out.onnx")


def images(count: int, *shape: int) -> UInt8Array:
    return np.random.default_rng(1).integers(0, 256, (count, *shape), np.uint8)


def test_bytes_of_an_image_go_in_and_boxes_in_its_pixels_come_out(tmp_path: Path, out: Path) -> None:
    weights = write_model(tmp_path)
    bias, kernel = normal(7), normal(7, 3, seed=1)
    write_weights(weights, bias, kernel)
    onnx_from_darknet(weights, out)
    image = images(1, 4, 6, 3)
    with open_engine(out) as engine:
        result = engine.infer(image)

    # What the cfg says, by hand: a 1x1 convolution of the pixels [::2, ::2], in [0, 1]; then one anchor of 3x5.
    values = image[0, ::2, ::2].astype(np.float64) / 255 @ kernel.T + bias
    rows, columns = np.mgrid[:2, :3]
    x, y = (columns + sigmoid(values[..., 0])) * 2, (rows + sigmoid(values[..., 1])) * 2
    w, h = 3 * np.exp(values[..., 2]), 5 * np.exp(values[..., 3])
    scores = (sigmoid(values[..., 4:5]) * sigmoid(values[..., 5:])).reshape(6, 2)
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 2).reshape(6, 4)
    best_first = np.argsort(-scores.max(1))
    assert result.boxes is not None
    np.testing.assert_allclose(result.boxes[0], boxes[best_first], rtol=1e-4)
    np.testing.assert_allclose(result.scores[0], scores[best_first], rtol=1e-4)


def test_the_file_is_valid_onnx_of_bytes_and_a_free_batch(tmp_path: Path, out: Path) -> None:
    convert(tmp_path)
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: (
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "images": (TensorProto.UINT8, ["N", 4, 6, 3]),
        "boxes": (TensorProto.FLOAT, ["N", 6, 4]),
        "scores": (TensorProto.FLOAT, ["N", 6, 2]),
        "candidates": (TensorProto.FLOAT, ["N", 12, 6]),
    }


def test_an_image_in_a_batch_gives_what_it_gives_alone(tmp_path: Path, out: Path) -> None:
    convert(tmp_path)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    batch = images(3, 4, 6, 3)
    together = session.run(["boxes", "scores"], {"images": batch})
    alone = [session.run(["boxes", "scores"], {"images": image[None]}) for image in batch]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-5)


def test_a_grey_network_takes_one_channel(tmp_path: Path, out: Path) -> None:
    spec = convert(tmp_path, CFG.replace("channels=3", "channels=1"), numbers=7 + 7)
    assert (spec.channels, spec.color) == (1, "gray")
    with open_engine(out) as engine:
        assert engine.infer(images(1, 4, 6, 1)).scores.shape == (1, 6, 2)


def test_the_model_describes_itself(tmp_path: Path, out: Path) -> None:
    cfg = CFG + SECOND_HEAD.replace("classes=2\n", "classes=2\nnms_kind=diounms\nbeta_nms=0.7\n")
    spec = convert(tmp_path, cfg)
    sources = tuple(
        SourceFile(name=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        for name in ("net.cfg", "net.weights", "net.names")
        for data in [(tmp_path / name).read_bytes()]
    )
    assert spec == ModelSpec(
        task=Task.DETECT,
        labels=("cat", "dog"),
        input_hw=(4, 6),
        channels=3,
        color="rgb",
        resize=ResizeMode.STRETCH,
        sampling=Sampling.ALIGN_CORNERS,
        pad_value=127,
        multi_label=True,
        candidates=1024,
        conf=0.25,
        iou=0.45,
        nms_kind=NmsKind.DIOU,  # of the last head
        nms_beta=0.7,
        precision="fp32",
        converter=f"trtjob {__version__} darknet",
        sources=sources,
    )


def test_the_description_is_in_the_file(tmp_path: Path, out: Path) -> None:
    spec = convert(tmp_path)
    assert load_spec(out) == spec
    assert [prop.key for prop in onnx.load(out).metadata_props] == [METADATA_KEY]


def test_letter_box_in_the_cfg_is_kept(tmp_path: Path) -> None:
    assert convert(tmp_path, CFG.replace("[net]\n", "[net]\nletter_box=1\n")).resize is ResizeMode.LETTERBOX


def test_the_same_files_give_the_same_bytes(tmp_path: Path, out: Path) -> None:
    convert(tmp_path)
    first = out.read_bytes()
    convert(tmp_path)
    assert out.read_bytes() == first


def test_files_elsewhere_can_be_named(tmp_path: Path, out: Path) -> None:
    weights = write_model(tmp_path)
    (tmp_path / "other").mkdir()
    cfg, labels = tmp_path / "other" / "a.cfg", tmp_path / "other" / "a.txt"
    (tmp_path / "net.cfg").rename(cfg)
    labels.write_text("cow\nhen\n")
    assert onnx_from_darknet(weights, out, cfg=cfg, labels=labels).labels == ("cow", "hen")


def test_an_option_without_effect_is_warned_of_with_its_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        convert(tmp_path, CFG.replace("classes=2\n", "classes=2\nclases=3\nignore_thresh=.7\n"))
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'net.cfg'}:17: option 'clases' is not known and has no effect"
    ]


@pytest.mark.parametrize(
    ("cfg", "line", "message"),
    [
        pytest.param(
            CFG.replace("height=4", "height=0"),
            3,
            "[net] needs height and width, in pixels, of 1 to 16384: found height=0, width=6",
            id="no height",
        ),
        pytest.param(
            CFG.replace("width=6\n", ""),
            2,
            "[net] needs height and width, in pixels, of 1 to 16384: found height=4, width=0",
            id="no width",
        ),
        pytest.param(
            CFG.replace("height=4", "height=16385"),
            3,
            "[net] needs height and width, in pixels, of 1 to 16384: found height=16385, width=6",
            id="a giant",
        ),
        pytest.param(
            CFG.replace("channels=3", "channels=4"),
            4,
            "[net] channels=4: expected 3 (colour) or 1 (grey)",
            id="four channels",
        ),
        pytest.param(
            f"{BODY}[dropuot]\n{HEAD}",
            13,
            f"[dropuot] unknown kind of layer: expected one of {', '.join(sorted(LAYERS))}",
            id="an unknown layer",
        ),
        *(
            pytest.param(
                f"{BODY}[{kind}]\n{HEAD}",
                13,
                f"[{kind}] is not supported: it remembers the images before, and here each stands for itself",
                id=f"a recurrent layer, {kind}",
            )
            for kind in ("rnn", "gru", "lstm", "crnn", "conv_lstm")
        ),
        pytest.param(
            BODY,
            0,
            f"{NEITHER}7x2x3",
            id="no end",
        ),
        pytest.param(
            f"{BODY}[contrastive]\n",
            0,
            f"{NEITHER}7x2x3",
            id="embeddings alone",
        ),
        pytest.param(
            f"{CFG}[maxpool]\n",
            18,
            "[maxpool] follows a [yolo], whose values no layer can read: begin with a [route]",
            id="a layer on a head",
        ),
    ],
)
def test_a_network_that_cannot_be_converted_is_refused_with_its_line(
    tmp_path: Path, out: Path, cfg: str, line: int, message: str
) -> None:
    with pytest.raises(DarknetParseError) as caught:
        convert(tmp_path, cfg)
    place = f"{tmp_path / 'net.cfg'}:{line}" if line else str(tmp_path / "net.cfg")
    assert str(caught.value) == f"{place}: {message}"
    assert not out.exists()


# --- classifiers


CLASSIFIER = f"{BODY}[avgpool]\n[softmax]\n[cost]\n"
LABELS = "".join(f"class {number}\n" for number in range(7))


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(x - x.max())
    return np.asarray(powers / powers.sum(), np.float64)


def classify(folder: Path, cfg: str, numbers: FloatArray, image: UInt8Array, labels: str = LABELS) -> FloatArray:
    """Return the scores of an image."""
    weights = write_weights(write_model(folder, cfg=cfg, labels=labels), numbers)
    onnx_from_darknet(weights, folder / "out.onnx")
    with open_engine(folder / "out.onnx") as engine:
        return np.asarray(engine.infer(image).scores[0], np.float32)


def test_a_classifier_gives_a_probability_for_each_class(tmp_path: Path) -> None:
    image, bias, kernel = images(1, 4, 6, 3), normal(7), normal(7, 3, seed=1)
    scores = classify(tmp_path, CLASSIFIER, np.concatenate([bias, kernel.ravel()]), image)
    values = image[0, ::2, ::2].astype(np.float64) / 255 @ kernel.T + bias
    np.testing.assert_allclose(scores, softmax(values.mean((0, 1))), rtol=1e-4)


def test_a_classifier_takes_the_middle_of_an_image(tmp_path: Path) -> None:
    spec = onnx_from_darknet(write_model(tmp_path, cfg=CLASSIFIER, labels=LABELS), tmp_path / "out.onnx")
    assert (spec.task, spec.resize, spec.sampling) == (Task.CLASSIFY, ResizeMode.CROP, Sampling.ALIGN_CORNERS)
    assert len(spec.labels) == 7
    assert not spec.multi_label


def test_a_classifier_is_valid_onnx_of_bytes_and_a_free_batch(tmp_path: Path, out: Path) -> None:
    onnx_from_darknet(write_model(tmp_path, cfg=CLASSIFIER, labels=LABELS), out)
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    (scores,) = model.graph.output
    assert [d.dim_param or d.dim_value for d in scores.type.tensor_type.shape.dim] == ["N", 7]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        pytest.param("[crop]\ncrop_height=4\ncrop_width=6\n", lambda x: 2 * x - 1, id="crop"),
        pytest.param("[maxpool]\nsize=1\n", lambda x: x, id="maxpool"),
        pytest.param("[dropout]\n", lambda x: x, id="dropout"),
    ],
)
def test_the_first_layer_sees_pixels_from_0_to_1_whatever_it_is(
    tmp_path: Path, layer: str, expected: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> None:
    image, bias, kernel = images(1, 4, 6, 3), normal(7), normal(7, 3, seed=1)
    # A route to the first layer sees what the layer after it has seen.
    cfg = CLASSIFIER.replace("[convolutional]", f"{layer}[route]\nlayers=0\n[convolutional]", 1)
    scores = classify(tmp_path, cfg, np.concatenate([bias, kernel.ravel()]), image)
    values = expected(image[0, ::2, ::2].astype(np.float64) / 255) @ kernel.T + bias
    np.testing.assert_allclose(scores, softmax(values.mean((0, 1))), rtol=1e-4)


def test_a_softmax_over_a_board_has_a_class_for_each_place(tmp_path: Path) -> None:
    cfg = CFG[: CFG.index("[convolutional]")].replace("channels=3", "channels=1") + (
        "[convolutional]\nactivation=linear\n[softmax]\n"
    )
    image = images(1, 4, 6, 1)
    labels = "".join(f"place {number}\n" for number in range(24))
    scores = classify(tmp_path, cfg, np.array([0, 3], np.float32), image, labels)
    np.testing.assert_allclose(scores, softmax(3 / 255 * image.astype(np.float64)).ravel(), rtol=1e-4)


def test_of_a_tree_of_classes_only_leaves_are_answers(tmp_path: Path) -> None:
    (tmp_path / "a.tree").write_text("animal -1\nthing -1\ncat 0\ndog 0\ncow 0\ncup 1\ncar 1\n")
    image, bias, kernel = images(1, 4, 6, 3), normal(7), normal(7, 3, seed=1)
    cfg = CLASSIFIER.replace("[softmax]\n", "[softmax]\ntree=a.tree\n")
    scores = classify(tmp_path, cfg, np.concatenate([bias, kernel.ravel()]), image)
    values = (image[0, ::2, ::2].astype(np.float64) / 255 @ kernel.T + bias).mean((0, 1))
    above = softmax(values[:2])
    expected = [0, 0, *(above[0] * softmax(values[2:5])), *(above[1] * softmax(values[5:]))]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_a_tree_belongs_to_what_the_model_was_converted_from(tmp_path: Path) -> None:
    (tmp_path / "a.tree").write_text("class -1\n" * 7)
    cfg = CLASSIFIER.replace("[softmax]\n", "[softmax]\ntree=a.tree\n")
    spec = onnx_from_darknet(write_model(tmp_path, cfg=cfg, labels=LABELS), tmp_path / "out.onnx")
    assert [source.name for source in spec.sources] == ["net.cfg", "net.weights", "net.names", "a.tree"]


def test_a_network_that_only_pjreddies_darknet_runs_is_normalised_as_there(tmp_path: Path) -> None:
    # The second convolution is half as large as the layer that the shortcut adds.
    body = BODY.replace("width=6", "width=8").replace("[convolutional]\n", "[convolutional]\nbatch_normalize=1\n", 1)
    cfg = f"{body}[convolutional]\nfilters=7\nstride=2\nactivation=linear\n[shortcut]\nfrom=-2\n[avgpool]\n[softmax]\n"
    image, kernel = images(1, 4, 8, 3), normal(7, 3, seed=1)
    bias, scale, mean = normal(3, 7, seed=2)
    variance, nothing = np.full(7, 1e-6, np.float32), np.zeros(7 + 7 * 7, np.float32)
    numbers = np.concatenate([bias, scale / 1000, mean, variance, kernel.ravel(), nothing])
    scores = classify(tmp_path, cfg, numbers, image)
    values = image[0, ::4, ::4].astype(np.float64) / 255 @ kernel.T
    values = (values - mean) / (np.sqrt(1e-6) + 1e-6) * scale / 1000 + bias
    np.testing.assert_allclose(scores, softmax(values.mean((0, 1))), rtol=1e-3)


# --- another size


def test_a_size_that_is_asked_for_replaces_the_cfgs(tmp_path: Path, out: Path) -> None:
    spec = onnx_from_darknet(write_model(tmp_path), out, size=(10, 8))
    assert spec.input_hw == (10, 8)
    with open_engine(out) as engine:
        assert engine.infer(images(1, 10, 8, 3)).scores.shape == (1, 5 * 4, 2)


def test_a_size_that_the_stride_does_not_divide_is_refused(tmp_path: Path, out: Path) -> None:
    with pytest.raises(ConversionError, match=r"^size: a width of 9 is no multiple of 2, .*\. Try 8 or 10$"):
        onnx_from_darknet(write_model(tmp_path), out, size=(10, 9))


def test_names_beside_the_weights_that_do_not_fit_are_not_used(tmp_path: Path) -> None:
    weights = write_model(tmp_path)
    (tmp_path / "net.names").write_text("cat\ndog\ncow\n")
    found = darknet_converted(ConversionRequest(model=weights))
    assert found.spec.labels == ("class_0", "class_1")
    assert found.warnings == (
        "'net.names' beside the model has 3 names, but the model has 2 classes. It is not used, and they are called "
        "class_0 and so on. Name the right file with --labels FILE.",
    )
    with pytest.raises(ConversionError, match="gives scores of 2 classes, but there are 3 labels"):
        darknet_converted(ConversionRequest(model=weights, labels=tmp_path / "net.names"))


def lose_cfg(folder: Path) -> None:
    (folder / "net.cfg").unlink()


def lose_labels(folder: Path) -> None:
    (folder / "net.names").unlink()


def lose_weights(folder: Path) -> None:
    (folder / "net.weights").unlink()


def cut_weights(folder: Path) -> None:
    (folder / "net.weights").write_bytes((folder / "net.weights").read_bytes()[:-4])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        pytest.param(lose_cfg, "no 'net.cfg' beside", id="no cfg"),
        pytest.param(lose_labels, "no labels for", id="no labels"),
        pytest.param(lose_weights, "net.weights: cannot be read: No such file", id="no weights"),
        pytest.param(cut_weights, "expected 21 weights, found 20", id="short weights"),
    ],
)
def test_nothing_is_written_where_the_files_make_no_model(
    tmp_path: Path, out: Path, harm: Callable[[Path], None], message: str
) -> None:
    weights = write_model(tmp_path)
    out.write_bytes(b"the model before")
    harm(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConversionError, match=message):
        onnx_from_darknet(weights, out)
    assert sorted(tmp_path.iterdir()) == before
    assert out.read_bytes() == b"the model before"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    weights = write_model(tmp_path)
    place = tmp_path / "missing" / "out.onnx"
    with pytest.raises(ConversionError, match=rf"^cannot write '{re.escape(str(place))}': No such file or directory$"):
        onnx_from_darknet(weights, place)
