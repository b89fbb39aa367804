from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import assert_same, best_first, build_layers, decode, normal, refusal, sigmoid
from numpy.typing import NDArray

from trtjob.engines.protocol import FloatArray

ANCHORS = [(1.5, 2.0), (3.0, 0.5)]  # in cells
HEAD = (
    "[region]\nanchors=1.5,2.0, 3.0,0.5\nnum=2\nclasses=3\ncoords=4\nbias_match=1\n"  # an input of 2 * (5 + 3) channels
)
Array = NDArray[np.float64]


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max())
    return np.asarray(powers / powers.sum(), np.float64)


def naive_rows(x: FloatArray, *, is_softmax: bool) -> Array:
    """Return x1, y1, x2, y2, objectness and the classes: get_region_boxes in region_layer.c, box by box."""
    values, (height, width) = x.shape[0] // len(ANCHORS), x.shape[1:]
    rows = []
    for n, (anchor_w, anchor_h) in enumerate(ANCHORS):
        for row in range(height):
            for column in range(width):
                v = x[n * values : (n + 1) * values, row, column].astype(np.float64)
                centre_x, centre_y = (column + sigmoid(v[0])) * 32 / width, (row + sigmoid(v[1])) * 32 / height
                w, h = np.exp(v[2]) * anchor_w * 32 / width, np.exp(v[3]) * anchor_h * 32 / height
                box = (centre_x - w / 2, centre_y - h / 2, centre_x + w / 2, centre_y + h / 2)
                rows.append([*box, sigmoid(v[4]), *(softmax(v[5:]) if is_softmax else v[5:])])
    return np.array(rows)


@pytest.mark.parametrize("is_softmax", [True, False])
def test_a_region_is_decoded_as_darknet_does(tmp_path: Path, is_softmax: bool) -> None:
    x = normal(16, 4, 8)
    rows = naive_rows(x, is_softmax=is_softmax)
    expected = np.concatenate([rows[:, :4], rows[:, 4:5] * rows[:, 5:]], 1)
    assert_same(decode(tmp_path, f"{HEAD}softmax={int(is_softmax)}\n", x), best_first(expected))


# --- trees of classes: an animal is a cat or a dog, and everything else is a thing

TREE = "animal -1\nthing -1\ncat 0\ndog 0\n"
TREE_HEAD = HEAD.replace("classes=3", "classes=4") + "softmax=1\ntree=a.tree\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.tree").write_text(TREE)
    return tmp_path


def objects(*logits: list[float], objectness: float = 0.7) -> FloatArray:
    """Return the values of two anchors in each of some cells, with the same logits of classes and of objectness."""
    x = np.zeros((2 * 9, 1, len(logits)), np.float32)
    for cell, values in enumerate(logits):
        x[4:9, 0, cell] = x[13:18, 0, cell] = [objectness, *values]
    return x


SPECIAL = [
    pytest.param([5, 0, 5, 0], 2, id="a class below is probable"),
    pytest.param([5, 0, 0, 0], 0, id="only the class above is"),
    pytest.param([0, 5, 5, 0], 1, id="a class without children"),
    pytest.param([0.5, 0, 0.5, 0], 0, id="a probable one, but not with the one above it"),
]


@pytest.mark.parametrize(("logits", "best"), SPECIAL)
def test_the_most_special_probable_class_of_an_object_has_its_probability(
    folder: Path, logits: list[float], best: int
) -> None:
    above, below = softmax(np.array(logits[:2], np.float64)), softmax(np.array(logits[2:], np.float64))
    expected = np.zeros(4)
    expected[best] = above[best] if best < 2 else above[0] * below[best - 2]
    found = decode(folder, TREE_HEAD, objects(logits))
    np.testing.assert_allclose(found[0, 4:], expected, rtol=1e-5)


@pytest.mark.parametrize(("logits", "best"), SPECIAL)
def test_what_is_hardly_an_object_has_its_objectness(folder: Path, logits: list[float], best: int) -> None:
    found = decode(folder, TREE_HEAD, objects(logits, objectness=-1.5))
    expected = np.zeros(4)
    expected[best] = sigmoid(np.array(-1.5))
    np.testing.assert_allclose(found[0, 4:], expected, rtol=1e-5)


def test_without_a_probable_class_there_is_no_detection(folder: Path) -> None:
    assert not decode(folder, TREE_HEAD, objects([0, 0, 3, 0]))[:, 4:].any()


def test_labels_of_a_map_have_the_probabilities_of_their_classes(folder: Path) -> None:
    (folder / "a.map").write_text("3\n1\n")
    x = normal(18, 2, 2)
    rows = naive_rows(x, is_softmax=False)
    above, below = (np.apply_along_axis(softmax, 1, part) for part in (rows[:, 5:7], rows[:, 7:]))
    scores = rows[:, 4:5] * np.stack([above[:, 0] * below[:, 1], above[:, 1]], 1)
    by_objectness = np.argsort(-rows[:, 4])
    expected = np.concatenate([rows[:, :4], scores], 1)[by_objectness]
    assert_same(decode(folder, f"{TREE_HEAD}map=a.map\n", x, label_count=2), expected)


def test_a_map_is_not_used_with_the_names_of_the_tree(folder: Path) -> None:
    (folder / "a.map").write_text("3\n1\n")
    x = normal(18, 2, 2)
    assert np.array_equal(decode(folder, f"{TREE_HEAD}map=a.map\n", x), decode(folder, TREE_HEAD, x))


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        pytest.param("coords=5", 3, "coords=5 is not supported: expected coords=4", id="masks"),
        pytest.param("background=1", 3, "background=1 is not supported: expected background=0", id="background"),
        pytest.param("classfix=-1", 3, "classfix=-1 is not supported: expected classfix=0", id="another score"),
        pytest.param("", 2, "needs pairs of numbers as 'anchors', found 0 numbers", id="no anchors"),
        pytest.param(
            "anchors=1,2,3,4\nclasses=3\nnum=1",
            4,
            "1 anchors and classes=3 need 8 channels, but the layer before has 16. "
            "Set its filters=8, or correct 'classes'",
            id="other anchors than filters",
        ),
        pytest.param(
            "anchors=1,2,3,4\nnum=2\nclasses=3\ntree=b.tree",
            6,
            "tree=b.tree: there is no such file beside the cfg or the weights",
            id="no tree",
        ),
    ],
)
def test_a_region_that_cannot_be_is_refused(tmp_path: Path, options: str, line: int, message: str) -> None:
    text = refusal(tmp_path, f"[region]\n{options}\n", normal(16, 2, 2))
    assert text == f"<cfg>:{line}: [region] {message}"


def test_a_tree_of_another_number_of_classes_is_refused(folder: Path) -> None:
    text = refusal(folder, f"{HEAD}tree=a.tree\n", normal(16, 2, 2))
    assert text == f"<cfg>:8: [region] '{folder}/a.tree' has 4 classes, expected 3"


def test_a_region_ends_its_network(tmp_path: Path) -> None:
    assert build_layers(tmp_path, HEAD, [normal(16, 2, 2)]).outputs[-1].is_head
