"""Builds with TensorRT-RTX, which needs no GPU for it."""

from pathlib import Path

import onnx
import pytest
from engines import tiny
from onnx import TensorProto, helper

from trtjob.engines.tensorrt.builder import BatchProfile, BuildCancelled, BuildOptions, build_plan
from trtjob.errors import ConfigError, EngineError

pytestmark = pytest.mark.extra


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "tiny.onnx")


def test_a_plan_is_built_without_a_gpu(model: Path) -> None:
    assert build_plan(model, BuildOptions()).plan.startswith(b"vtrt")


def test_the_progress_counts_the_steps_of_each_phase(model: Path) -> None:
    steps: list[tuple[str, int, int]] = []

    def note(phase: str, done: int, total: int) -> bool:
        steps.append((phase, done, total))
        return True

    build_plan(model, BuildOptions(), on_progress=note)
    assert steps
    assert all(phase and 1 <= done <= total for phase, done, total in steps)


def test_a_build_can_be_stopped(model: Path) -> None:
    with pytest.raises(BuildCancelled):
        build_plan(model, BuildOptions(), on_progress=lambda *_: False)


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "garbled.onnx").write_bytes(b"garbage")
    with pytest.raises(EngineError, match=r"TensorRT-RTX [0-9.]+ cannot read 'garbled\.onnx': .*parse"):
        build_plan(tmp_path / "garbled.onnx", BuildOptions())


def test_an_operator_that_tensorrt_does_not_know_is_named(tmp_path: Path) -> None:
    node = helper.make_node("FooBar", ["images"], ["scores"], name="strange")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "f.onnx")
    with pytest.raises(EngineError, match=r"cannot read 'f\.onnx': node 'strange' \(FooBar\): "):
        build_plan(tmp_path / "f.onnx", BuildOptions())


def test_an_input_of_another_name_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["pixels"], ["scores"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "p.onnx")
    with pytest.raises(EngineError, match="the model takes 'pixels': expected 'images' alone"):
        build_plan(tmp_path / "p.onnx", BuildOptions())


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        pytest.param("1:8:32", (1, 8, 32), id="three"),
        pytest.param("4:4:4", (4, 4, 4), id="one size only"),
        pytest.param("8", (1, 8, 8), id="up to"),
    ],
)
def test_batch_sizes_are_smallest_best_and_largest(text: str, sizes: tuple[int, int, int]) -> None:
    assert BatchProfile.parse(text) == BatchProfile(*sizes)


@pytest.mark.parametrize("text", ["", "0", "8:1:32", "1:8", "1:2:3:4", "a:b:c", "1:64:32", "-1:1:1"])
def test_batch_sizes_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="batch sizes"):
        BatchProfile.parse(text)
