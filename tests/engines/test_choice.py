import pytest

from trtjob.engines.choice import Choice, _numbers, choose
from trtjob.errors import ConfigError, EngineError, MissingDependencyError, TrtjobError


def has_gpu() -> bool:
    from trtjob.engines.tensorrt import cuda

    try:
        return bool(cuda.gpus())
    except TrtjobError:
        return False


without_gpu = pytest.mark.skipif(has_gpu(), reason="this machine has a GPU that CUDA can use")


@without_gpu
def test_auto_takes_the_cpu_where_there_is_no_gpu_and_says_why() -> None:
    choice = choose("auto", "all")
    assert (choice.engine, choice.gpus) == ("onnxruntime", ())
    assert choice.reason.startswith("ONNX Runtime on the CPU: ")
    assert "pycuda" in choice.reason or "CUDA" in choice.reason


@without_gpu
def test_tensorrt_without_a_gpu_is_an_error_that_says_what_is_missing() -> None:
    with pytest.raises((EngineError, MissingDependencyError), match=r"pycuda|CUDA"):
        choose("tensorrt", "all")


def test_onnx_runtime_looks_at_no_gpu() -> None:
    assert choose("onnxruntime", "nonsense") == Choice("onnxruntime", (), "ONNX Runtime on the CPU, as asked for")


@pytest.mark.parametrize(
    ("gpus", "numbers"),
    [
        pytest.param("all", (0, 1, 2), id="all"),
        pytest.param("0,2", (0, 2), id="two"),
        pytest.param("2,0,2", (2, 0), id="one of them twice"),
    ],
)
def test_gpus_are_numbers_or_all(gpus: str, numbers: tuple[int, ...]) -> None:
    assert _numbers(gpus, [0, 1, 2]) == numbers


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        pytest.param("3", "there is no GPU 3; this machine has 3, from 0 on", id="not there"),
        pytest.param("first", "expected all, or numbers such as 0,2", id="no number"),
        pytest.param("", "expected all, or numbers such as 0,2", id="nothing"),
    ],
)
def test_gpus_that_are_not_there_are_named(gpus: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _numbers(gpus, [0, 1, 2])
