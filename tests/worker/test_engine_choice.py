from contextlib import nullcontext
from pathlib import Path

import pytest
from engines import tiny

from trtjob.config import Settings
from trtjob.engines.choice import EngineKind
from trtjob.engines.protocol import Engine
from trtjob.engines.tensorrt.engine import alone
from trtjob.engines.tensorrt.plan_lock import locked
from trtjob.engines.tensorrt.plans import Gpu, PlanKey
from trtjob.errors import DeviceLostError, StorageError, TrtjobError
from trtjob.worker import engine_choice as worker_engine
from trtjob.worker.engine_choice import cuda_options, open_engine, tensorrt_options

NO_SUCH_GPU = 99
KEY = PlanKey("ab" * 32, "1:8:32", 3, "tensorrt", "11.4.0", Gpu("NVIDIA L4", (8, 9)))


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


@pytest.mark.parametrize(("kind", "opening"), [("tensorrt", "_tensorrt"), ("cuda", "_cuda")])
def test_a_gpu_that_is_lost_while_an_engine_opens_is_no_reason_for_another(
    model: Path, monkeypatch: pytest.MonkeyPatch, kind: EngineKind, opening: str
) -> None:
    """Nothing in this process can use it again, and nobody has asked for the CPU: see `Context`."""

    def lose(*_args: object) -> Engine:
        raise DeviceLostError("CUDA failed: an illegal memory access was encountered")

    monkeypatch.setattr(worker_engine, opening, lose)  # the fault is in the driver, which is not here
    with pytest.raises(DeviceLostError):
        open_engine(Settings(), model, "sha256", kind, 0, on_build=never_asked)


def test_the_settings_say_how_plans_are_built() -> None:
    settings = Settings(plan_batches="2:4:6", plan_workspace_mib=512, plan_level=5, tf32=False)
    build = tensorrt_options(settings, 0, never_asked).build
    found = str(build.profile), build.workspace_mib, build.optimization_level, build.tf32
    assert found == ("2:4:6", 512, 5, False)


def test_float32_is_multiplied_as_tf32_where_that_keeps_the_same_bytes() -> None:
    assert tensorrt_options(Settings(), 0, never_asked).build.tf32
    assert not cuda_options(Settings(), 0).tf32
    assert cuda_options(Settings(tf32=True), 0).tf32


@pytest.mark.parametrize("is_ahead", [False, True])
def test_only_a_plan_that_is_built_ahead_must_be_kept(tmp_path: Path, is_ahead: bool) -> None:
    (tmp_path / "plans").write_text("in the way")
    plans = tensorrt_options(Settings(home=tmp_path), 0, never_asked, is_ahead=is_ahead).plans
    with pytest.raises(StorageError, match="cannot be kept") if is_ahead else nullcontext():
        assert plans.get_or_build(KEY, lambda _learnt: (b"plan", b""), alone) == b"plan"


def test_who_waits_for_another_build_is_asked_whether_to_go_on(tmp_path: Path) -> None:
    plans = tensorrt_options(Settings(home=tmp_path), 0, never_asked).plans
    (tmp_path / "plans").mkdir()
    with (
        locked(tmp_path / "plans" / f"{KEY.digest}.lock", never_asked),
        pytest.raises(AssertionError, match="is built"),
    ):
        plans.get_or_build(KEY, lambda _learnt: (b"plan", b""), alone)


def test_the_settings_say_how_cuda_is_used() -> None:
    options = cuda_options(Settings(batch=4, gpu_memory_mib=512, tf32=False), 1)
    assert (options.gpu, options.batch, options.memory_mib, options.tf32) == (1, 4, 512, False)
