from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import assert_same, best_first, build_layers, decode, normal, sigmoid
from numpy.typing import NDArray

from trtjob.converters.request import USUAL_CANDIDATES
from trtjob.engines.protocol import FloatArray
from trtjob.errors import DarknetParseError

ANCHORS = [(4.0, 7.0), (9.0, 6.0), (13.0, 16.5)]
HEAD = "[yolo]\nanchors=4,7, 9,6, 13,16.5\nnum=3\nclasses=2\n"  # an input of 3 * (5 + 2) channels


def naive_rows(
    x: FloatArray,
    anchors: list[tuple[float, float]],
    *,
    input_wh: tuple[int, int] = (32, 32),
    scale_x_y: float = 1.0,
    new_coords: bool = False,
) -> NDArray[np.float64]:
    """Return x1, y1, x2, y2 and the classes' scores of every box: get_yolo_box and get_yolo_detections, box by box."""
    values, (height, width) = x.shape[0] // len(anchors), x.shape[1:]
    rows = []
    for n, (anchor_w, anchor_h) in enumerate(anchors):
        for row in range(height):
            for column in range(width):
                v = x[n * values : (n + 1) * values, row, column].astype(np.float64)
                if not new_coords:
                    v[:2], v[4:] = sigmoid(v[:2]), sigmoid(v[4:])
                offset_x, offset_y = v[:2] * scale_x_y - 0.5 * (scale_x_y - 1)
                w, h = (2 * v[2:4]) ** 2 if new_coords else np.exp(v[2:4])
                centre_x, centre_y = (column + offset_x) / width * input_wh[0], (row + offset_y) / height * input_wh[1]
                w, h = w * anchor_w, h * anchor_h
                box = (centre_x - w / 2, centre_y - h / 2, centre_x + w / 2, centre_y + h / 2)
                rows.append([*box, *(v[4] * v[5:])])
    return np.array(rows)


def test_a_head_is_decoded_as_darknet_does(tmp_path: Path) -> None:
    x = normal(21, 4, 4)
    assert_same(decode(tmp_path, HEAD, x), best_first(naive_rows(x, ANCHORS)))


@pytest.mark.parametrize("scale", [1.05, 1.2, 2.0])
def test_scale_x_y_stretches_the_offset_in_the_cell(tmp_path: Path, scale: float) -> None:
    x = 3 * normal(21, 4, 4)
    found = decode(tmp_path, f"{HEAD}scale_x_y = {scale}\n", x)
    assert_same(found, best_first(naive_rows(x, ANCHORS, scale_x_y=scale)))


def test_new_coords_takes_the_values_as_they_are(tmp_path: Path) -> None:
    x = sigmoid(normal(21, 4, 4)).astype(np.float32)
    found = decode(tmp_path, f"{HEAD}scale_x_y=2.0\nnew_coords=1\n", x)
    assert_same(found, best_first(naive_rows(x, ANCHORS, scale_x_y=2.0, new_coords=True)))


def test_width_and_height_are_not_mixed_up(tmp_path: Path) -> None:
    x = normal(21, 2, 5)
    found = decode(tmp_path, HEAD, x, input_hw=(64, 100))
    assert_same(found, best_first(naive_rows(x, ANCHORS, input_wh=(100, 64))))


def test_a_grid_need_not_divide_the_input(tmp_path: Path) -> None:
    x = normal(21, 3, 3)
    found = decode(tmp_path, HEAD, x, input_hw=(32, 40))
    assert_same(found, best_first(naive_rows(x, ANCHORS, input_wh=(40, 32))))


def test_the_mask_picks_anchors_in_its_order(tmp_path: Path) -> None:
    x = normal(14, 4, 4)
    found = decode(tmp_path, f"{HEAD}mask = 2,0\n", x)
    assert_same(found, best_first(naive_rows(x, [ANCHORS[2], ANCHORS[0]])))


def test_an_anchor_without_a_height_has_darknets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = normal(14, 4, 4)
    found = decode(tmp_path, "[yolo]\nanchors=4,7, 9\nnum=2\nclasses=2\n", x)
    assert_same(found, best_first(naive_rows(x, [(4.0, 7.0), (9.0, 0.5)])))
    assert [record.getMessage() for record in caplog.records] == [
        "<cfg>:3: anchors: expected pairs of numbers, found 3 numbers: the last pair ends in 0.5, as in Darknet"
    ]


def test_all_heads_compete_each_with_its_own_anchors_and_scale(tmp_path: Path) -> None:
    coarse, fine = normal(7, 2, 2), normal(14, 4, 4, seed=1)
    layers = f"{HEAD}mask=0,1\nscale_x_y=1.1\n[route]\nlayers=0\n{HEAD}mask=2\n"
    expected = [naive_rows(fine, ANCHORS[:2], scale_x_y=1.1), naive_rows(coarse, ANCHORS[2:])]
    assert_same(decode(tmp_path, layers, coarse, fine), best_first(np.concatenate(expected)))


def test_heads_with_and_without_new_coords_compete(tmp_path: Path) -> None:
    old, new = normal(7, 2, 2), sigmoid(normal(14, 4, 4, seed=1)).astype(np.float32)
    layers = f"{HEAD}mask=0,1\nnew_coords=1\n[route]\nlayers=0\n{HEAD}mask=2\n"
    expected = [naive_rows(new, ANCHORS[:2], new_coords=True), naive_rows(old, ANCHORS[2:])]
    assert_same(decode(tmp_path, layers, old, new), best_first(np.concatenate(expected)))


def test_the_best_of_heads_of_two_kinds_are_kept(tmp_path: Path) -> None:
    old, new = normal(21, 19, 19), sigmoid(normal(21, 19, 19, seed=1)).astype(np.float32)
    layers = f"{HEAD}new_coords=1\n[route]\nlayers=0\n{HEAD}"
    expected = np.concatenate([naive_rows(new, ANCHORS, new_coords=True), naive_rows(old, ANCHORS)])
    assert_same(decode(tmp_path, layers, old, new), best_first(expected)[:USUAL_CANDIDATES])


def test_what_compares_objects_of_one_frame_with_anothers_changes_nothing(tmp_path: Path) -> None:
    x = normal(21, 4, 4)
    tracking = "embedding_layer=-4\ntrack_history_size=20\nsim_thresh=0.7\n"
    assert np.array_equal(decode(tmp_path, f"{HEAD}{tracking}", x), decode(tmp_path, HEAD, x))


def test_no_more_than_the_best_candidates_are_kept(tmp_path: Path) -> None:
    x = normal(21, 19, 19)
    expected = best_first(naive_rows(x, ANCHORS))
    assert len(expected) == 1083
    found = decode(tmp_path, HEAD, x)
    assert len(found) == USUAL_CANDIDATES
    assert_same(found, expected[:USUAL_CANDIDATES])


def test_candidates_are_chosen_by_their_best_class_times_objectness(tmp_path: Path) -> None:
    x = np.full((7, 19, 60), -9, np.float32)  # 1140 boxes of one anchor
    x[4, 0, 0], x[5, 0, 0] = 9, -1  # an object of no class
    x[4, 0, 1], x[6, 0, 1] = 2, 2  # better, though each part is worse than the best
    x[4, 0, 2], x[5, 0, 2] = -1, 9  # a class without an object
    found = decode(tmp_path, f"{HEAD}mask=0\n", x)
    np.testing.assert_allclose(found[:3, 4:].max(1), [0.7758, 0.2689, 0.2689], atol=1e-4)


def test_a_box_may_be_of_several_classes_at_once(tmp_path: Path) -> None:
    x = np.full((7, 1, 1), 9, np.float32)
    np.testing.assert_allclose(decode(tmp_path, f"{HEAD}mask=0\n", x)[0, 4:], [1, 1], atol=1e-3)


def test_an_endless_box_stays_in_its_row(tmp_path: Path) -> None:
    x = normal(7, 2, 2)
    x[2, 0, 0] = 200  # exp overflows
    found = decode(tmp_path, f"{HEAD}mask=0\n", x)
    assert np.isinf(found[:, 2]).tolist().count(True) == 1
    assert np.isfinite(found[:, 4:]).all()


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        pytest.param("classes=2", 2, "needs pairs of numbers as 'anchors', found 0 numbers", id="no anchors"),
        pytest.param("anchors=1,2,3", 3, "needs pairs of numbers as 'anchors', found 3 numbers", id="half a pair"),
        pytest.param("anchors=1,2\nmask=1", 4, "mask=[1]: there are 1 anchors, numbered from 0", id="mask too large"),
        pytest.param("anchors=1,2\nmask=-1", 4, "mask=[-1]: there are 1 anchors, numbered from 0", id="negative mask"),
        pytest.param("anchors=1,2\nclasses=0", 4, "classes=0: expected a whole number of 1 or more", id="no class"),
        pytest.param(
            "anchors=1,2\nclasses=3",
            4,
            "1 anchors and classes=3 need 8 channels, but the layer before has 7. "
            "Set its filters=8, or correct 'classes'",
            id="other classes than filters",
        ),
        pytest.param(
            "anchors=1,2",
            2,
            "1 anchors and classes=20 need 25 channels, but the layer before has 7. "
            "Set its filters=25, or correct 'classes'",
            id="20 classes unless told",
        ),
        pytest.param(
            "anchors=1,2\nclasses=2\nnms_kind=cornersnms",
            5,
            "unknown nms_kind=cornersnms: expected one of default, greedynms, diounms",
            id="other suppression",
        ),
        pytest.param(
            "anchors=1,2\nclasses=2\nbeta_nms=0", 5, "beta_nms=0: expected a number above 0", id="beta that ends all"
        ),
    ],
)
def test_a_head_that_cannot_be_is_refused(tmp_path: Path, options: str, line: int, message: str) -> None:
    with pytest.raises(DarknetParseError) as caught:
        build_layers(tmp_path, f"[yolo]\n{options}\n", [normal(7, 2, 2)])
    assert str(caught.value) == f"<cfg>:{line}: [yolo] {message}"


def test_heads_of_different_classes_are_refused(tmp_path: Path) -> None:
    layers = f"{HEAD}[route]\nlayers=0\n[yolo]\nanchors=4,7\nclasses=1\n"
    with pytest.raises(DarknetParseError, match=r":10: \[yolo\] classes=1: an earlier \[yolo\] has 2$"):
        build_layers(tmp_path, layers, [normal(6, 2, 2), normal(21, 2, 2)])


@pytest.mark.parametrize(
    ("layer", "option"),
    [pytest.param("route", "layers", id="route"), pytest.param("shortcut", "from", id="shortcut")],
)
def test_no_layer_can_read_a_heads_values_which_are_not_decoded_yet(tmp_path: Path, layer: str, option: str) -> None:
    layers = f"{HEAD}[route]\nlayers=0\n[{layer}]\n{option}=1\n"
    with pytest.raises(
        DarknetParseError, match=rf"{option}=1: reading the values of a head such as \[yolo\] is not supported$"
    ):
        build_layers(tmp_path, layers, [normal(21, 2, 2)])


# --- [Gaussian_yolo]

GAUSSIAN = HEAD.replace("[yolo]", "[Gaussian_yolo]")  # an input of 3 * (9 + 2) channels


def naive_gaussian_rows(x: FloatArray, *, scale_x_y: float = 1.0, side: int = 0) -> NDArray[np.float64]:
    """Return x1, y1, x2, y2 and the classes' scores: get_gaussian_yolo_box and ..._detections, box by box.

    side: where the placed point is in its box, -1 or 1 at the end or the beginning.
    """
    values, (height, width) = x.shape[0] // len(ANCHORS), x.shape[1:]
    rows = []
    for n, anchor in enumerate(ANCHORS):
        for row in range(height):
            for column in range(width):
                v = x[n * values : (n + 1) * values, row, column].astype(np.float64)
                w, h = np.exp(v[[4, 6]]) * anchor
                offset = sigmoid(v[[0, 2]]) * scale_x_y - 0.5 * (scale_x_y - 1)
                centre_x, centre_y = (np.array([column, row]) + offset) * 32 / np.array([width, height])
                centre_x, centre_y = centre_x + side * w / 2, centre_y + side * h / 2
                scores = sigmoid(v[8]) * sigmoid(v[9:]) * (1 - sigmoid(v[[1, 3, 5, 7]]).mean())
                rows.append([centre_x - w / 2, centre_y - h / 2, centre_x + w / 2, centre_y + h / 2, *scores])
    return np.array(rows)


def test_an_uncertain_box_has_a_lower_score(tmp_path: Path) -> None:
    x = normal(33, 4, 4)
    found = decode(tmp_path, f"{GAUSSIAN}scale_x_y=1.2\nuc_normalizer=0.1\n", x)
    assert_same(found, best_first(naive_gaussian_rows(x, scale_x_y=1.2)))


@pytest.mark.parametrize(("point", "side"), [("center", 0), ("left_top", 1), ("right_bottom", -1)])
def test_a_head_may_place_a_corner(tmp_path: Path, point: str, side: int) -> None:
    x = normal(33, 4, 4)
    found = decode(tmp_path, f"{GAUSSIAN}yolo_point={point}\n", x)
    assert_same(found, best_first(naive_gaussian_rows(x, side=side)))


def test_a_corner_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DarknetParseError) as caught:
        build_layers(tmp_path, f"{GAUSSIAN}yolo_point=top\n", [normal(33, 4, 4)])
    assert str(caught.value) == (
        "<cfg>:6: [Gaussian_yolo] unknown yolo_point=top: expected one of center, left_top, right_bottom"
    )
