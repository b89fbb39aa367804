"""What the converters make, TensorRT takes: TensorRT-RTX builds it without a GPU."""

from pathlib import Path

import pytest
from conftest import SHARED
from converters.darknet import networks
from converters.darknet.yolov4_tiny import write_yolov4_tiny
from converters.keras.networks import NARROW
from terminal import DIGITS

from trtjob.converters.registry import ModelRegistry
from trtjob.converters.request import USUAL_CANDIDATES, ConversionRequest
from trtjob.converters.run import convert_model
from trtjob.engines.candidates import count_of
from trtjob.engines.spec import Task
from trtjob.engines.tensorrt.builder import BatchProfile, BuildOptions, build_config, build_plan
from trtjob.engines.tensorrt.flavour import flavour
from trtjob.engines.tensorrt.lowering import lowered
from trtjob.engines.tensorrt.messages import logger

pytestmark = pytest.mark.extra

BATCHES = BuildOptions(BatchProfile(1, 2, 4))

# Of the sample model `make test` makes a plan in every precision, of others in one.
IN_BOTH = pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.chaos)])


def built(request: ConversionRequest, folder: Path) -> None:
    """Convert a model, and see that TensorRT reads it as it is meant, with any batch size, and builds it."""
    model = convert_model(request, registry=ModelRegistry(folder / "models"))
    inputs, outputs, profiles = interface(model.path)
    assert inputs == {"images": (-1, *model.spec.input_hw, model.spec.channels)}
    classes = len(model.spec.labels)
    if model.spec.task is Task.CLASSIFY:
        assert outputs == {"scores": (-1, classes)}
    else:
        (_, candidates, _) = outputs["scores"]
        answered = count_of(candidates, classes, model.spec)
        assert outputs == {
            "boxes": (-1, candidates, 4),
            "scores": (-1, candidates, classes),
            "candidates": (-1, answered, 6),
        }
        assert 0 < candidates <= USUAL_CANDIDATES
    assert profiles == 1
    assert build_plan(model.path, BATCHES).plan


def interface(model: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]], int]:
    """Return a model's inputs and outputs as TensorRT reads them (-1: any batch), and how many profiles it has."""
    trt = flavour().trt
    builder = trt.Builder(logger()[0])
    network = builder.create_network(flavour().network_flags)
    assert trt.OnnxParser(network, logger()[0]).parse_from_file(str(model))
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    assert [value.dtype for value in inputs] == [trt.uint8]
    assert {value.dtype for value in outputs} == {trt.float32}
    config = build_config(builder, network, BATCHES)
    return (
        {value.name: tuple(value.shape) for value in inputs},
        {value.name: tuple(value.shape) for value in outputs},
        config.num_optimization_profiles,
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_the_sample_model_becomes_a_plan_in_every_precision(precision: str, tmp_path: Path) -> None:
    request = ConversionRequest.model_validate(
        {"model": DIGITS / "digits.weights", "precision": precision, "calibrate": DIGITS / "scenes"}
    )
    built(request, tmp_path)


def test_what_8_6_is_given_is_read_by_a_later_parser_as_the_model_is(tmp_path: Path) -> None:
    networks.onnx_from_darknet(networks.write_model(tmp_path), tmp_path / "net.onnx")
    with lowered(tmp_path / "net.onnx") as readable:
        assert readable != tmp_path / "net.onnx"
        assert interface(readable) == interface(tmp_path / "net.onnx")
        assert build_plan(readable, BATCHES).plan


@pytest.mark.parametrize("sizes", [BatchProfile(1, 1, 1), BatchProfile(2, 2, 2), BatchProfile(1, 4, 64)], ids=str)
def test_any_batch_sizes_are_taken(sizes: BatchProfile, tmp_path: Path) -> None:
    networks.onnx_from_darknet(networks.write_model(tmp_path), tmp_path / "net.onnx")
    assert build_plan(tmp_path / "net.onnx", BuildOptions(sizes)).plan


@pytest.mark.slow
@IN_BOTH
def test_the_official_yolov3_tiny_becomes_a_plan(precision: str, tmp_path: Path) -> None:
    weights = SHARED / "models" / "yolov3-tiny.weights"
    if not weights.exists():
        pytest.skip("needs the official weights, which are no part of the project")
    request = ConversionRequest.model_validate(
        {"model": weights, "labels": weights.with_name("coco.names"), "precision": precision}
    )
    built(request, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(120)
@IN_BOTH
def test_yolov4_tiny_becomes_a_plan(precision: str, tmp_path: Path) -> None:
    weights = write_yolov4_tiny(tmp_path)
    request = ConversionRequest.model_validate({"model": weights, "precision": precision})
    built(request, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(180)
@IN_BOTH
@pytest.mark.parametrize("arch", [pytest.param("VGG16", marks=pytest.mark.chaos), "MobileNetV2"])
@pytest.mark.usefixtures("keras")
def test_a_keras_classifier_becomes_a_plan(arch: str, precision: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    # Narrow inputs and few classes: the layers are the same, and the building is quick.
    options = {"input_shape": (64, 64, 3), "classes": 10, **NARROW.get(arch, {})}
    model = getattr(keras.applications, arch)(weights=None, **options)
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
    built(request, tmp_path)
