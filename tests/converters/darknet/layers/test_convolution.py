import re
from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import build_layers, normal, refusal, run_graph, run_layers, windows

from trtjob.engines.protocol import FloatArray
from trtjob.errors import DarknetWeightsError


def naive_convolution(
    x: FloatArray, kernel: FloatArray, bias: FloatArray, strides: tuple[int, int], padding: int
) -> FloatArray:
    """Darknet's convolutional_layer.c, without its activation, in float64."""
    size = kernel.shape[2]
    out_hw = tuple((side + 2 * padding - size) // step + 1 for side, step in zip(x.shape[1:], strides, strict=True))
    parts = windows(x, size, strides, padding, (out_hw[0], out_hw[1]), 0).astype(np.float64)
    result = np.einsum("chwij,fcij->fhw", parts, kernel.astype(np.float64)) + bias[:, None, None]
    return np.asarray(result, np.float32)


# --- [convolutional]


@pytest.mark.parametrize(
    ("options", "size", "strides", "padding"),
    [
        pytest.param("", 1, (1, 1), 0, id="all defaults"),
        pytest.param("size=3\nstride=1\npad=1", 3, (1, 1), 1, id="3x3"),
        pytest.param("size=3\nstride=2\npad=1", 3, (2, 2), 1, id="3x3, every second"),
        pytest.param("size=3", 3, (1, 1), 0, id="no padding"),
        pytest.param("size=3\npadding=2", 3, (1, 1), 2, id="padding given"),
        pytest.param("size=5\npad=1\npadding=1", 5, (1, 1), 2, id="pad before padding"),
        pytest.param("size=2\nstride=2\npad=1", 2, (2, 2), 1, id="an even size"),
        pytest.param("size=3\nstride_x=3\nstride_y=2\npad=1", 3, (2, 3), 1, id="strides by name"),
        pytest.param("size=3\nstride=2\nstride_x=1\npad=1", 3, (2, 1), 1, id="one stride by name"),
    ],
)
def test_convolution(tmp_path: Path, options: str, size: int, strides: tuple[int, int], padding: int) -> None:
    x, kernel, bias = normal(3, 7, 6), normal(4, 3, size, size, seed=1), normal(4, seed=2)
    layer = f"[convolutional]\nfilters=4\nactivation=linear\n{options}\n"
    result = run_layers(tmp_path, layer, [x], np.concatenate([bias, kernel.ravel()]))
    np.testing.assert_allclose(result, naive_convolution(x, kernel, bias, strides, padding), rtol=1e-4, atol=1e-5)


def test_convolution_has_one_filter_unless_told(tmp_path: Path) -> None:
    assert run_layers(tmp_path, "[convolutional]\n", [normal(3, 2, 2)], normal(4)).shape == (1, 2, 2)


def test_filters_of_a_group_see_its_channels_alone(tmp_path: Path) -> None:
    x, kernel, bias = normal(4, 5, 5), normal(6, 2, 3, 3, seed=1), normal(6, seed=2)
    layer = "[convolutional]\nfilters=6\ngroups=2\nsize=3\npad=1\nactivation=linear\n"
    halves = zip(np.split(x, 2), np.split(kernel, 2), np.split(bias, 2), strict=True)
    expected = np.concatenate([naive_convolution(*half, (1, 1), 1) for half in halves])
    result = run_layers(tmp_path, layer, [x], np.concatenate([bias, kernel.ravel()]))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_dilation_leaves_pixels_out_between_those_of_the_kernel(tmp_path: Path) -> None:
    x, kernel, bias = normal(2, 9, 8), normal(3, 2, 3, 3, seed=1), normal(3, seed=2)
    wide = np.zeros((3, 2, 7, 7), np.float32)
    wide[:, :, ::3, ::3] = kernel
    layer = "[convolutional]\nfilters=3\nsize=3\npad=1\nstride=2\ndilation=3\nactivation=linear\n"
    result = run_layers(tmp_path, layer, [x], np.concatenate([bias, kernel.ravel()]))
    np.testing.assert_allclose(result, naive_convolution(x, wide, bias, (2, 2), 3), rtol=1e-4, atol=1e-5)


def test_dilation_of_one_pixel_changes_nothing(tmp_path: Path) -> None:
    assert run_layers(tmp_path, "[convolutional]\ndilation=2\n", [normal(1, 3, 3)], normal(2)).shape == (1, 3, 3)


@pytest.mark.parametrize("index", ["1", "-2"])
def test_weights_of_an_earlier_layer_are_shared_with_their_normalisation(tmp_path: Path, index: str) -> None:
    x, kernel, statistics = normal(2, 3, 3), normal(2, 2, seed=1), np.abs(normal(4, 2, seed=2))
    layer = "[convolutional]\nfilters=2\nbatch_normalize=1\nactivation=linear\n"
    layers = f"{layer}[route]\nlayers=0\n{layer}share_index={index}\n"
    numbers = np.concatenate([statistics.ravel(), kernel.ravel()])
    net = build_layers(tmp_path, layers, [x], numbers)
    net.weights.finish(3)
    first, second = run_graph(net.graph, {"in_0": x}, [net.outputs[1].name, net.outputs[3].name])
    assert np.array_equal(first, second)


@pytest.mark.parametrize("option", ["batch_normalize=1", "cbn=1", "batch_normalize=0\ncbn=1"])
def test_batch_normalisation_is_part_of_the_convolution(tmp_path: Path, option: str) -> None:
    x, kernel = normal(3, 5, 5), normal(4, 3, 3, 3, seed=1)
    bias, scale, mean = normal(4, seed=2), normal(4, seed=3), normal(4, seed=4)
    # Where a variance is as small as this, the epsilon under the root tells.
    variance = np.array([2.5, 0.3, 1e-5, 0], np.float32)
    numbers = np.concatenate([bias, scale, mean, variance, kernel.ravel()])
    layer = f"[convolutional]\n{option}\nfilters=4\nsize=3\npad=1\nactivation=linear\n"
    plain = naive_convolution(x, kernel, np.zeros(4, np.float32), (1, 1), 1).astype(np.float64)
    factor, shift = (scale / np.sqrt(variance.astype(np.float64) + 1e-5)), bias
    expected = (plain - mean[:, None, None]) * factor[:, None, None] + shift[:, None, None]
    np.testing.assert_allclose(run_layers(tmp_path, layer, [x], numbers), expected, rtol=1e-4, atol=1e-3)


def test_the_activation_comes_after_the_normalisation(tmp_path: Path) -> None:
    layer = "[convolutional]\nbatch_normalize=1\nactivation=relu\n"
    bias, scale, mean, variance, weight = -3.0, 1.0, 0.0, 1.0 - 1e-5, 1.0
    numbers = np.array([bias, scale, mean, variance, weight], np.float32)
    result = run_layers(tmp_path, layer, [np.array([[[1.0, 5.0]]], np.float32)], numbers)
    np.testing.assert_allclose(result, [[[0, 2]]], rtol=1e-5)


def test_the_factor_of_the_input_is_applied_by_the_first_convolution_alone(tmp_path: Path) -> None:
    image, bias_and_weight = np.full((1, 1, 1), 40, np.float32), np.array([0, 3], np.float32)
    layers = "[convolutional]\nactivation=linear\n" * 2
    net = build_layers(tmp_path, layers, [image], np.tile(bias_and_weight, 2), input_scale=0.5)
    (output,) = run_graph(net.graph, {"in_0": image}, [net.outputs[-1].name])
    assert output.item() == 40 * 0.5 * 3 * 3


@pytest.mark.parametrize("difference", [-1, 1])
@pytest.mark.parametrize("batch_normalize", [0, 1])
def test_a_number_too_few_or_too_many_names_the_convolution(
    tmp_path: Path, batch_normalize: int, difference: int
) -> None:
    layer = f"[convolutional]\nbatch_normalize={batch_normalize}\nfilters=4\nsize=3\n"
    numbers = np.ones(4 * (1 + 3 * batch_normalize) + 4 * 2 * 9 + difference, np.float32)
    with pytest.raises(DarknetWeightsError, match=re.escape("layer 1 ([convolutional], line 2 of <cfg>)")):
        run_layers(tmp_path, layer, [normal(2, 5, 5)], numbers)


@pytest.mark.parametrize("name", ["scales", "means", "variances"])
def test_the_place_where_the_numbers_end_is_named(tmp_path: Path, name: str) -> None:
    count = 4 * (["scales", "means", "variances"].index(name) + 2) - 1
    layer = "[convolutional]\nbatch_normalize=1\nfilters=4\n"
    with pytest.raises(DarknetWeightsError, match=f"expected 4 {name}, found 3 "):
        build_layers(tmp_path, layer, [normal(2, 5, 5)], np.ones(count, np.float32))


@pytest.mark.parametrize("name", ["binary", "xnor", "antialiasing", "flipped", "assisted_excitation", "coordconv"])
def test_a_convolution_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    text = refusal(tmp_path, f"[convolutional]\nsize=1\n{name}=1\n", normal(2, 4, 4), numbers=normal(99))
    assert text == f"<cfg>:4: [convolutional] {name}=1 is not supported: expected {name}=0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param("filters=0", "filters=0: expected a whole number of 1 or more", id="no filter"),
        pytest.param("size=0", "size=0: expected a whole number of 1 or more", id="no size"),
        pytest.param("stride=0", "stride=0: expected a whole number of 1 or more", id="no stride"),
        pytest.param("stride_y=0", "stride_y=0: expected a whole number of 1 or more", id="no vertical stride"),
        pytest.param("padding=-1", "padding=-1: expected a whole number of 0 or more", id="negative padding"),
        pytest.param("size=5", "the kernel of 5x5 is larger than its input of 4x6", id="a large kernel"),
        pytest.param(
            "padding=9999", "its output of 20002x20004 is too large: at most 16384 are possible", id="a large padding"
        ),
        pytest.param(
            "groups=2",
            "groups=2: the input's 1 channels and filters=1 cannot both be divided by it",
            id="groups that divide nothing",
        ),
        pytest.param(
            "dilation=2\nsize=3",
            "dilation=2 needs an odd size and a padding of half of it: found size=3, padding=0",
            id="a dilation that Darknet computes another size for",
        ),
        pytest.param(
            "share_index=1",
            "share_index=1: there is no such layer before this one, which is layer 1",
            id="weights of a layer to come",
        ),
        pytest.param(
            "share_index=0",
            "share_index=0: expected a [convolutional] after the first layer that has weights of its own",
            id="weights of a layer that has none",
        ),
    ],
)
def test_a_convolution_that_cannot_be_is_refused(tmp_path: Path, options: str, message: str) -> None:
    text = refusal(tmp_path, f"[convolutional]\n{options}\n", normal(1, 4, 6), numbers=normal(99))
    assert text == f"<cfg>:3: [convolutional] {message}"


def test_shared_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    layers = "[convolutional]\nfilters=2\n[convolutional]\nfilters=3\nshare_index=-1\n"
    text = refusal(tmp_path, layers, normal(2, 4, 4), numbers=normal(99))
    assert text.endswith("share_index=-1: that layer has weights of 2x2x1x1, this one needs 3x2x1x1")


# --- [local]


@pytest.mark.parametrize(
    ("options", "size", "stride", "padding"),
    [
        pytest.param("", 1, 1, 0, id="all defaults"),
        pytest.param("size=3\nstride=1\npad=1", 3, 1, 1, id="3x3"),
        pytest.param("size=3\nstride=2\npad=1", 3, 2, 1, id="3x3, every second"),
        pytest.param("size=2\nstride=2", 2, 2, 0, id="no padding"),
    ],
)
def test_local_has_a_kernel_and_a_bias_for_each_place(
    tmp_path: Path, options: str, size: int, stride: int, padding: int
) -> None:
    x = normal(3, 5, 4)
    height, width = ((side + 2 * padding - size) // stride + 1 for side in x.shape[1:])
    bias, kernels = normal(2, height, width, seed=1), normal(height, width, 2, 3, size, size, seed=2)
    layer = f"[local]\nfilters=2\nactivation=linear\n{options}\n"
    result = run_layers(tmp_path, layer, [x], np.concatenate([bias.ravel(), kernels.ravel()]))
    parts = windows(x, size, (stride, stride), padding, (height, width), 0)
    expected = np.einsum("chwij,hwfcij->fhw", parts, kernels) + bias
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        pytest.param("size=5\npad=1", 4, "pad=1 pads one pixel, which needs size=3: found size=5", id="padding"),
        pytest.param("size=5", 3, "the kernel of 5x5 is larger than its input of 4x6", id="a large kernel"),
    ],
)
def test_a_local_that_cannot_be_is_refused(tmp_path: Path, options: str, line: int, message: str) -> None:
    assert refusal(tmp_path, f"[local]\n{options}\n", normal(1, 4, 6)) == f"<cfg>:{line}: [local] {message}"
