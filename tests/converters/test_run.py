import hashlib
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from converters.darknet import networks
from converters.precision import nets
from terminal import DIGITS

from trtjob.converters.registry import ModelRegistry
from trtjob.converters.request import ConversionRequest
from trtjob.converters.run import Progress, convert_model, resolve_model
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.spec import Precision, load_spec
from trtjob.errors import ConversionError, EngineError, ModelError


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A Darknet model: net.weights, with net.cfg and net.names beside it."""
    return networks.write_model(tmp_path)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def noted_in(stages: list[str]) -> Progress:
    """Return a progress that notes what it is called with."""
    return lambda stage, _done, _total: stages.append(stage)


def files_in(registry: ModelRegistry) -> list[str]:
    return sorted(path.relative_to(registry.folder).as_posix() for path in registry.folder.rglob("*") if path.is_file())


def test_a_folder_that_holds_no_model_is_said(registry: ModelRegistry, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(
        ModelError, match=r"net\.onnx' is a folder, and holds no saved_model\.pb\. Name the model's file"
    ):
        convert_model(ConversionRequest(model=tmp_path / "net.onnx"), registry=registry)


def test_a_registry_that_cannot_be_written_refuses_a_conversion(read_only: ModelRegistry, weights: Path) -> None:
    with pytest.raises(ConversionError, match=r"^cannot write '"):
        convert_model(ConversionRequest(model=weights), registry=read_only)


# --- conversions


def test_a_conversion_is_registered_under_the_files_name(registry: ModelRegistry, weights: Path) -> None:
    model = convert_model(ConversionRequest(model=weights), registry=registry)
    assert model.name == "net"
    assert registry.get("net") == model
    assert model.sha256 == sha256_of(model.path)
    assert model.spec == load_spec(model.path)
    assert model.spec.labels == ("cat", "dog")


def test_a_conversion_leaves_nothing_but_what_it_gave(registry: ModelRegistry, weights: Path) -> None:
    sha256 = convert_model(ConversionRequest(model=weights), registry=registry).sha256
    (conversion,) = (registry.folder / "conversions").iterdir()
    expected = [f"files/{sha256}.json", f"files/{sha256}.onnx", "names/net.json"]
    assert files_in(registry) == [f"conversions/{conversion.name}", *expected]


def test_the_same_files_are_converted_once(registry: ModelRegistry, weights: Path) -> None:
    stages: list[str] = []
    first = convert_model(ConversionRequest(model=weights), registry=registry, on_progress=noted_in(stages))
    assert convert_model(ConversionRequest(model=weights), registry=registry, on_progress=noted_in(stages)) == first
    assert stages == ["converting"]


def test_the_same_files_may_get_another_name_without_a_conversion(registry: ModelRegistry, weights: Path) -> None:
    stages: list[str] = []
    first = convert_model(ConversionRequest(model=weights), registry=registry)
    request = ConversionRequest(model=weights, name="mine")
    second = convert_model(request, registry=registry, on_progress=noted_in(stages))
    assert (second.name, second.sha256, stages) == ("mine", first.sha256, [])


@pytest.mark.parametrize("name", ["net.cfg", "net.names", "net.weights"])
def test_a_file_that_has_changed_is_converted_again(registry: ModelRegistry, weights: Path, name: str) -> None:
    first = convert_model(ConversionRequest(model=weights), registry=registry)
    changes = {
        "net.cfg": lambda data: data + b"\n# changed\n",
        "net.names": lambda data: data.replace(b"dog", b"cow"),
        "net.weights": lambda data: data[:-4] + data[-8:-4],
    }
    path = weights.with_name(name)
    path.write_bytes(changes[name](path.read_bytes()))
    stages: list[str] = []
    with pytest.raises(ModelError, match=r"the name 'net' stands for another model.*--name.*--replace"):
        convert_model(ConversionRequest(model=weights), registry=registry, on_progress=noted_in(stages))
    assert (registry.get("net"), stages) == (first, [])
    moved = convert_model(ConversionRequest(model=weights, replace=True), registry=registry)
    assert (registry.get("net"), moved.sha256 != first.sha256) == (moved, True)


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"sha256": "gone"}'])
def test_a_damaged_note_of_a_conversion_means_to_convert_again(
    registry: ModelRegistry, weights: Path, text: str
) -> None:
    first = convert_model(ConversionRequest(model=weights), registry=registry)
    (note,) = (registry.folder / "conversions").iterdir()
    note.write_text(text)
    assert convert_model(ConversionRequest(model=weights), registry=registry).sha256 == first.sha256
    assert json.loads(note.read_text()) == {"sha256": first.sha256}


def test_a_model_that_was_removed_is_converted_again(registry: ModelRegistry, weights: Path) -> None:
    first = convert_model(ConversionRequest(model=weights), registry=registry)
    registry.remove("net")
    assert convert_model(ConversionRequest(model=weights), registry=registry).sha256 == first.sha256


def test_a_model_that_was_damaged_on_the_disk_is_converted_again(registry: ModelRegistry, weights: Path) -> None:
    model = convert_model(ConversionRequest(model=weights), registry=registry)
    model.path.write_bytes(model.path.read_bytes()[:-1])
    assert sha256_of(convert_model(ConversionRequest(model=weights), registry=registry).path) == model.sha256


def test_a_failed_conversion_leaves_nothing(registry: ModelRegistry, weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ConversionError, match="the file ends in layer 0"):
        convert_model(ConversionRequest(model=weights), registry=registry)
    assert files_in(registry) == []


def test_the_result_can_be_copied_elsewhere_too(registry: ModelRegistry, weights: Path, tmp_path: Path) -> None:
    model = convert_model(ConversionRequest(model=weights, out=tmp_path / "out.onnx"), registry=registry)
    assert (tmp_path / "out.onnx").read_bytes() == model.path.read_bytes()


def test_what_is_converted_already_is_copied_all_the_same(
    registry: ModelRegistry, weights: Path, tmp_path: Path
) -> None:
    model = convert_model(ConversionRequest(model=weights), registry=registry)
    convert_model(ConversionRequest(model=weights, out=tmp_path / "out.onnx"), registry=registry)
    assert sha256_of(tmp_path / "out.onnx") == model.sha256


def test_a_place_without_a_folder_is_refused_before_the_conversion(
    registry: ModelRegistry, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError) as caught:
        convert_model(ConversionRequest(model=weights, out=tmp_path / "missing" / "a.onnx"), registry=registry)
    missing = tmp_path / "missing"
    assert str(caught.value) == f"cannot write '{missing / 'a.onnx'}': there is no folder '{missing}'"
    assert not registry.folder.exists()


def test_a_bad_name_is_refused_before_the_conversion(registry: ModelRegistry, weights: Path) -> None:
    with pytest.raises(ModelError, match="'a/b' cannot be a model's name"):
        convert_model(ConversionRequest(model=weights, name="a/b"), registry=registry)
    assert not registry.folder.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("missing.weights", "no model file '{}'", id="missing"),
        pytest.param("x" * 300 + ".weights", "'{}' cannot be read: File name too long", id="a name that is too long"),
    ],
)
def test_what_cannot_be_converted_is_named(
    registry: ModelRegistry, onnx_file: Path, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        convert_model(ConversionRequest(model=tmp_path / name), registry=registry)
    assert str(caught.value) == message.format(tmp_path / name)


# --- what a user means


def test_a_name_means_a_registered_model(registry: ModelRegistry, onnx_file: Path) -> None:
    model = registry.add("mine", onnx_file)
    assert resolve_model("mine", registry=registry) == model


def test_an_onnx_file_of_ours_is_taken_as_it_is(registry: ModelRegistry, onnx_file: Path) -> None:
    model = resolve_model(str(onnx_file), registry=registry)
    assert (model.name, model.sha256) == ("tiny", sha256_of(onnx_file))
    assert convert_model(ConversionRequest(model=onnx_file, name="mine"), registry=registry).sha256 == model.sha256


def test_weights_are_converted(registry: ModelRegistry, weights: Path) -> None:
    assert resolve_model(str(weights), registry=registry).name == "net"


def test_a_file_that_is_used_gets_no_name_and_moves_none(
    registry: ModelRegistry, weights: Path, tmp_path: Path
) -> None:
    (other := tmp_path / "other.names").write_text("cow\nhen\n")
    resolve_model(str(weights), registry=registry)
    assert registry.list() == []
    named = convert_model(ConversionRequest(model=weights), registry=registry)
    relabelled = resolve_model(str(weights), registry=registry, labels=other)
    assert relabelled.spec.labels == ("cow", "hen")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    retrained = resolve_model(str(weights), registry=registry)
    assert len({named.sha256, relabelled.sha256, retrained.sha256}) == 3
    assert registry.get("net") == named


def test_the_ending_may_be_in_capitals(registry: ModelRegistry, weights: Path, onnx_file: Path) -> None:
    capital = weights.rename(weights.with_suffix(".WEIGHTS"))
    assert resolve_model(str(capital), registry=registry).name == "net"
    assert resolve_model(str(onnx_file.rename(onnx_file.with_suffix(".ONNX"))), registry=registry).name == "tiny"


def test_weights_are_converted_with_the_files_that_are_named(
    registry: ModelRegistry, weights: Path, tmp_path: Path
) -> None:
    cfg, labels = tmp_path / "a.txt", tmp_path / "b.txt"
    (tmp_path / "net.cfg").rename(cfg)
    labels.write_text("cow\nhen\n")
    started: list[Path] = []
    model = resolve_model(str(weights), registry=registry, cfg=cfg, labels=labels, on_convert=started.append)
    assert model.spec.labels == ("cow", "hen")
    assert started == [weights]


def test_a_tilde_is_the_users_home(registry: ModelRegistry, onnx_file: Path) -> None:
    onnx_file.rename(Path.home() / "a.onnx")
    assert resolve_model("~/a.onnx", registry=registry).name == "a"


def test_a_tilde_before_nobodys_name_is_part_of_a_files_name(
    registry: ModelRegistry, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx_file.rename("~nobody-is-called-so.onnx")
    assert resolve_model("~nobody-is-called-so.onnx", registry=registry).name == "nobody-is-called-so"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        pytest.param("missing.weights", "no model file 'missing.weights'", id="missing weights"),
        pytest.param("missing.ONNX", "no model file 'missing.ONNX'", id="missing onnx"),
        pytest.param("models/yolov3", "no model file 'models/yolov3'", id="a path is no name"),
        pytest.param("yolov3", "no model 'yolov3'. List them with", id="an unknown name"),
        pytest.param("net.cfg", "'net.cfg' is no model that can be used: it is a network", id="a cfg"),
        pytest.param("", "no model ''. List them with", id="nothing"),
        pytest.param("a\0b", "no model 'a\0b'. List them with", id="a zero byte"),
        pytest.param("x" * 300, "cannot be read: File name too long", id="a name that is too long"),
    ],
)
def test_what_is_no_model_is_named(
    registry: ModelRegistry,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argument: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        resolve_model(argument, registry=registry)
    assert message in str(caught.value)


def test_no_name_is_not_the_model_in_the_current_folder(
    registry: ModelRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saved_model.pb").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no model ''"):
        resolve_model("", registry=registry)


@pytest.mark.parametrize("option", ["cfg", "labels"])
def test_what_belongs_to_a_models_file_is_refused_for_a_model_of_the_registry(
    registry: ModelRegistry, weights: Path, option: str
) -> None:
    convert_model(ConversionRequest(model=weights), registry=registry)
    cfg, labels = (weights if option == name else None for name in ("cfg", "labels"))
    message = r"^--cfg, --labels and --scores belong to a model's file, but the model is 'net'"
    with pytest.raises(ModelError, match=message):
        resolve_model("net", registry=registry, cfg=cfg, labels=labels)


def test_the_labels_may_be_those_that_a_data_file_names(registry: ModelRegistry, weights: Path) -> None:
    data = weights.with_name("obj.data")
    data.write_text("classes= 2\nnames = data/obj.names\n")
    weights.with_name("obj.names").write_text("cow\nhen\n")
    assert resolve_model(str(weights), registry=registry, labels=data).spec.labels == ("cow", "hen")
    weights.with_name("obj.names").write_text("cow\nsow\n")
    assert resolve_model(str(weights), registry=registry, labels=data).spec.labels == ("cow", "sow")


def test_labels_that_were_found_and_did_not_fit_are_refused_when_they_are_named(
    registry: ModelRegistry, weights: Path
) -> None:
    names = weights.with_name("net.names")
    names.write_text("cat\ndog\ncow\n")
    assert resolve_model(str(weights), registry=registry).spec.labels == ("class_0", "class_1")
    with pytest.raises(ConversionError, match="there are 3 labels"):
        resolve_model(str(weights), registry=registry, labels=names)


# --- precision

LOWERED: tuple[Precision, ...] = ("fp16", "bf16", "int8")
SCENES = DIGITS / "scenes"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of four images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, pixels in enumerate(nets.images(4, (40, 50))):
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
    return folder


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A Darknet model of five convolutions."""
    return nets.write_darknet(tmp_path)


def lowering(model: Path, photos: Path, precision: Precision = "int8", **fields: object) -> ConversionRequest:
    return ConversionRequest(model=model, precision=precision, calibrate=photos, replace=True, **fields)


@pytest.mark.parametrize("precision", LOWERED)
def test_a_lowered_model_says_so_and_how_near_it_is(
    registry: ModelRegistry, deep: Path, photos: Path, precision: Precision
) -> None:
    model = convert_model(lowering(deep, photos, precision), registry=registry)
    spec = load_spec(model.path)
    assert spec == model.spec
    assert (spec.precision, spec.calibration) == (
        precision,
        "4 images, percentile 99.999" if precision == "int8" else None,
    )
    assert spec.parity is not None
    assert spec.parity.reference.startswith("the float32 graph in ONNX Runtime")
    assert (spec.parity.inputs, spec.parity.images) == ("4 images", 4)
    assert spec.parity.matched is not None


@pytest.mark.parametrize("precision", LOWERED)
def test_the_cpu_time_and_size_of_both_are_noted(
    registry: ModelRegistry, deep: Path, photos: Path, precision: Precision
) -> None:
    plain = convert_model(ConversionRequest(model=deep), registry=registry)
    facts = convert_model(lowering(deep, photos, precision), registry=registry).facts
    assert facts is not None
    assert facts.cpu_ms is not None
    assert facts.reference_cpu_ms is not None
    assert facts.reference_size_bytes == plain.size_bytes


def test_a_plain_darknet_model_is_measured_by_nothing(registry: ModelRegistry, weights: Path) -> None:
    model = convert_model(ConversionRequest(model=weights), registry=registry)
    assert model.spec.parity is None
    assert model.facts is not None
    assert (model.facts.cpu_ms, model.facts.reference_cpu_ms, model.facts.reference_size_bytes) == (None, None, None)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_cpu_runs_it(registry: ModelRegistry, deep: Path, photos: Path, precision: Precision) -> None:
    model = convert_model(lowering(deep, photos, precision), registry=registry)
    with open_engine(model.path, threads=1) as engine:
        assert engine.infer(nets.images(1, (32, 32))).scores.shape[2] == 2


def test_bf16_is_measured_by_an_emulation_for_the_cpu_cannot_run_it(
    registry: ModelRegistry, deep: Path, photos: Path
) -> None:
    model = convert_model(lowering(deep, photos, "bf16"), registry=registry)
    assert model.spec.parity is not None
    assert "rounded to bf16" in model.spec.parity.reference
    with pytest.raises(EngineError):
        open_engine(model.path)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_without_a_folder_16_bits_are_measured_on_generated_images(
    registry: ModelRegistry, deep: Path, precision: Precision
) -> None:
    model = convert_model(ConversionRequest(model=deep, precision=precision), registry=registry)
    assert model.spec.parity is not None
    assert model.spec.parity.inputs == "8 generated images"


def test_int8_without_images_is_refused(registry: ModelRegistry, deep: Path) -> None:
    with pytest.raises(
        ConversionError, match=r"int8 needs images like those that the model will see.*--calibrate FOLDER"
    ):
        convert_model(ConversionRequest(model=deep, precision="int8"), registry=registry)


def test_each_method_of_calibration_is_noted(registry: ModelRegistry, deep: Path, photos: Path) -> None:
    request = lowering(deep, photos, calibrate_method="minmax", calibrate_images=3)
    assert convert_model(request, registry=registry).spec.calibration == "3 images, minmax"


def test_the_stages_of_int8_are_shown(registry: ModelRegistry, deep: Path, photos: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    convert_model(
        lowering(deep, photos),
        registry=registry,
        on_progress=lambda stage, done, total: steps.append((stage, done, total)),
    )
    calibrating, measuring = ([(stage, done, 4) for done in range(5)] for stage in ("calibrating", "measuring"))
    assert steps == [("converting", 0, 0), *calibrating, *measuring]


# --- a model whose original can be run


def foreign(path: Path, photos: Path, precision: Precision) -> ConversionRequest:
    model = nets.write_foreign(path)
    return ConversionRequest(
        model=model, labels=model.with_suffix(".txt"), preprocess="unit", precision=precision, calibrate=photos
    )


def test_float32_is_compared_with_the_original(registry: ModelRegistry, photos: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    model = convert_model(
        foreign(tmp_path / "net.onnx", photos, "fp32"),
        registry=registry,
        on_progress=lambda stage, done, total: steps.append((stage, done, total)),
    )
    assert model.spec.parity is not None
    assert model.spec.parity.reference == "net.onnx in ONNX Runtime"
    assert (model.spec.parity.top1, model.spec.parity.top5) == (1.0, 1.0)
    assert model.facts is not None
    assert model.facts.reference_size_bytes == sum(source.size_bytes for source in model.spec.sources)
    assert model.facts.reference_cpu_ms is not None
    assert steps == [("converting", 0, 0), *[("measuring", done, 4) for done in range(5)]]


@pytest.mark.parametrize("precision", LOWERED)
def test_a_lowered_model_is_compared_with_float32_and_says_so(
    registry: ModelRegistry, photos: Path, tmp_path: Path, precision: Precision
) -> None:
    parity = convert_model(foreign(tmp_path / "net.onnx", photos, precision), registry=registry).spec.parity
    assert parity is not None
    expected = "the float32 graph in ONNX Runtime (not the original, net.onnx in ONNX Runtime)"
    assert parity.reference.startswith(expected)
    assert parity.top1 == 1.0


# --- the same request


@pytest.mark.parametrize("precision", LOWERED)
def test_the_same_request_gives_the_same_bytes(deep: Path, photos: Path, tmp_path: Path, precision: Precision) -> None:
    request = lowering(deep, photos, precision)
    hashes = {convert_model(request, registry=ModelRegistry(tmp_path / name)).sha256 for name in "ab"}
    assert len(hashes) == 1


def test_images_of_the_same_content_elsewhere_need_no_conversion(
    registry: ModelRegistry, deep: Path, photos: Path, tmp_path: Path
) -> None:
    stages: list[str] = []
    first = convert_model(lowering(deep, photos), registry=registry)
    shutil.copytree(photos, tmp_path / "elsewhere")
    request = lowering(deep, tmp_path / "elsewhere")
    assert convert_model(request, registry=registry, on_progress=noted_in(stages)) == first
    assert stages == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"calibrate_images": 2}, id="fewer images"),
        pytest.param({"calibrate_method": "minmax"}, id="another method"),
        pytest.param({"precision": "fp16"}, id="another precision"),
        pytest.param({}, id="an image that has changed"),
    ],
)
def test_another_wish_or_another_image_means_to_convert_again(
    registry: ModelRegistry, deep: Path, photos: Path, change: dict[str, object]
) -> None:
    first = convert_model(lowering(deep, photos), registry=registry)
    if not change:
        cv2.imwrite(str(photos / "1.png"), nets.images(1, (40, 50), seed=9)[0])
    request = lowering(deep, photos).model_copy(update=change)
    assert convert_model(request, registry=registry).sha256 != first.sha256


# --- images that are of no use


def test_a_folder_without_images_is_refused_before_anything_is_done(
    registry: ModelRegistry, deep: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    stages: list[str] = []
    with pytest.raises(ConversionError, match="there are no images in it"):
        convert_model(lowering(deep, tmp_path / "empty"), registry=registry, on_progress=noted_in(stages))
    assert stages == []


def test_damaged_images_are_left_out_with_a_warning(
    registry: ModelRegistry, deep: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "2.png").write_bytes(b"damaged")
    model = convert_model(lowering(deep, photos), registry=registry)
    assert (model.spec.calibration, model.spec.parity and model.spec.parity.images) == (
        "3 images, percentile 99.999",
        3,
    )
    assert [message for message in caplog.messages if "1 of 4 images of the folder is left out" in message]


def test_where_all_images_are_damaged_nothing_is_left(registry: ModelRegistry, deep: Path, photos: Path) -> None:
    for path in photos.iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(ConversionError, match="none of the 4 images can be used"):
        convert_model(lowering(deep, photos), registry=registry)
    assert files_in(registry) == []


# --- a lowering that is bad


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """A model in which one channel is so large that int8 steps leave nothing of the others; no layer heeds it."""
    parts = []
    for number, (filters, channels, size) in enumerate(nets.LAYERS):
        bias = networks.normal(filters, seed=number) * np.float32(0.3)
        kernel = networks.normal(filters, channels, size, size, seed=10 + number) * np.float32(0.3)
        if number == 0:
            bias[7] = 1e5
        if channels in (8, 16):
            kernel[:, -1] *= number not in (1, 3)  # the second layer reads the first, and the fourth does at its end
        parts += [bias, kernel]
    nets.write_darknet(tmp_path)
    return networks.write_weights(tmp_path / "net.weights", *parts)


def test_a_bad_lowering_is_warned_about(
    registry: ModelRegistry, uneven: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = convert_model(lowering(uneven, photos, calibrate_method="minmax"), registry=registry)
    (note,) = model.facts.notes if model.facts else ()
    assert note.startswith("The int8 model, compared with the float32 graph")
    assert [message for message in caplog.messages if note in message]


def test_a_bad_lowering_fails_where_strictness_is_asked_for(
    registry: ModelRegistry, uneven: Path, photos: Path
) -> None:
    with pytest.raises(ConversionError, match=r"The int8 model, compared with .*Without --strict this is a warning"):
        convert_model(lowering(uneven, photos, calibrate_method="minmax", strict=True), registry=registry)
    assert files_in(registry) == []


def test_strictness_asks_again_what_was_converted_without(registry: ModelRegistry, uneven: Path, photos: Path) -> None:
    request = lowering(uneven, photos, calibrate_method="minmax")
    convert_model(request, registry=registry)
    with pytest.raises(ConversionError, match="Without --strict"):
        convert_model(request.model_copy(update={"strict": True}), registry=registry)


def test_a_good_lowering_passes_where_strictness_is_asked_for(
    registry: ModelRegistry, deep: Path, photos: Path
) -> None:
    assert convert_model(lowering(deep, photos, "fp16", strict=True), registry=registry).spec.precision == "fp16"


# --- the sample model


@pytest.mark.slow
@pytest.mark.parametrize("precision", LOWERED)
def test_the_sample_model_is_lowered_well(registry: ModelRegistry, digits: Path, precision: Precision) -> None:
    model = convert_model(lowering(digits, SCENES, precision, strict=True), registry=registry)
    assert model.spec.parity is not None
    assert model.spec.parity.matched is not None
    assert model.spec.parity.matched >= 0.98


@pytest.mark.slow
def test_calibration_takes_no_more_memory_for_more_images(digits: Path, tmp_path: Path) -> None:
    """All values that are looked at, of 30 images of the sample model, would take a quarter of a gigabyte."""
    folder = tmp_path / "many"
    folder.mkdir()
    scenes = sorted(SCENES.rglob("*.jpg"))
    for index in range(30):
        shutil.copy(scenes[index % len(scenes)], folder / f"{index:03d}.jpg")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from trtjob.converters.registry import ModelRegistry\n"
        "from trtjob.converters.request import ConversionRequest\n"
        "from trtjob.converters.run import convert_model; _, model, images, count, home = sys.argv\n"
        "convert_model(ConversionRequest(model=Path(model), precision='int8', calibrate=Path(images),"
        " calibrate_images=int(count)), registry=ModelRegistry(Path(home)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    few, many = (
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(digits), str(folder), str(count), str(tmp_path / f"home{count}")],
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )
        for count in (3, 30)
    )
    assert many < few + 100
