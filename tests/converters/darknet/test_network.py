from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import build_layers, normal
from onnx import numpy_helper

from trtjob.converters.darknet.cfg import parse_cfg
from trtjob.converters.graph import Graph
from trtjob.errors import DarknetParseError


def test_values_are_named_after_the_layer_that_they_are_in() -> None:
    graph = Graph()
    graph.scope = "007_maxpool"
    assert graph.add("MaxPool", "x") == "007_maxpool/maxpool"


def test_no_two_values_of_a_layer_share_a_name() -> None:
    graph = Graph()
    names = [graph.add("Add", "x", "x") for _ in range(3)]
    assert names == ["input/add", "input/add_2", "input/add_3"]


def test_small_constants_that_are_equal_become_one() -> None:
    graph = Graph()
    assert graph.integers(1, 2) == graph.integers(1, 2)
    assert len(graph.constants) == 1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(np.array([1, 3], np.int64), id="values"),
        pytest.param(np.array([[1, 2]], np.int64), id="shape"),
        pytest.param(np.array([1, 2], np.int64).view(np.float64), id="type, though the bytes are equal"),
    ],
)
def test_constants_that_differ_stay_apart(other: np.ndarray[tuple[int, ...], np.dtype[np.int64 | np.float64]]) -> None:
    graph = Graph()
    first, second = graph.integers(1, 2), graph.constant(other)
    assert first != second
    assert [numpy_helper.to_array(constant).dtype for constant in graph.constants] == [np.int64, other.dtype]


def test_large_constants_are_not_compared() -> None:
    graph = Graph()
    kernel = normal(1025)
    assert graph.constant(kernel, "kernel") != graph.constant(kernel, "kernel")


def test_a_constant_keeps_its_values_whatever_its_layout_in_memory() -> None:
    graph = Graph()
    turned = np.arange(6).reshape(2, 3).T
    graph.constant(turned)
    assert np.array_equal(numpy_helper.to_array(graph.constants[0]), turned)


def test_a_layers_number_counts_from_the_first_or_back_from_this_one(tmp_path: Path) -> None:
    net = build_layers(tmp_path, "[maxpool]\n", [normal(1, 2, 2), normal(2, 2, 2)])
    section = parse_cfg("[net]\n[route]\n")[1]
    assert net.layer(section, 0, "layers") == net.layer(section, -3, "layers") == net.outputs[0]


@pytest.mark.parametrize("number", [-4, 3])
def test_a_layer_that_is_not_there_yet_is_refused(tmp_path: Path, number: int) -> None:
    net = build_layers(tmp_path, "[maxpool]\n", [normal(1, 2, 2), normal(2, 2, 2)])
    section = parse_cfg(f"[net]\n[route]\nlayers={number}\n")[1]
    with pytest.raises(DarknetParseError, match=f":3: .*layers={number}: there is no such layer .* which is layer 3$"):
        net.layer(section, number, "layers")
