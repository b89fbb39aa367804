"""Trees of classes, as YOLO9000 has them: softmax among siblings, and a class's probability is its ancestors' product.

A tree's file has a line for each class: its identifier, and the number of its parent's line from 0, or -1.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.files import beside
from trtjob.converters.graph import Graph
from trtjob.errors import DarknetParseError

IntArray = NDArray[np.int64]

_LINE = re.compile(r"(\S+)\s+(-1|\d{1,7})\s*", re.ASCII)
_NEVER = -60_000.0  # a logit that softmax makes nothing of, in float16 too


@dataclass(frozen=True, slots=True)
class Tree:
    """parents: of each class, -1 at the top. Siblings are one after the other, and parents come before children."""

    path: Path
    parents: tuple[int, ...]

    def expect(self, section: Section, classes: int) -> None:
        """Raise DarknetParseError unless the tree has as many classes as its layer."""
        if len(self.parents) != classes:
            raise section.error(f"'{self.path}' has {len(self.parents)} classes, expected {classes}", "tree")

    def groups(self) -> list[range]:
        """Return the classes of each group of siblings: a new one begins where the parent changes (tree.c)."""
        starts = [0, *(i for i in range(1, len(self.parents)) if self.parents[i] != self.parents[i - 1])]
        return [range(start, end) for start, end in zip(starts, [*starts[1:], len(self.parents)], strict=True)]

    def leaves(self) -> NDArray[np.bool_]:
        """Tell of each class whether it has no children."""
        is_leaf = np.ones(len(self.parents), np.bool_)
        is_leaf[[parent for parent in self.parents if parent >= 0]] = False
        return is_leaf


def tree_of(section: Section, weights: Path) -> Tree | None:
    """Return the tree that a layer names, beside the file of the weights; None where it names none."""
    path = beside(section, "tree", weights)
    return None if path is None else read_tree(path)


def read_tree(path: Path) -> Tree:
    """Read a tree's file. Raises DarknetParseError."""
    parents: list[int] = []
    for number, line in enumerate(_lines(path), start=1):
        match = _LINE.fullmatch(line)
        if match is None or (parent := int(match[2])) >= len(parents):
            raise DarknetParseError(
                "expected an identifier and the number of an earlier line, from 0, or -1", path=path, line=number
            )
        parents.append(parent)
    if not parents:
        raise DarknetParseError("is no tree of classes: it is empty", path=path)
    return Tree(path, tuple(parents))


def read_map(path: Path, classes: int) -> tuple[int, ...]:
    """Read which class of a tree each label stands for: a number on each line. Raises DarknetParseError."""
    numbers = []
    for number, line in enumerate(_lines(path), start=1):
        if not re.fullmatch(r"\d{1,7}", line.strip(), re.ASCII) or int(line) >= classes:
            raise DarknetParseError(f"expected the number of one of {classes} classes, from 0", path=path, line=number)
        numbers.append(int(line))
    return tuple(numbers)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text("utf-8").rstrip()
    except OSError as err:
        raise DarknetParseError(f"cannot be read: {err.strerror}", path=path) from err
    except UnicodeDecodeError as err:
        raise DarknetParseError("is no text", path=path) from err
    return text.split("\n") if text else []  # not splitlines(): it parts at more than line feeds


def group_softmax(graph: Graph, tree: Tree, x: str) -> str:
    """Append a softmax among siblings to logits [N, K, classes].

    Groups of similar size are computed together, filled up to the largest among them: 9,418 classes have thousands of
    groups, most of them small, and one of hundreds.
    """
    classes = len(tree.parents)
    padded = graph.add(
        "Pad", x, graph.integers(0, 0, 0, 0, 0, 1), graph.constant(np.array(_NEVER, np.float32), "never")
    )
    parts, places, taken = [], np.zeros(classes, np.int64), 0
    for table in _tables_of_groups(tree):
        rows, width = table.shape
        logits = graph.add("Gather", padded, graph.constant(table, "siblings"), axis=2)  # [N, K, rows, width]
        part = graph.add("Softmax", logits, axis=3)
        parts.append(graph.add("Reshape", part, graph.integers(0, 0, rows * width)))
        real = table.ravel() < classes
        places[table.ravel()[real]] = taken + np.flatnonzero(real)
        taken += rows * width
    together = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=2)
    return graph.add("Gather", together, graph.constant(places, "places"), axis=2)


def _tables_of_groups(tree: Tree) -> list[IntArray]:
    """Return the groups by size, doubling: int64 [groups, width] each, filled up with the number of classes."""
    by_width: dict[int, list[range]] = {}
    for group in tree.groups():
        by_width.setdefault((len(group) - 1).bit_length(), []).append(group)
    tables = []
    for _, groups in sorted(by_width.items()):
        table = np.full((len(groups), max(map(len, groups))), len(tree.parents), np.int64)
        for row, group in zip(table, groups, strict=True):
            row[: len(group)] = group
        tables.append(table)
    return tables


def probabilities(graph: Graph, tree: Tree, x: str) -> str:
    """Append the product with all ancestors to probabilities among siblings [N, K, classes] (hierarchy_predictions)."""
    classes = len(tree.parents)
    # A last class of probability 1 is the parent at the top, and its own.
    x = graph.add("Pad", x, graph.integers(0, 0, 0, 0, 0, 1), graph.constant(np.array(1, np.float32), "certain"))
    above = np.array([classes if parent < 0 else parent for parent in (*tree.parents, -1)], np.int64)
    while (above < classes).any():  # each step doubles the number of ancestors that are in the product
        x = graph.add("Mul", x, graph.add("Gather", x, graph.constant(above, "ancestors"), axis=2))
        above = above[above]
    return graph.add("Slice", x, graph.integers(0), graph.integers(classes), graph.integers(2))
