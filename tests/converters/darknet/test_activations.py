from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import build_layers, normal, run_layers, sigmoid
from numpy.typing import NDArray

from trtjob.converters.darknet.activations import ACTIVATIONS
from trtjob.errors import DarknetParseError

Array = NDArray[np.float64]


def stair(x: float) -> float:
    floor = int(np.floor(x))
    half = float(np.floor(x / 2))
    return half if floor % 2 == 0 else (x - floor) + half


def plse(x: float) -> float:
    if x < -4:
        return 0.01 * (x + 4)
    return 0.01 * (x - 4) + 1 if x > 4 else 0.125 * x + 0.5


def lhtan(x: float) -> float:
    if x < 0:
        return 0.001 * x
    return 0.001 * (x - 1) + 1 if x > 1 else x


def hard_mish(x: float) -> float:
    if x > 0:
        return x
    return x * x / 2 + x if x > -2 else 0.0


# Darknet's activations.h and activations.c, in float64.
FORMULAS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "revleaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "relie": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "ramp": lambda x: x * (x > 0) + 0.1 * x,
    "elu": lambda x: np.where(x >= 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: 1.0507 * np.where(x >= 0, x, 1.6732 * np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3)),
    "logistic": sigmoid,
    "loggy": lambda x: 2 * sigmoid(x) - 1,
    "tanh": np.tanh,
    "hardtan": lambda x: np.clip(x, -1, 1),
    "lhtan": np.vectorize(lhtan),
    "plse": np.vectorize(plse),
    "stair": np.vectorize(stair),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "hard_mish": np.vectorize(hard_mish),
    "swish": lambda x: x * sigmoid(x),
}


def over_sum(x: Array) -> Array:
    return np.asarray(x / (x.sum(0) + 1e-4), np.float64)


FORMULAS_OF_CHANNELS: dict[str, Callable[[Array], Array]] = {
    "normalize_channels": lambda x: over_sum(np.maximum(x, 0)),
    "normalize_channels_softmax": lambda x: over_sum(np.exp(x)),
    "normalize_channels_softmax_maxval": lambda x: over_sum(np.exp(x - x.max(0))),
}
VALUES = np.array(
    [-80, -20, -5, -4, -3.3, -2, -1.5, -1, -0.1, 0, 0.1, 0.9, 1, 1.1, 2.5, 4, 5, 6, 7, 20, 80], np.float32
).reshape(1, 1, -1)


def test_every_activation_has_its_formula_here() -> None:
    assert {*FORMULAS, *FORMULAS_OF_CHANNELS} == set(ACTIVATIONS)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_an_activation_is_darknets(tmp_path: Path, name: str) -> None:
    layer = f"[shortcut]\nfrom=-2\nactivation={name}\n"
    activated = run_layers(tmp_path, layer, [np.zeros_like(VALUES), VALUES])
    np.testing.assert_allclose(activated, FORMULAS[name](VALUES.astype(np.float64)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(FORMULAS_OF_CHANNELS))
def test_an_activation_over_channels_is_darknets(tmp_path: Path, name: str) -> None:
    x = 3 * normal(4, 2, 3)
    activated = run_layers(tmp_path, f"[activation]\nactivation={name}\n", [x])
    np.testing.assert_allclose(activated, FORMULAS_OF_CHANNELS[name](x.astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_a_convolution_without_an_activation_is_logistic(tmp_path: Path) -> None:
    identity = np.array([0, 1], np.float32)  # bias, weight
    activated = run_layers(tmp_path, "[convolutional]\n", [VALUES], identity)
    np.testing.assert_allclose(activated, sigmoid(VALUES), rtol=1e-5, atol=1e-6)


def test_a_shortcut_without_an_activation_is_linear(tmp_path: Path) -> None:
    assert np.array_equal(run_layers(tmp_path, "[shortcut]\nfrom=-1\n", [VALUES]), 2 * VALUES)


def test_an_activation_that_is_not_known_is_refused_where_darknet_takes_relu(tmp_path: Path) -> None:
    with pytest.raises(DarknetParseError) as caught:
        build_layers(tmp_path, "[shortcut]\nfrom=-1\nactivation=leeky\n", [VALUES])
    assert str(caught.value) == (
        "<cfg>:4: [shortcut] unknown activation 'leeky': expected one of elu, gelu, hard_mish, hardtan, leaky, lhtan, "
        "linear, loggy, logistic, mish, normalize_channels, normalize_channels_softmax, "
        "normalize_channels_softmax_maxval, plse, ramp, relie, relu, relu6, revleaky, selu, stair, swish, tanh. "
        "Darknet warns of it and takes relu: write activation=relu to have the same"
    )
