from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import normal, refusal, run_layers

from trtjob.engines.protocol import FloatArray


def test_shortcut_adds_an_earlier_layer(tmp_path: Path) -> None:
    inputs = [normal(2, 3, 4, seed=seed) for seed in range(3)]
    assert np.array_equal(run_layers(tmp_path, "[shortcut]\nfrom=-3\n", inputs), inputs[2] + inputs[0])


def test_shortcut_adds_several_layers(tmp_path: Path) -> None:
    inputs = [normal(2, 3, 4, seed=seed) for seed in range(3)]
    result = run_layers(tmp_path, "[shortcut]\nfrom=-3,1\n", inputs)
    np.testing.assert_allclose(result, sum(inputs), rtol=1e-6)


def test_shortcut_activates_the_sum(tmp_path: Path) -> None:
    inputs = [np.full((1, 1, 1), value, np.float32) for value in (-3, 2)]
    result = run_layers(tmp_path, "[shortcut]\nfrom=-2\nactivation=relu\n", inputs)
    assert result.item() == 0


def naive_sum(x: FloatArray, other: FloatArray) -> FloatArray:
    """pjreddie's shortcut_cpu in blas.c, pixel by pixel."""
    y = x.copy()
    stride, spread = max(1, other.shape[1] // x.shape[1]), max(1, x.shape[1] // other.shape[1])
    channels, height, width = (min(a, b) for a, b in zip(x.shape, other.shape, strict=True))
    for i in range(height):
        for j in range(width):
            y[:channels, i * spread, j * spread] += other[:channels, i * stride, j * stride]
    return y


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((2, 4, 6), id="fewer channels"),
        pytest.param((5, 4, 6), id="more channels"),
        pytest.param((3, 8, 12), id="twice as large"),
        pytest.param((2, 9, 13), id="a little more than twice as large"),
        pytest.param((5, 2, 3), id="half as large"),
        pytest.param((3, 5, 7), id="a little larger"),
        pytest.param((3, 3, 5), id="a little smaller"),
    ],
)
def test_a_layer_of_another_shape_is_sampled_or_spread_and_its_first_channels_added(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    x, other = normal(3, 4, 6), normal(*shape, seed=1)
    result = run_layers(tmp_path, "[shortcut]\nfrom=-2\n", [other, x])
    assert np.array_equal(result, naive_sum(x, other))


def test_a_smaller_layer_need_not_divide_the_larger(tmp_path: Path) -> None:
    x, other = normal(1, 7, 5), normal(1, 3, 2, seed=1)
    assert np.array_equal(run_layers(tmp_path, "[shortcut]\nfrom=-2\n", [other, x]), naive_sum(x, other))


# --- weights


def relu_shares(weights: FloatArray) -> FloatArray:
    """fuse_conv_batchnorm in network.c: nothing is less than 0.001."""
    return np.asarray(np.maximum(weights, 1e-3) / (np.maximum(weights, 1e-3).sum(0) + 1e-4), np.float32)


def softmax_shares(weights: FloatArray) -> FloatArray:
    powers = np.exp(weights - weights.max(0))
    return np.asarray(powers / (powers.sum(0) + 1e-4), np.float32)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param("per_feature", 1, id="one for each layer"),
        pytest.param("per_layer", 1, id="the same by another name"),
        pytest.param("per_channel", 3, id="one for each channel"),
    ],
)
@pytest.mark.parametrize("normalization", ["none", "relu", "avg_relu", "softmax"])
def test_the_terms_may_be_weighted(tmp_path: Path, kind: str, count: int, normalization: str) -> None:
    inputs, weights = [normal(3, 2, 4, seed=seed) for seed in range(3)], normal(3, count, seed=5)
    layer = f"[shortcut]\nfrom=-3,-2\nweights_type={kind}\nweights_normalization={normalization}\n"
    result = run_layers(tmp_path, layer, inputs, weights.ravel())
    shares = {"none": lambda w: w, "softmax": softmax_shares}.get(normalization, relu_shares)(weights)
    terms = zip((inputs[2], inputs[0], inputs[1]), shares[:, :, None, None], strict=True)
    np.testing.assert_allclose(result, sum(x * w for x, w in terms), rtol=1e-4, atol=1e-5)


def test_weights_of_channels_that_a_layer_has_not_are_left_out(tmp_path: Path) -> None:
    x, other, weights = normal(3, 2, 2), normal(2, 2, 2, seed=1), normal(2, 3, seed=2)
    layer = "[shortcut]\nfrom=-2\nweights_type=per_channel\n"
    result = run_layers(tmp_path, layer, [other, x], weights.ravel())
    expected = x * weights[0][:, None, None]
    expected[:2] += other * weights[1][:2, None, None]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        pytest.param("", 2, "needs the option 'from', such as from=-3", id="no from"),
        pytest.param("from=-3", 3, "from=-3: there is no such layer before this one, which is layer 2", id="before"),
        pytest.param(
            "from=0",
            3,
            "cannot add layers of which height and width differ in other ratios: 4x8 to 4x4",
            id="other ratios",
        ),
        pytest.param(
            "from=-1\nweights_type=all",
            4,
            "unknown weights_type=all: expected one of none, per_feature, per_layer, per_channel",
            id="weights",
        ),
        pytest.param(
            "from=-1\nweights_normalization=l2",
            4,
            "unknown weights_normalization=l2: expected one of none, relu, avg_relu, softmax",
            id="normalisation",
        ),
        pytest.param("from=-1\nalpha=2", 4, "alpha=2 is not supported: expected alpha=1", id="a factor"),
    ],
)
def test_a_shortcut_that_cannot_be_is_refused(tmp_path: Path, options: str, line: int, message: str) -> None:
    text = refusal(tmp_path, f"[shortcut]\n{options}\n", normal(2, 4, 8), normal(3, 4, 4))
    assert text == f"<cfg>:{line}: [shortcut] {message}"
