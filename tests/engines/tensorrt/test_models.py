"""What the converters make, TensorRT takes: TensorRT-RTX builds it without a GPU."""

from pathlib import Path

import pytest
from conftest import SHARED
from converters.darknet import networks
from converters.darknet.yolov4_tiny import write_yolov4_tiny
from terminal import DIGITS

from trtjob.converters.registry import ModelRegistry
from trtjob.converters.request import ConversionRequest
from trtjob.engines.tensorrt.builder import BatchProfile, BuildOptions, build_plan
from trtjob.worker.convert import convert_model

pytestmark = pytest.mark.extra

BATCHES = BuildOptions(BatchProfile(1, 2, 4))


def converted(request: ConversionRequest, folder: Path) -> Path:
    return convert_model(request, registry=ModelRegistry(folder / "models")).path


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_the_sample_model_becomes_a_plan_in_every_precision(precision: str, tmp_path: Path) -> None:
    request = ConversionRequest.model_validate(
        {"model": DIGITS / "digits.weights", "precision": precision, "calibrate": DIGITS / "scenes"}
    )
    assert build_plan(converted(request, tmp_path), BATCHES).plan


@pytest.mark.parametrize("sizes", [BatchProfile(1, 1, 1), BatchProfile(2, 2, 2), BatchProfile(1, 4, 64)], ids=str)
def test_any_batch_sizes_are_taken(sizes: BatchProfile, tmp_path: Path) -> None:
    networks.onnx_from_darknet(networks.write_model(tmp_path), tmp_path / "net.onnx")
    assert build_plan(tmp_path / "net.onnx", BuildOptions(sizes)).plan


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_official_yolov3_tiny_becomes_a_plan(precision: str, tmp_path: Path) -> None:
    weights = SHARED / "models" / "yolov3-tiny.weights"
    if not weights.exists():
        pytest.skip("needs the official weights, which are no part of the project")
    request = ConversionRequest.model_validate(
        {"model": weights, "labels": weights.with_name("coco.names"), "precision": precision}
    )
    assert build_plan(converted(request, tmp_path), BATCHES).plan


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_yolov4_tiny_becomes_a_plan(precision: str, tmp_path: Path) -> None:
    weights = write_yolov4_tiny(tmp_path)
    request = ConversionRequest.model_validate({"model": weights, "precision": precision})
    assert build_plan(converted(request, tmp_path), BATCHES).plan


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("arch", ["VGG16", "MobileNetV2"])
def test_a_keras_classifier_becomes_a_plan(arch: str, precision: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    # Narrow inputs and few classes: the layers are the same, and the building is quick.
    model = getattr(keras.applications, arch)(weights=None, input_shape=(64, 64, 3), classes=10)
    model.save(tmp_path / "net.keras")
    (tmp_path / "labels.txt").write_text("".join(f"{number}\n" for number in range(10)))
    request = ConversionRequest.model_validate(
        {
            "model": tmp_path / "net.keras",
            "labels": tmp_path / "labels.txt",
            "preprocess": "unit",
            "precision": precision,
        }
    )
    assert build_plan(converted(request, tmp_path), BATCHES).plan
