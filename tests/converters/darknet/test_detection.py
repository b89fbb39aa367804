from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import assert_same, best_first, decode, normal, refusal
from numpy.typing import NDArray

from trtjob.engines.protocol import FloatArray

HEAD = "[detection]\nclasses=3\ncoords=4\nside=4\nnum=2\nrescore=1\n"
VALUES = 4 * 4 * (3 + 2 * 5)


def naive_rows(x: FloatArray, *, is_softmax: bool, is_sqrt: bool) -> NDArray[np.float64]:
    """Return x1, y1, x2, y2 and the classes' scores: get_detection_detections in detection_layer.c, box by box."""
    side, boxes, classes = 4, 2, 3
    v = x.ravel().astype(np.float64)
    rows = []
    for n in range(boxes):
        for cell in range(side * side):
            probabilities = v[cell * classes : (cell + 1) * classes]
            if is_softmax:
                probabilities = np.exp(probabilities) / np.exp(probabilities).sum()
            scale = v[side * side * classes + cell * boxes + n]
            start = side * side * (classes + boxes) + (cell * boxes + n) * 4
            centre_x, centre_y = (v[start] + cell % side) / side * 64, (v[start + 1] + cell // side) / side * 32
            w, h = v[start + 2 : start + 4] ** (2 if is_sqrt else 1) * (64, 32)
            box = (centre_x - w / 2, centre_y - h / 2, centre_x + w / 2, centre_y + h / 2)
            rows.append([*box, *(scale * probabilities)])
    return np.array(rows)


@pytest.mark.parametrize("is_softmax", [False, True])
@pytest.mark.parametrize("is_sqrt", [False, True])
def test_a_detection_is_decoded_as_darknet_does(tmp_path: Path, is_softmax: bool, is_sqrt: bool) -> None:
    x = normal(VALUES, 1, 1)
    found = decode(tmp_path, f"{HEAD}softmax={int(is_softmax)}\nsqrt={int(is_sqrt)}\n", x, input_hw=(32, 64))
    assert_same(found, best_first(naive_rows(x, is_softmax=is_softmax, is_sqrt=is_sqrt)))


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        pytest.param("", 2, "coords=1: expected coords=4", id="no coordinates"),
        pytest.param("coords=4\nreorg=1", 4, "reorg=1 is not supported: expected reorg=0", id="another order"),
        pytest.param(
            "coords=4\nclasses=2\nside=4\nnum=2",
            4,
            "side=4, num=2 and classes=2 need 192 values, but the layer before has 208. "
            "Set its output=192, or correct 'classes'",
            id="other classes than values",
        ),
    ],
)
def test_a_detection_that_cannot_be_is_refused(tmp_path: Path, options: str, line: int, message: str) -> None:
    text = refusal(tmp_path, f"[detection]\n{options}\n", normal(VALUES, 1, 1))
    assert text == f"<cfg>:{line}: [detection] {message}"
