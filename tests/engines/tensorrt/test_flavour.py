"""What a version serves and how it is named; what the real modules have is in test_api.py."""

import re
from types import SimpleNamespace

import pytest

from trtjob.engines.tensorrt.flavour import ERAS, Capability, Flavour, checked, expect_default
from trtjob.errors import EngineError


def installed(version: str, name: str = "tensorrt") -> Flavour:
    return Flavour(name, version, SimpleNamespace())


SERVED = [
    pytest.param("8.6.1", (6, 1), id="GTX 1070 and 1080 Ti"),
    pytest.param("8.6.1", (7, 0), id="V100 on 8.6"),
    pytest.param("10.4.0", (7, 0), id="V100 on 10.4"),
    pytest.param("8.6.1", (8, 9), id="RTX 4090 on 8.6"),
    pytest.param("8.6.1", (9, 0), id="H200 on 8.6"),
    pytest.param("10.5.0", (7, 5), id="RTX 2080 on 10.5"),
    pytest.param("10.8.0.43", (12, 0), id="RTX 5090 on 10.8"),
    pytest.param("11.4.0.106", (12, 1), id="a newer one on 11"),
]


@pytest.mark.parametrize(("version", "capability"), SERVED)
def test_a_card_that_a_version_serves_is_taken(version: str, capability: Capability) -> None:
    installed(version).expect_gpu("a GPU", capability)


REFUSED = [
    pytest.param(
        "11.4.0", (6, 1), "TensorRT 11.4.0 serves 7.5 or later. Install TensorRT 8.6, or", id="GTX 1070 on 11"
    ),
    pytest.param("10.0.1", (6, 1), "TensorRT 10.0.1 serves 7.0 to 9.x. Install TensorRT 8.6, or", id="GTX 1070 on 10"),
    pytest.param("10.5.0", (7, 0), "Install TensorRT 8.6 to 10.4, or run it with --engine cuda", id="V100 on 10.5"),
    pytest.param("8.6.1", (12, 0), "serves 6.0 to 9.x. Install TensorRT 10.8 or later", id="RTX 5090 on 8.6"),
    pytest.param("10.4.0", (10, 0), "Install TensorRT 10.8 or later", id="B200 on 10.4"),
    pytest.param("8.6.1", (5, 2), "No TensorRT from 8.6 on does: run it with --engine cpu", id="GTX 980"),
]


@pytest.mark.parametrize(("version", "capability", "said"), REFUSED)
def test_a_card_that_it_does_not_is_told_which_version_does(version: str, capability: Capability, said: str) -> None:
    shown = ".".join(map(str, capability))
    with pytest.raises(EngineError, match=f"^the card has compute capability {re.escape(shown)}: .*{re.escape(said)}"):
        installed(version).expect_gpu("the card", capability)


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (12, 0)])
def test_tensorrt_rtx_takes_the_cards_that_it_is_made_for(capability: Capability) -> None:
    installed("1.7.1.116", "tensorrt_rtx").expect_gpu("an RTX card", capability)


@pytest.mark.parametrize(
    ("capability", "instead"),
    [
        pytest.param((6, 1), "Install TensorRT 8.6, or", id="GTX 1070"),
        pytest.param((7, 5), "Install TensorRT 8.6 or later, or", id="RTX 2080"),
        pytest.param((9, 0), "Install TensorRT 8.6 or later, or", id="H200"),
        pytest.param((10, 0), "Install TensorRT 10.8 or later, or", id="B200"),
    ],
)
def test_tensorrt_rtx_is_not_taken_for_cards_that_it_refuses(capability: Capability, instead: str) -> None:
    told = re.escape(f"TensorRT-RTX 1.7.1.116 serves 8.0 to 8.x and 12.0 to 12.x. {instead} run it with --engine cuda")
    with pytest.raises(EngineError, match=told):
        installed("1.7.1.116", "tensorrt_rtx").expect_gpu("the card", capability)


@pytest.mark.parametrize(
    ("capability", "said"),
    [
        pytest.param((6, 1), "the card has compute capability 6.1. Install TensorRT 8.6, or", id="GTX 1070"),
        pytest.param((7, 0), "Install TensorRT 8.6 to 10.4, or run it with --engine cuda", id="V100"),
        pytest.param((5, 2), "No TensorRT from 8.6 on does: run it with --engine cpu", id="GTX 980"),
    ],
)
def test_who_has_no_tensorrt_is_told_which_one_an_old_card_needs(capability: Capability, said: str) -> None:
    with pytest.raises(EngineError, match=re.escape(said)):
        expect_default("the card", capability)


def test_who_has_no_tensorrt_may_take_the_newest_for_a_card_of_today() -> None:
    expect_default("the card", (9, 0))


def test_each_version_belongs_to_one_era() -> None:
    firsts = [era.first for era in ERAS]
    assert firsts == sorted(firsts)
    assert [era.last == "" for era in ERAS] == [False] * (len(ERAS) - 1) + [True]


@pytest.mark.parametrize(("version", "is_taken"), [("8.5.3.1", False), ("8.6.0", True), ("11.4.0.106", True)])
def test_a_version_that_is_too_old_is_named(version: str, is_taken: bool) -> None:
    if is_taken:
        assert checked(installed(version)).release == tuple(map(int, version.split(".")[:2]))
        return
    with pytest.raises(EngineError, match=r"TensorRT 8\.5\.3\.1 is too old: trtjob needs 8\.6 or later"):
        checked(installed(version))
