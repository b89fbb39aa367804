from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import normal, refusal, run_layers, windows

from trtjob.engines.protocol import FloatArray

WINDOWS = [
    pytest.param("size=2\nstride=2", 2, (2, 2), 1, id="halves"),
    pytest.param("stride=2", 2, (2, 2), 1, id="the size is the stride"),
    pytest.param("size=2\nstride=1", 2, (1, 1), 1, id="2x2, pads at the end only"),
    pytest.param("size=3\nstride=2", 3, (2, 2), 2, id="3x3"),
    pytest.param("size=5\nstride=1", 5, (1, 1), 4, id="5x5, as in SPP"),
    pytest.param("size=9\nstride=1", 9, (1, 1), 8, id="9x9, larger than its input"),
    pytest.param("size=4\nstride=2", 4, (2, 2), 3, id="an odd padding"),
    pytest.param("size=3\nstride=2\npadding=0", 3, (2, 2), 0, id="no padding"),
    pytest.param("size=2\nstride=2\npadding=2", 2, (2, 2), 2, id="a padding on both sides"),
    pytest.param("size=2\nstride=3", 2, (3, 3), 1, id="gaps"),
    pytest.param("size=3\nstride_x=1\nstride_y=2", 3, (2, 1), 2, id="strides by name"),
    pytest.param("", 1, (1, 1), 0, id="all defaults"),
]


def pooled(x: FloatArray, size: int, strides: tuple[int, int], padding: int) -> FloatArray:
    """Return the windows of maxpool_layer.c: they begin at -padding / 2, rounded to zero; outside is not a number."""
    out_hw = tuple((side + padding - size) // step + 1 for side, step in zip(x.shape[1:], strides, strict=True))
    return windows(x, size, strides, padding // 2, (out_hw[0], out_hw[1]), np.nan)


@pytest.mark.parametrize("hw", [pytest.param((6, 8), id="even input"), pytest.param((7, 5), id="odd input")])
@pytest.mark.parametrize(("options", "size", "strides", "padding"), WINDOWS)
def test_maxpool(
    tmp_path: Path, hw: tuple[int, int], options: str, size: int, strides: tuple[int, int], padding: int
) -> None:
    x = normal(2, *hw) - 10  # all below zero: padding with 0 would be seen
    result = run_layers(tmp_path, f"[maxpool]\n{options}\n", [x])
    assert np.array_equal(result, np.nanmax(pooled(x, size, strides, padding), (3, 4)))


@pytest.mark.parametrize("hw", [pytest.param((6, 8), id="even input"), pytest.param((7, 5), id="odd input")])
@pytest.mark.parametrize(("options", "size", "strides", "padding"), WINDOWS)
def test_local_avgpool_is_the_mean_of_the_pixels_inside(
    tmp_path: Path, hw: tuple[int, int], options: str, size: int, strides: tuple[int, int], padding: int
) -> None:
    x = normal(2, *hw)
    result = run_layers(tmp_path, f"[local_avgpool]\n{options}\n", [x])
    np.testing.assert_allclose(result, np.nanmean(pooled(x, size, strides, padding), (3, 4)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("option", ["antialiasing=1", "maxpool_zero_nonmax=1"])
def test_a_maxpool_of_another_kind_is_refused(tmp_path: Path, option: str) -> None:
    text = refusal(tmp_path, f"[maxpool]\n{option}\n", normal(2, 4, 4))
    assert text == f"<cfg>:3: [maxpool] {option} is not supported: expected {option[:-1]}0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param("size=7\npadding=0", "the window of 7x7 is larger than its input of 4x6", id="large window"),
        pytest.param("padding=2\nsize=1", "padding=2: some windows of 1 would hold nothing but padding", id="before"),
        pytest.param("padding=3\nsize=2", "padding=3: some windows of 2 would hold nothing but padding", id="after"),
        pytest.param("stride=0", "stride=0: expected a whole number of 1 or more", id="no stride"),
    ],
)
@pytest.mark.parametrize("kind", ["maxpool", "local_avgpool"])
def test_a_pool_that_cannot_be_is_refused(tmp_path: Path, kind: str, options: str, message: str) -> None:
    assert refusal(tmp_path, f"[{kind}]\n{options}\n", normal(1, 4, 6)) == f"<cfg>:3: [{kind}] {message}"


def test_a_padding_that_no_window_falls_into_whole_is_taken(tmp_path: Path) -> None:
    # The padding of 3 is two at the end, but no window reaches the last one.
    x = normal(1, 4, 4)
    result = run_layers(tmp_path, "[maxpool]\nsize=2\nstride=2\npadding=3\n", [x])
    assert np.array_equal(result, np.nanmax(pooled(x, 2, (2, 2), 3), (3, 4)))


def test_maxpool_depth_takes_the_largest_of_channels_that_are_so_many_apart(tmp_path: Path) -> None:
    x = normal(6, 3, 2)
    result = run_layers(tmp_path, "[maxpool]\nmaxpool_depth=1\nout_channels=2\n", [x])
    assert np.array_equal(result, np.stack([x[::2].max(0), x[1::2].max(0)]))


def test_maxpool_depth_over_a_part_of_the_channels_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, "[maxpool]\nmaxpool_depth=1\nout_channels=4\n", normal(6, 3, 2))
    assert text == "<cfg>:4: [maxpool] out_channels=4: the input's 6 channels cannot be divided by it"


def test_avgpool_is_the_mean_of_each_channel(tmp_path: Path) -> None:
    x = normal(4, 3, 5)
    result = run_layers(tmp_path, "[avgpool]\n", [x])
    np.testing.assert_allclose(result[:, 0, 0], x.mean((1, 2)), rtol=1e-5, atol=1e-6)
