from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import normal, refusal, run_layers

from trtjob.engines.protocol import FloatArray


def test_batchnorm_begins_with_its_bias(tmp_path: Path) -> None:
    x, bias, scale, mean = normal(3, 2, 4), *normal(3, 3, seed=1)
    variance = np.array([0.5, 2, 1e-5], np.float32)
    result = run_layers(tmp_path, "[batchnorm]\n", [x], np.concatenate([bias, scale, mean, variance]))
    columns = (part[:, None, None] for part in (mean, np.sqrt(variance + 1e-5), scale, bias))
    m, deviation, s, b = columns
    np.testing.assert_allclose(result, (x - m) / deviation * s + b, rtol=1e-4, atol=1e-4)


def naive_normalization(x: FloatArray, size: int, alpha: float, beta: float, kappa: float) -> FloatArray:
    """normalization_layer.c, channel by channel, its window one square short at the start."""
    squares, norms = x.astype(np.float64) ** 2, np.zeros(x.shape)
    norms[0] = kappa + alpha * squares[: size // 2].sum(0)
    for k in range(1, len(x)):
        norms[k] = norms[k - 1]
        before, after = k - (size - 1) // 2 - 1, k + size // 2
        if before >= 0:
            norms[k] -= alpha * squares[before]
        if after < len(x):
            norms[k] += alpha * squares[after]
    return np.asarray(x * norms**-beta, np.float32)


@pytest.mark.parametrize(
    ("options", "size", "alpha", "beta", "kappa"),
    [
        pytest.param("", 5, 1e-4, 0.75, 1, id="all defaults"),
        pytest.param("size=3\nalpha=0.1\nbeta=0.5\nkappa=4", 3, 0.1, 0.5, 4, id="three channels"),
        pytest.param("size=4\nalpha=0.05\nkappa=3", 4, 0.05, 0.75, 3, id="an even size"),
        pytest.param("size=1\nalpha=0.1\nkappa=9", 1, 0.1, 0.75, 9, id="a channel alone"),
    ],
)
def test_normalization_divides_by_the_neighbours_squares(
    tmp_path: Path, options: str, size: int, alpha: float, beta: float, kappa: float
) -> None:
    x = normal(9, 2, 3)
    expected = naive_normalization(x, size, alpha, beta, kappa)
    result = run_layers(tmp_path, f"[normalization]\n{options}\n", [x])
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)


def test_a_normalization_over_more_channels_than_there_are_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, "[normalization]\nsize=9\n", normal(3, 2, 2))
    assert text == "<cfg>:3: [normalization] size=9: half of it is more than the input's 3 channels"


def test_a_normalization_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, "[normalization]\n", np.zeros((5000, 1, 1), np.float32))
    assert text == "<cfg>:2: [normalization] its input has 5000 channels: at most 4096 are possible"
