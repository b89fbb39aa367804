import re
from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import build_layers, normal, run_graph, run_layers

from trtjob.converters.darknet.layers import LAYERS
from trtjob.engines.protocol import FloatArray
from trtjob.errors import DarknetParseError, DarknetWeightsError

PADDED = np.float32(-np.inf)


def windows(
    x: FloatArray, size: int, stride: int, before: int, out_hw: tuple[int, int], fill: np.float32
) -> FloatArray:
    """Return each window of a padded input: [channels, out height, out width, size, size]."""
    after = size + stride * max(out_hw)
    padded = np.pad(x, ((0, 0), (before, after), (before, after)), constant_values=fill)
    rows = [
        [padded[:, i * stride : i * stride + size, j * stride : j * stride + size] for j in range(out_hw[1])]
        for i in range(out_hw[0])
    ]
    return np.array(rows).transpose(2, 0, 1, 3, 4)


def naive_convolution(x: FloatArray, kernel: FloatArray, bias: FloatArray, stride: int, padding: int) -> FloatArray:
    """Darknet's convolutional_layer.c, without its activation, in float64."""
    size = kernel.shape[2]
    out_hw = tuple((side + 2 * padding - size) // stride + 1 for side in x.shape[1:])
    parts = windows(x, size, stride, padding, (out_hw[0], out_hw[1]), np.float32(0)).astype(np.float64)
    result = np.einsum("chwij,fcij->fhw", parts, kernel.astype(np.float64)) + bias[:, None, None]
    return np.asarray(result, np.float32)


def naive_maxpool(x: FloatArray, size: int, stride: int, padding: int) -> FloatArray:
    """Darknet's maxpool_layer.c: windows begin at -padding / 2, rounded to zero; outside is less than anything."""
    out_hw = tuple((side + padding - size) // stride + 1 for side in x.shape[1:])
    return np.asarray(windows(x, size, stride, padding // 2, (out_hw[0], out_hw[1]), PADDED).max((3, 4)), np.float32)


def refusal(folder: Path, layers: str, *inputs: FloatArray, numbers: FloatArray | None = None) -> str:
    """Return the text with which layers are refused; their first line is line 2, their options begin in line 3."""
    with pytest.raises(DarknetParseError) as caught:
        build_layers(folder, layers, inputs, numbers)
    return str(caught.value)


# --- [convolutional]


@pytest.mark.parametrize(
    ("options", "size", "stride", "padding"),
    [
        pytest.param("", 1, 1, 0, id="all defaults"),
        pytest.param("size=3\nstride=1\npad=1", 3, 1, 1, id="3x3"),
        pytest.param("size=3\nstride=2\npad=1", 3, 2, 1, id="3x3, every second"),
        pytest.param("size=3", 3, 1, 0, id="no padding"),
        pytest.param("size=3\npadding=2", 3, 1, 2, id="padding given"),
        pytest.param("size=5\npad=1\npadding=1", 5, 1, 2, id="pad before padding"),
        pytest.param("size=2\nstride=2\npad=1", 2, 2, 1, id="an even size"),
        pytest.param("size=3\nstride=2\nstride_x=2\nstride_y=2\npad=1", 3, 2, 1, id="equal strides by name"),
    ],
)
def test_convolution(tmp_path: Path, options: str, size: int, stride: int, padding: int) -> None:
    x, kernel, bias = normal(3, 7, 6), normal(4, 3, size, size, seed=1), normal(4, seed=2)
    layer = f"[convolutional]\nfilters=4\nactivation=linear\n{options}\n"
    result = run_layers(tmp_path, layer, [x], np.concatenate([bias, kernel.ravel()]))
    np.testing.assert_allclose(result, naive_convolution(x, kernel, bias, stride, padding), rtol=1e-4, atol=1e-5)


def test_convolution_has_one_filter_unless_told(tmp_path: Path) -> None:
    assert run_layers(tmp_path, "[convolutional]\n", [normal(3, 2, 2)], normal(4)).shape == (1, 2, 2)


def test_batch_normalisation_is_part_of_the_convolution(tmp_path: Path) -> None:
    x, kernel = normal(3, 5, 5), normal(4, 3, 3, 3, seed=1)
    bias, scale, mean = normal(4, seed=2), normal(4, seed=3), normal(4, seed=4)
    # Where a variance is as small as this, the epsilon under the root tells.
    variance = np.array([2.5, 0.3, 1e-5, 0], np.float32)
    numbers = np.concatenate([bias, scale, mean, variance, kernel.ravel()])
    layer = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\nactivation=linear\n"
    plain = naive_convolution(x, kernel, np.zeros(4, np.float32), 1, 1).astype(np.float64)
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


@pytest.mark.parametrize(
    ("option", "neutral"),
    [
        ("groups=2", "groups=1"),
        ("dilation=2", "dilation=1"),
        ("binary=1", "binary=0"),
        ("xnor=1", "xnor=0"),
        ("antialiasing=1", "antialiasing=0"),
        ("flipped=1", "flipped=0"),
        ("assisted_excitation=4", "assisted_excitation=0"),
        ("coordconv=1", "coordconv=0"),
        ("share_index=-2", "share_index=-1000000000"),
        ("share_index=0", "share_index=-1000000000"),
        ("stride_x=2", "stride_x=1"),
        ("stride_y=2", "stride_y=1"),
    ],
)
def test_a_convolution_of_another_kind_is_refused(tmp_path: Path, option: str, neutral: str) -> None:
    text = refusal(tmp_path, f"[convolutional]\nsize=1\n{option}\n", normal(2, 4, 4), numbers=normal(99))
    assert text == f"<cfg>:4: [convolutional] {option} is not supported: expected {neutral}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param("filters=0", "filters=0: expected a whole number of 1 or more", id="no filter"),
        pytest.param("size=0", "size=0: expected a whole number of 1 or more", id="no size"),
        pytest.param("stride=0", "stride=0: expected a whole number of 1 or more", id="no stride"),
        pytest.param("padding=-1", "padding=-1: expected a whole number of 0 or more", id="negative padding"),
        pytest.param("size=5", "the kernel of 5x5 is larger than its input of 4x6", id="a large kernel"),
        pytest.param(
            "padding=9999", "its output of 20002x20004 is too large: at most 16384 are possible", id="a large padding"
        ),
    ],
)
def test_a_convolution_that_cannot_be_is_refused(tmp_path: Path, options: str, message: str) -> None:
    text = refusal(tmp_path, f"[convolutional]\n{options}\n", normal(1, 4, 6), numbers=normal(99))
    assert text == f"<cfg>:3: [convolutional] {message}"


# --- [maxpool]


@pytest.mark.parametrize("hw", [pytest.param((6, 8), id="even input"), pytest.param((7, 5), id="odd input")])
@pytest.mark.parametrize(
    ("options", "size", "stride", "padding"),
    [
        pytest.param("size=2\nstride=2", 2, 2, 1, id="halves"),
        pytest.param("stride=2", 2, 2, 1, id="the size is the stride"),
        pytest.param("size=2\nstride=1", 2, 1, 1, id="2x2, pads at the end only"),
        pytest.param("size=3\nstride=2", 3, 2, 2, id="3x3"),
        pytest.param("size=5\nstride=1", 5, 1, 4, id="5x5, as in SPP"),
        pytest.param("size=9\nstride=1", 9, 1, 8, id="9x9, larger than its input"),
        pytest.param("size=4\nstride=2", 4, 2, 3, id="an odd padding"),
        pytest.param("size=3\nstride=2\npadding=0", 3, 2, 0, id="no padding"),
        pytest.param("size=2\nstride=2\npadding=2", 2, 2, 2, id="a padding on both sides"),
        pytest.param("size=2\nstride=3", 2, 3, 1, id="gaps"),
        pytest.param("", 1, 1, 0, id="all defaults"),
    ],
)
def test_maxpool(tmp_path: Path, hw: tuple[int, int], options: str, size: int, stride: int, padding: int) -> None:
    x = normal(2, *hw) - 10  # all below zero: padding with 0 would be seen
    result = run_layers(tmp_path, f"[maxpool]\n{options}\n", [x])
    assert np.array_equal(result, naive_maxpool(x, size, stride, padding))


@pytest.mark.parametrize("option", ["maxpool_depth=1", "antialiasing=1", "maxpool_zero_nonmax=1"])
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
def test_a_maxpool_that_cannot_be_is_refused(tmp_path: Path, options: str, message: str) -> None:
    assert refusal(tmp_path, f"[maxpool]\n{options}\n", normal(1, 4, 6)) == f"<cfg>:3: [maxpool] {message}"


def test_a_padding_that_no_window_falls_into_whole_is_taken(tmp_path: Path) -> None:
    # The padding of 3 is two at the end, but no window reaches the last one.
    x = normal(1, 4, 4)
    result = run_layers(tmp_path, "[maxpool]\nsize=2\nstride=2\npadding=3\n", [x])
    assert np.array_equal(result, naive_maxpool(x, 2, 2, 3))


# --- [route]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        pytest.param("layers=-1", [2], id="the layer before"),
        pytest.param("layers=0", [0], id="the first layer"),
        pytest.param("layers=-1,-3", [2, 0], id="two, in the order given"),
        pytest.param("layers = 1, -3, 1, 2", [1, 0, 1, 2], id="four, one of them twice"),
    ],
)
def test_route_puts_channels_one_after_the_other(tmp_path: Path, options: str, numbers: list[int]) -> None:
    inputs = [normal(channels, 3, 2, seed=channels) for channels in (2, 3, 4)]
    expected = np.concatenate([inputs[number] for number in numbers])
    assert np.array_equal(run_layers(tmp_path, f"[route]\n{options}\n", inputs), expected)


@pytest.mark.parametrize("group", [0, 1])
def test_route_takes_a_group_of_each_input(tmp_path: Path, group: int) -> None:
    four, six = normal(4, 3, 2), normal(6, 3, 2, seed=1)
    result = run_layers(tmp_path, f"[route]\nlayers=-1,0\ngroups=2\ngroup_id={group}\n", [four, six])
    expected = np.concatenate([np.split(six, 2)[group], np.split(four, 2)[group]])
    assert np.array_equal(result, expected)


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        pytest.param("", 2, "needs the option 'layers', such as layers=-1,8", id="no layers"),
        pytest.param(
            "layers=-3", 3, "layers=-3: there is no such layer before this one, which is layer 2", id="before"
        ),
        pytest.param("layers=2", 3, "layers=2: there is no such layer before this one, which is layer 2", id="itself"),
        pytest.param("layers=0,1", 3, "its inputs differ in size: 3x2, 4x4", id="sizes"),
        pytest.param("layers=x", 3, "layers=x: expected a whole number", id="no number"),
        pytest.param("layers=0,,1", 3, "layers=0,,1: a number is missing beside a comma", id="a gap"),
        pytest.param(
            "layers=0\ngroups=2", 4, "groups=2: the input's 3 channels cannot be divided by it", id="odd channels"
        ),
        pytest.param(
            "layers=0\ngroups=3\ngroup_id=3", 5, "group_id=3: expected less than groups=3", id="no such group"
        ),
    ],
)
def test_a_route_that_cannot_be_is_refused(tmp_path: Path, options: str, line: int, message: str) -> None:
    text = refusal(tmp_path, f"[route]\n{options}\n", normal(3, 3, 2), normal(3, 4, 4))
    assert text == f"<cfg>:{line}: [route] {message}"


# --- [shortcut]


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


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        pytest.param("", 2, "needs the option 'from', such as from=-3", id="no from"),
        pytest.param("from=-3", 3, "from=-3: there is no such layer before this one, which is layer 2", id="before"),
        pytest.param(
            "from=0", 3, "from=0: adding layers of different shapes, 3x4x4 and 2x4x4, is not supported", id="channels"
        ),
        pytest.param(
            "from=-1\nweights_type=per_feature",
            4,
            "weights_type=per_feature is not supported: expected weights_type=none",
            id="weights",
        ),
    ],
)
def test_a_shortcut_that_cannot_be_is_refused(tmp_path: Path, options: str, line: int, message: str) -> None:
    text = refusal(tmp_path, f"[shortcut]\n{options}\n", normal(2, 4, 4), normal(3, 4, 4))
    assert text == f"<cfg>:{line}: [shortcut] {message}"


# --- [upsample]


@pytest.mark.parametrize(
    ("options", "stride"),
    [
        pytest.param("", 2, id="twice unless told"),
        pytest.param("stride=1", 1, id="once"),
        pytest.param("stride=2", 2, id="twice"),
        pytest.param("stride=3", 3, id="three times"),
    ],
)
def test_upsample_repeats_each_pixel(tmp_path: Path, options: str, stride: int) -> None:
    x = normal(2, 3, 5)
    result = run_layers(tmp_path, f"[upsample]\n{options}\n", [x])
    assert np.array_equal(result, x.repeat(stride, 1).repeat(stride, 2))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param("scale=2", "scale=2 is not supported: expected scale=1", id="scale"),
        pytest.param("stride=-2", "stride=-2: expected a whole number of 1 or more", id="shrinks"),
        pytest.param(
            "stride=8000", "its output of 16000x24000 is too large: at most 16384 are possible", id="fills the memory"
        ),
    ],
)
def test_an_upsample_that_cannot_be_is_refused(tmp_path: Path, option: str, message: str) -> None:
    assert refusal(tmp_path, f"[upsample]\n{option}\n", normal(1, 2, 3)) == f"<cfg>:3: [upsample] {message}"


def test_layers_without_weights_take_none(tmp_path: Path) -> None:
    layers = "[maxpool]\n[route]\nlayers=-1\n[shortcut]\nfrom=-1\n[upsample]\n"
    net = build_layers(tmp_path, layers, [normal(1, 2, 2)])
    with pytest.raises(DarknetWeightsError, match="1 numbers are left over after the header"):
        net.weights.finish(4)


def test_every_layer_is_tested_here_or_beside() -> None:
    beside = {"yolo"}  # test_yolo.py
    assert set(LAYERS) == {"convolutional", "maxpool", "route", "shortcut", "upsample"} | beside
