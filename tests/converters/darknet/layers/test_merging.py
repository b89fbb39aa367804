from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import normal, refusal, run_layers

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


# --- [scale_channels] and [sam]


def test_scale_channels_weights_the_channels_of_an_earlier_layer(tmp_path: Path) -> None:
    image, weights = normal(3, 4, 5), normal(3, 1, 1, seed=1)
    result = run_layers(tmp_path, "[scale_channels]\nfrom=-2\nactivation=relu\n", [image, weights])
    np.testing.assert_allclose(result, np.maximum(image * weights, 0), rtol=1e-6)


def test_scale_channels_may_weight_the_places_instead(tmp_path: Path) -> None:
    image, weights = normal(3, 4, 5), normal(1, 4, 5, seed=1)
    result = run_layers(tmp_path, "[scale_channels]\nfrom=0\nscale_wh=1\n", [image, weights])
    np.testing.assert_allclose(result, image * weights, rtol=1e-6)


def test_sam_is_the_product_with_an_earlier_layer(tmp_path: Path) -> None:
    image, weights = normal(3, 4, 5), normal(3, 4, 5, seed=1)
    result = run_layers(tmp_path, "[sam]\nfrom=-2\nactivation=leaky\n", [image, weights])
    product = image * weights
    np.testing.assert_allclose(result, np.where(product > 0, product, 0.1 * product), rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "line", "message"),
    [
        pytest.param("[sam]\n", 2, "[sam] needs one layer as 'from', such as from=-3", id="no layer"),
        pytest.param("[sam]\nfrom=-1,-2\n", 3, "[sam] needs one layer as 'from', such as from=-3", id="two layers"),
        pytest.param(
            "[sam]\nfrom=-3\n",
            3,
            "[sam] from=-3: there is no such layer before this one, which is layer 2",
            id="before",
        ),
        pytest.param(
            "[sam]\nfrom=-2\n",
            3,
            "[sam] the layer before needs an output of 3x4x5 but has 2x4x5",
            id="other channels",
        ),
        pytest.param(
            "[scale_channels]\nfrom=-2\n",
            3,
            "[scale_channels] the layer before needs an output of 3x1x1 but has 2x4x5",
            id="a map where a vector is needed",
        ),
        pytest.param(
            "[scale_channels]\nfrom=-2\nscale_wh=1\n",
            3,
            "[scale_channels] the layer before needs an output of 1x4x5 but has 2x4x5",
            id="two weights for each place",
        ),
    ],
)
def test_a_product_that_cannot_be_is_refused(tmp_path: Path, layer: str, line: int, message: str) -> None:
    assert refusal(tmp_path, layer, normal(3, 4, 5), normal(2, 4, 5)) == f"<cfg>:{line}: {message}"
