"""Plans that are built for a real GPU, and checked there before they are kept."""

from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from converters.darknet import test_random_networks as random_networks
from converters.precision import nets
from engines.tensorrt import conversions

from trtjob.engines.cuda.device import Device, gpu_of
from trtjob.engines.spec import Precision
from trtjob.engines.tensorrt import builder
from trtjob.engines.tensorrt.build_process import build_in_child
from trtjob.engines.tensorrt.builder import BatchProfile, BuildCancelled, BuildOptions, build_plan
from trtjob.engines.tensorrt.flavour import flavour
from trtjob.engines.tensorrt.runtime import TensorRtEngine
from trtjob.engines.tensorrt.selfcheck import check_plan
from trtjob.errors import EngineError

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

QUICK = BuildOptions(BatchProfile(1, 1, 2), optimization_level=0)


@pytest.mark.parametrize("tf32", [True, False], ids=["TF32", "no TF32"])
def test_a_float32_plan_passes(tf32: bool, tmp_path: Path) -> None:
    found = conversions.small_detector(tmp_path)
    model = conversions.write(found.model, found.spec, tmp_path / "net.onnx")
    options = BuildOptions(QUICK.profile, optimization_level=0, tf32=tf32)
    assert build_in_child(model, options, gpu=0).plan


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_plan_of_a_lower_precision_passes(precision: Precision, tmp_path: Path) -> None:
    found = conversions.small_detector(tmp_path)
    spec = found.spec.model_copy(update={"precision": precision})
    made = conversions.lower_precision(found, precision, nets.images(4, (32, 32)))
    model = conversions.write(made, spec, tmp_path / "net.onnx")
    if precision == "bf16" and flavour().is_weakly_typed:
        with pytest.raises(EngineError, match="computes in bf16"):
            build_in_child(model, QUICK, gpu=0)
    else:
        assert build_in_child(model, QUICK, gpu=0).plan


@pytest.mark.parametrize(
    "head",
    [
        head
        for head in conversions.HEADS
        if head.id
        in ("two yolos", "yolo with new coordinates", "Gaussian yolo", "region", "region of a tree", "detection")
    ],
)
def test_a_plan_of_each_family_of_heads_passes(head: str, tmp_path: Path) -> None:
    found = conversions.of_head(head)
    model = conversions.write(found.model, found.spec, tmp_path / "net.onnx")
    assert build_in_child(model, QUICK, gpu=0).plan


def test_a_build_is_stopped(tmp_path: Path) -> None:
    found = conversions.small_detector(tmp_path)
    model = conversions.write(found.model, found.spec, tmp_path / "net.onnx")
    with pytest.raises(BuildCancelled):
        build_in_child(model, QUICK, gpu=0, on_progress=lambda *_: False)


def test_a_graph_that_8_6_misreads_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is when nothing lowers it: the plan builds, runs, and ranks the candidates by objectness alone."""
    if not flavour().is_weakly_typed:
        pytest.skip("this TensorRT reads opset 18")
    monkeypatch.setattr(builder, "readable_copy", nullcontext)
    found = conversions.of_head(
        random_networks.conv(14) + random_networks.layer("yolo", num=2, classes=2, anchors="3,4, 5,2")
    )
    model = conversions.write(found.model, found.spec, tmp_path / "net.onnx")
    with closing(Device(0)):
        plan = build_plan(model, QUICK).plan
        with (
            TensorRtEngine(plan, found.spec, gpu_of(0), 1) as engine,
            pytest.raises(EngineError, match="does not answer as the model does on a CPU"),
        ):
            check_plan(engine, model, batch=1, title=flavour().title)
