from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import normal, run_graph
from hypothesis import given
from hypothesis import strategies as st

from trtjob.converters.darknet.tree import Tree, group_softmax, probabilities, read_map, read_tree
from trtjob.converters.graph import Graph
from trtjob.engines.protocol import FloatArray
from trtjob.errors import DarknetParseError

# 0 and 1 are at the top; 2 to 4 are below 0, 5 below 1, and 6 and 7 below 3.
PARENTS = (-1, -1, 0, 0, 0, 1, 3, 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.tree"


def run(tree: Tree, x: FloatArray) -> FloatArray:
    """Return the probabilities of some rows of logits [rows, classes]."""
    graph = Graph()
    result = probabilities(graph, tree, group_softmax(graph, tree, "in_0"))
    return run_graph(graph, {"in_0": x}, [result])[0]


def naive_probabilities(parents: tuple[int, ...], x: FloatArray) -> FloatArray:
    """softmax_tree and hierarchy_predictions in tree.c and region_layer.c, class by class."""
    result = np.zeros(x.shape)
    starts = [i for i in range(len(parents)) if i == 0 or parents[i] != parents[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(parents)], strict=True):
        powers = np.exp(x[:, start:end].astype(np.float64) - x[:, start:end].max(1, keepdims=True))
        result[:, start:end] = powers / powers.sum(1, keepdims=True)
        if parents[start] >= 0:
            result[:, start:end] *= result[:, parents[start], None]
    return np.asarray(result, np.float32)


@st.composite
def trees(draw: st.DrawFn) -> tuple[int, ...]:
    """Any tree: groups of siblings, each below an earlier class that has no children yet."""
    parents = [-1] * draw(st.integers(1, 5))
    childless = list(range(len(parents)))
    for size in draw(st.lists(st.integers(1, 9), max_size=8)):
        parent = childless.pop(draw(st.integers(0, len(childless) - 1)))
        childless += range(len(parents), len(parents) + size)
        parents += [parent] * size
    return tuple(parents)


@given(trees())
def test_a_class_has_the_product_of_its_and_its_ancestors_shares_among_siblings(parents: tuple[int, ...]) -> None:
    x = 3 * normal(2, len(parents))
    found = run(Tree(Path("a.tree"), parents), x)
    np.testing.assert_allclose(found, naive_probabilities(parents, x), rtol=1e-4, atol=1e-7)


def test_a_long_line_of_ancestors_is_multiplied(path: Path) -> None:
    parents = tuple(sum(([level * 2 - 2] * 2 for level in range(1, 12)), [-1, -1]))
    x = 3 * normal(2, len(parents))
    found = run(Tree(path, parents), x)
    np.testing.assert_allclose(found, naive_probabilities(parents, x), rtol=1e-4, atol=1e-7)


def test_a_tree_is_read_with_its_leaves(path: Path) -> None:
    path.write_text("".join(f"n0{number}\t{parent}\n" for number, parent in enumerate(PARENTS)) + "\n")
    tree = read_tree(path)
    assert tree.parents == PARENTS
    assert np.flatnonzero(tree.leaves()).tolist() == [2, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("a -1\nb\n", 2, id="no parent"),
        pytest.param("a -1\nb 1\n", 2, id="a parent that is itself"),
        pytest.param("a -2\n", 1, id="a parent before the first"),
        pytest.param("a -1\n\nb 0\n", 2, id="a gap"),
        pytest.param("a x\n", 1, id="no number"),
    ],
)
def test_what_is_no_tree_is_refused_with_its_line(path: Path, text: str, line: int) -> None:
    path.write_text(text)
    with pytest.raises(DarknetParseError) as caught:
        read_tree(path)
    assert str(caught.value) == (
        f"{path}:{line}: expected an identifier and the number of an earlier line, from 0, or -1"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "is no tree of classes: it is empty"), (b"\xff\xfe", "is no text"), (None, "cannot be read: No such file")],
)
def test_a_tree_that_cannot_be_read_is_named(path: Path, data: bytes | None, message: str) -> None:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DarknetParseError, match=f"{path}: {message}"):
        read_tree(path)


def test_a_map_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.map").write_text("3\n0\n2\n")
    assert read_map(tmp_path / "a.map", 4) == (3, 0, 2)


@pytest.mark.parametrize("line", ["4", "-1", "x", ""])
def test_a_map_to_what_is_no_class_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.map").write_text(f"3\n{line}\n1\n")
    with pytest.raises(DarknetParseError, match=r"a\.map:2: expected the number of one of 4 classes, from 0$"):
        read_map(tmp_path / "a.map", 4)


def test_an_identifier_may_hold_what_python_takes_for_the_end_of_a_line(path: Path) -> None:
    path.write_text("a\x1cb -1\nc\u2028d 0\n", encoding="utf-8")
    assert read_tree(path).parents == (-1, 0)
