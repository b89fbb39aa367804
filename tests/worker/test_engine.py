from pathlib import Path

import pytest
from engines import tiny

from trtjob.config import Settings
from trtjob.errors import ConfigError, TrtjobError
from trtjob.worker.engine import open_engine, tensorrt_options


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "tiny.onnx")


def never_asked(_phase: str, _done: int, _total: int) -> bool:
    raise AssertionError("nothing is built")


def test_the_engine_has_the_threads_of_the_settings(model: Path) -> None:
    with open_engine(Settings(threads=3), model, "sha256", None, on_build=never_asked) as engine:
        assert (engine.name, engine.concurrency) == ("onnxruntime", 3)


def test_where_tensorrt_cannot_run_a_model_onnx_runtime_does(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_engine(Settings(), model, "sha256", 99, on_build=never_asked) as engine:  # there is no such GPU
        assert engine.name == "onnxruntime"
    assert "TensorRT cannot run the model; ONNX Runtime does" in caplog.messages


def test_who_asks_for_tensorrt_gets_no_other_engine(model: Path) -> None:
    with pytest.raises(TrtjobError):
        open_engine(Settings(engine="tensorrt"), model, "sha256", 99, on_build=never_asked)


def test_the_settings_say_how_plans_are_built() -> None:
    settings = Settings(plan_batches="2:4:6", plan_workspace_mib=512, plan_level=5)
    build = tensorrt_options(settings, 0, never_asked).build
    assert (str(build.profile), build.workspace_mib, build.optimization_level) == ("2:4:6", 512, 5)


def test_batch_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch sizes '8:4'"):
        tensorrt_options(Settings(plan_batches="8:4"), 0, never_asked)
