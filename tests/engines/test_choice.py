import pytest

from trtjob.engines.choice import Choice, EngineRequest, choose, chosen_gpus
from trtjob.engines.cuda.driver import has_driver
from trtjob.engines.cuda.survey import SurveyedGpu, survey, survey_alone
from trtjob.errors import ConfigError, EngineError

without_driver = pytest.mark.skipif(has_driver(), reason="this machine has NVIDIA's driver")


@without_driver
def test_auto_takes_the_cpu_where_there_is_no_driver_and_says_why() -> None:
    choice = choose("auto", "all")
    reason = "ONNX Runtime on the CPU: no NVIDIA driver is installed (there is no libcuda.so.1)"
    assert choice == Choice("cpu", (), reason)


@without_driver
@pytest.mark.parametrize(("wish", "title"), [("tensorrt", "TensorRT"), ("cuda", "ONNX Runtime on CUDA")])
def test_an_engine_for_gpus_is_an_error_without_a_driver(wish: EngineRequest, title: str) -> None:
    with pytest.raises(EngineError, match=f"{title} cannot be used: no NVIDIA driver"):
        choose(wish, "all")


def test_the_cpu_looks_at_no_gpu() -> None:
    assert choose("cpu", "7") == Choice("cpu", (), "ONNX Runtime on the CPU, as asked for")


@pytest.mark.parametrize("wish", ["auto", "tensorrt", "cuda", "cpu"])
def test_what_names_no_gpu_is_wrong_usage_whatever_the_machine(wish: EngineRequest) -> None:
    with pytest.raises(ConfigError, match="--gpus 'banana': expected all, numbers such as 0,2, or names"):
        choose(wish, "banana")


@without_driver
def test_a_gpu_that_is_named_is_missed_also_by_auto() -> None:
    with pytest.raises(ConfigError, match=r"there is no GPU 7: no NVIDIA driver is installed .* --gpus all"):
        choose("auto", "7")


@pytest.mark.gpu
@pytest.mark.parametrize("wish", ["auto", "cuda"])
def test_a_gpu_is_taken_by_its_name(wish: EngineRequest) -> None:
    choice = choose(wish, "all")
    assert choice.gpus[0].number == 0
    assert "GPU 0 (NVIDIA" in choice.reason


@pytest.mark.gpu
def test_a_process_that_is_shown_one_gpu_by_its_name_sees_that_one_alone() -> None:
    for gpu in survey().gpus:
        alone = survey_alone(gpu.visible_as)
        assert alone is not None
        assert (alone.index, alone.pci_bus_id) == (0, gpu.pci_bus_id)


UUIDS = ("1a2b3c4d-0000", "1a2b9999-0000", "ffff0000-0000")
SEEN = [SurveyedGpu(number, "NVIDIA L4", (8, 9), 1 << 34, f"GPU-{uuid}") for number, uuid in enumerate(UUIDS)]


@pytest.mark.parametrize(
    ("gpus", "numbers"),
    [
        pytest.param("all", [0, 1, 2], id="all"),
        pytest.param("0,2", [0, 2], id="two"),
        pytest.param("2,0,2", [2, 0], id="one of them twice"),
        pytest.param("GPU-ffff0000-0000", [2], id="a name"),
        pytest.param("GPU-1a2b3,2", [0, 2], id="the beginning of a name, and a number"),
    ],
)
def test_gpus_are_numbers_or_names_or_all(gpus: str, numbers: list[int]) -> None:
    assert [gpu.number for gpu in chosen_gpus(gpus, SEEN)] == numbers


def test_people_know_a_gpu_by_its_number_whatever_it_was_named_by() -> None:
    assert [gpu.called for gpu in chosen_gpus("GPU-ffff,0", SEEN)] == ["GPU 2", "GPU 0"]


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        pytest.param("3", "there is no GPU 3; this machine has 3, from 0 on", id="not there"),
        pytest.param("first", "expected all, numbers such as 0,2, or names such as GPU-1a2b3c4d", id="no number"),
        pytest.param("", "expected all, numbers such as 0,2, or names such as GPU-1a2b3c4d", id="nothing"),
        pytest.param("GPU-beef", "there is no GPU GPU-beef; this machine has GPU-1a2b3c4d-0000, ", id="no such name"),
        pytest.param("GPU-1a2b", r"more than one GPU is called GPU-1a2b\.\.\.", id="a name of two"),
    ],
)
def test_gpus_that_are_not_there_are_named(gpus: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chosen_gpus(gpus, SEEN)
