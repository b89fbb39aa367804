"""What the converters make, TensorRT takes: TensorRT-RTX builds it without a GPU."""

from pathlib import Path

import pytest
from converters.darknet import networks
from terminal import DIGITS

from trtjob.converters.artefact import serialised
from trtjob.converters.darknet.convert import convert
from trtjob.converters.request import ConversionRequest
from trtjob.engines.tensorrt.builder import BatchProfile, BuildOptions, build_plan

pytestmark = pytest.mark.extra


def test_the_sample_model_becomes_a_plan(tmp_path: Path) -> None:
    converted = convert(ConversionRequest(model=DIGITS / "digits.weights"))
    path = tmp_path / "digits.onnx"
    path.write_bytes(serialised(converted.model, converted.spec))
    assert build_plan(path, BuildOptions(BatchProfile(1, 2, 4))).plan


@pytest.mark.parametrize("sizes", [BatchProfile(1, 1, 1), BatchProfile(2, 2, 2), BatchProfile(1, 4, 64)], ids=str)
def test_any_batch_sizes_are_taken(sizes: BatchProfile, tmp_path: Path) -> None:
    networks.onnx_from_darknet(networks.write_model(tmp_path), tmp_path / "net.onnx")
    assert build_plan(tmp_path / "net.onnx", BuildOptions(sizes)).plan
