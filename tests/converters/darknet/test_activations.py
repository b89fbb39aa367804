from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import build_layers, run_layers, sigmoid
from numpy.typing import NDArray

from trtjob.converters.darknet.activations import ACTIVATIONS
from trtjob.errors import DarknetParseError

Array = NDArray[np.float64]

# Darknet's activations.h and activations.c, in float64.
FORMULAS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "relu": lambda x: np.maximum(x, 0),
    "logistic": sigmoid,
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "swish": lambda x: x * sigmoid(x),
}
VALUES = np.array([-80, -20, -5, -1, -0.1, 0, 0.1, 1, 5, 20, 80], np.float32).reshape(1, 1, -1)


def test_every_activation_has_its_formula_here() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_an_activation_is_darknets(tmp_path: Path, name: str) -> None:
    layer = f"[shortcut]\nfrom=-2\nactivation={name}\n"
    activated = run_layers(tmp_path, layer, [np.zeros_like(VALUES), VALUES])
    np.testing.assert_allclose(activated, FORMULAS[name](VALUES.astype(np.float64)), rtol=1e-5, atol=1e-6)


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
        "<cfg>:4: [shortcut] unknown activation 'leeky': expected one of leaky, linear, logistic, mish, relu, swish"
    )
