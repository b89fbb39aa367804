from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import normal, refusal, run_layers

from trtjob.engines.protocol import FloatArray

# --- [upsample]


@pytest.mark.parametrize(
    ("options", "stride", "scale"),
    [
        pytest.param("", 2, 1, id="twice unless told"),
        pytest.param("stride=1", 1, 1, id="once"),
        pytest.param("stride=2", 2, 1, id="twice"),
        pytest.param("stride=3", 3, 1, id="three times"),
        pytest.param("stride=2\nscale=0.25", 2, 0.25, id="each pixel a quarter of it"),
    ],
)
def test_upsample_repeats_each_pixel(tmp_path: Path, options: str, stride: int, scale: float) -> None:
    x = normal(2, 3, 5)
    result = run_layers(tmp_path, f"[upsample]\n{options}\n", [x])
    assert np.array_equal(result, scale * x.repeat(stride, 1).repeat(stride, 2))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param("stride=-2", "stride=-2: expected a whole number of 1 or more", id="shrinks"),
        pytest.param(
            "stride=8000", "its output of 16000x24000 is too large: at most 16384 are possible", id="fills the memory"
        ),
    ],
)
def test_an_upsample_that_cannot_be_is_refused(tmp_path: Path, option: str, message: str) -> None:
    assert refusal(tmp_path, f"[upsample]\n{option}\n", normal(1, 2, 3)) == f"<cfg>:3: [upsample] {message}"


# --- [reorg] and [reorg3d]


def naive_reorg(x: FloatArray, whc: tuple[int, int, int], stride: int, *, forward: bool) -> FloatArray:
    """reorg_cpu in blas.c, value by value: what it makes of the memory, as a flat array."""
    width, height, channels = whc
    few, y = channels // stride**2, np.zeros(x.size, np.float32)
    for k in range(channels):
        for j in range(height):
            for i in range(width):
                index = i + width * (j + height * k)
                offset = k // few
                column, row = i * stride + offset % stride, j * stride + offset // stride
                other = column + width * stride * (row + height * stride * (k % few))
                if forward:
                    y[other] = x.ravel()[index]
                else:
                    y[index] = x.ravel()[other]
    return y


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_reorg_takes_the_shape_of_the_input_for_the_outputs(tmp_path: Path, stride: int, reverse: bool) -> None:
    x = normal(8, 4, 6)
    result = run_layers(tmp_path, f"[reorg]\nstride={stride}\nreverse={int(reverse)}\n", [x])
    assert np.array_equal(result.ravel(), naive_reorg(x, (6, 4, 8), stride, forward=reverse))
    wanted = (8 // stride**2, 4 * stride, 6 * stride) if reverse else (8 * stride**2, 4 // stride, 6 // stride)
    assert result.shape == wanted


def test_reorg_may_add_zeros_to_a_vector(tmp_path: Path) -> None:
    x = normal(1, 2, 3)
    result = run_layers(tmp_path, "[reorg]\nextra=2\nstride=1\n", [x])
    assert np.array_equal(result[:, 0, 0], [*x.ravel(), 0, 0])


def test_reorg3d_puts_the_pixels_of_a_block_into_channels(tmp_path: Path) -> None:
    x = normal(3, 4, 6)
    result = run_layers(tmp_path, "[reorg3d]\nstride=2\n", [x])
    assert np.array_equal(result.ravel(), naive_reorg(x, (3, 2, 12), 2, forward=False))
    assert np.array_equal(result[3:6], x[:, ::2, 1::2])  # the second pixel of each block's first row


def test_reorg3d_in_reverse_takes_the_shape_of_the_output_for_the_inputs(tmp_path: Path) -> None:
    x = normal(16, 2, 3)
    result = run_layers(tmp_path, "[reorg3d]\nstride=2\nreverse=1\n", [x])
    assert np.array_equal(result.ravel(), naive_reorg(x, (6, 4, 4), 2, forward=True))
    assert result.shape == (4, 4, 6)


@pytest.mark.parametrize(
    ("layer", "line", "message"),
    [
        pytest.param(
            "[reorg]\nstride=2\n",
            3,
            "[reorg] stride=2 does not divide its input of 6x4x4 into whole blocks",
            id="channels",
        ),
        pytest.param(
            "[reorg3d]\nstride=3\n",
            3,
            "[reorg3d] stride=3 does not divide its input of 6x4x4 into whole blocks",
            id="pixels",
        ),
        pytest.param(
            "[reorg]\nstride=2\nreverse=1\n",
            3,
            "[reorg] stride=2 does not divide its input of 6x4x4 into whole blocks",
            id="channels, in reverse",
        ),
        pytest.param(
            "[reorg]\nextra=20000\n",
            3,
            "[reorg] its output of 20000x1 is too large: at most 16384 are possible",
            id="fills the memory",
        ),
        pytest.param("[reorg]\nflatten=1\n", 3, "[reorg] flatten=1 is not supported: expected flatten=0", id="flat"),
    ],
)
def test_a_reorg_that_cannot_be_is_refused(tmp_path: Path, layer: str, line: int, message: str) -> None:
    assert refusal(tmp_path, layer, normal(6, 4, 4)) == f"<cfg>:{line}: {message}"


# --- [crop]


def test_crop_takes_the_middle_from_minus_one_to_one(tmp_path: Path) -> None:
    x = normal(3, 8, 7)
    result = run_layers(tmp_path, "[crop]\ncrop_height=5\ncrop_width=4\n", [x])
    np.testing.assert_allclose(result, 2 * x[:, 1:6, 1:5] - 1, rtol=1e-5, atol=1e-6)


def test_crop_keeps_the_values_where_it_is_told(tmp_path: Path) -> None:
    x = normal(3, 8, 7)
    assert np.array_equal(run_layers(tmp_path, "[crop]\ncrop_height=8\ncrop_width=7\nnoadjust=1\n", [x]), x)


def test_a_crop_larger_than_its_input_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, "[crop]\ncrop_height=9\ncrop_width=7\n", normal(3, 8, 7))
    assert text == "<cfg>:3: [crop] 9x7 cannot be cut out of 8x7"
