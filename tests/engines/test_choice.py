import pytest

from trtjob.engines.choice import Choice, EngineWish, _numbers, choose
from trtjob.engines.cuda.driver import has_driver
from trtjob.errors import ConfigError, EngineError

without_driver = pytest.mark.skipif(has_driver(), reason="this machine has NVIDIA's driver")


@without_driver
def test_auto_takes_the_cpu_where_there_is_no_driver_and_says_why() -> None:
    choice = choose("auto", "all")
    reason = "ONNX Runtime on the CPU: no NVIDIA driver is installed (there is no libcuda.so.1)"
    assert choice == Choice("cpu", (), reason)


@without_driver
@pytest.mark.parametrize(("wish", "title"), [("tensorrt", "TensorRT"), ("cuda", "ONNX Runtime on CUDA")])
def test_an_engine_for_gpus_is_an_error_without_a_driver(wish: EngineWish, title: str) -> None:
    with pytest.raises(EngineError, match=f"{title} cannot be used: no NVIDIA driver"):
        choose(wish, "all")


def test_the_cpu_looks_at_no_gpu() -> None:
    assert choose("cpu", "7") == Choice("cpu", (), "ONNX Runtime on the CPU, as asked for")


@pytest.mark.parametrize("wish", ["auto", "tensorrt", "cuda", "cpu"])
def test_what_names_no_gpu_is_wrong_usage_whatever_the_machine(wish: EngineWish) -> None:
    with pytest.raises(ConfigError, match="--gpus 'banana': expected all, or numbers such as 0,2"):
        choose(wish, "banana")


@without_driver
def test_a_gpu_that_is_named_is_missed_also_by_auto() -> None:
    with pytest.raises(ConfigError, match=r"there is no GPU 7: no NVIDIA driver is installed .* --gpus all"):
        choose("auto", "7")


@pytest.mark.gpu
@pytest.mark.parametrize("wish", ["auto", "cuda"])
def test_a_gpu_is_taken_by_its_name(wish: EngineWish) -> None:
    choice = choose(wish, "all")
    assert choice.gpus[0] == 0
    assert "GPU 0 (NVIDIA" in choice.reason


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
