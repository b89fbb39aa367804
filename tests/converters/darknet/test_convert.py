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
from onnx import TensorProto

from trtjob import __version__
from trtjob.engines.onnxruntime import open_engine
from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import METADATA_KEY, ModelSpec, NmsKind, ResizeMode, Sampling, SourceFile, Task, load_spec
from trtjob.errors import ConversionError, DarknetParseError

# A second head on the output of layer 0.
SECOND_HEAD = "[route]\nlayers=0\n[yolo]\nanchors=3,5\nclasses=2\n"
# A head that follows layer 0, to try what comes between.
HEAD = CFG[CFG.index("[yolo]") :]
BODY = CFG[: CFG.index("[yolo]")]


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
            CFG.replace("[convolutional]", "[maxpool]\n[convolutional]"),
            6,
            "[maxpool] the first layer must be [convolutional]",
            id="no convolution first",
        ),
        pytest.param(
            f"{BODY}[dropout]\n{HEAD}",
            13,
            "[dropout] unknown kind of layer: expected one of convolutional, maxpool, route, shortcut, upsample, yolo",
            id="an unknown layer",
        ),
        pytest.param(BODY, 0, "has no [yolo] layer: only YOLO detectors are supported", id="no head"),
        pytest.param(
            f"{CFG}{SECOND_HEAD}new_coords=1\n",
            23,
            "[yolo] new_coords must be the same in every [yolo]",
            id="heads of two kinds",
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


def lose_cfg(folder: Path) -> None:
    (folder / "net.cfg").unlink()


def lose_labels(folder: Path) -> None:
    (folder / "net.names").unlink()


def lose_weights(folder: Path) -> None:
    (folder / "net.weights").unlink()


def cut_weights(folder: Path) -> None:
    (folder / "net.weights").write_bytes((folder / "net.weights").read_bytes()[:-4])


def add_label(folder: Path) -> None:
    (folder / "net.names").write_text("cat\ndog\ncow\n")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        pytest.param(lose_cfg, "no 'net.cfg' beside", id="no cfg"),
        pytest.param(lose_labels, "no labels for", id="no labels"),
        pytest.param(lose_weights, "net.weights: cannot be read: No such file", id="no weights"),
        pytest.param(cut_weights, "expected 21 weights, found 20", id="short weights"),
        pytest.param(add_label, "expected 2 labels, .* found 3", id="too many labels"),
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
