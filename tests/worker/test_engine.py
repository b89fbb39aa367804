from pathlib import Path

import pytest
from engines import tiny

from trtjob.config import Settings
from trtjob.errors import TrtjobError
from trtjob.worker.engine import cuda_options, open_engine, tensorrt_options

NO_SUCH_GPU = 99


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "tiny.onnx")


def never_asked(_phase: str, _done: int, _total: int) -> bool:
    raise AssertionError("nothing is built")


def test_the_engine_has_the_threads_of_the_settings(model: Path) -> None:
    with open_engine(Settings(threads=3), model, "sha256", "cpu", None, on_build=never_asked) as engine:
        assert (engine.name, engine.concurrency) == ("cpu", 3)


def test_where_no_engine_on_a_gpu_can_run_a_model_the_cpu_does(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_engine(Settings(), model, "sha256", "tensorrt", NO_SUCH_GPU, on_build=never_asked) as engine:
        assert engine.name == "cpu"
    passed_over = [vars(record)["engine"] for record in caplog.records if "the next one does" in record.message]
    assert passed_over == ["TensorRT", "ONNX Runtime on CUDA"]


@pytest.mark.parametrize("wish", ["tensorrt", "cuda"])
def test_who_asks_for_an_engine_gets_no_other(model: Path, wish: str) -> None:
    settings = Settings.model_validate({"engine": wish})
    with pytest.raises(TrtjobError):
        open_engine(settings, model, "sha256", settings.engine, NO_SUCH_GPU, on_build=never_asked)  # type: ignore[arg-type]


def test_the_settings_say_how_plans_are_built() -> None:
    settings = Settings(plan_batches="2:4:6", plan_workspace_mib=512, plan_level=5, tf32=False)
    build = tensorrt_options(settings, 0, never_asked).build
    found = str(build.profile), build.workspace_mib, build.optimization_level, build.tf32
    assert found == ("2:4:6", 512, 5, False)


def test_the_settings_say_how_cuda_is_used() -> None:
    options = cuda_options(Settings(batch=4, gpu_memory_mib=512, tf32=False), 1)
    assert (options.gpu, options.batch, options.memory_mib, options.tf32) == (1, 4, 512, False)
