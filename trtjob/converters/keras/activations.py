"""Keras's activations, by name (keras/src/activations)."""

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

from trtjob.converters.keras.modern import OLD_HARD_SIGMOID
from trtjob.converters.keras.network import Network, UntranslatableError, Value

Activation = Callable[[Network, Value], Value]


def _op(op: str, **attributes: Any) -> Activation:
    return lambda net, x: net.add(op, x, **attributes)


def clip(net: Network, x: Value, high: float) -> Value:
    """Append a relu that ends at a number."""
    return net.add("Clip", x, net.number(0), net.number(high))


def _silu(net: Network, x: Value) -> Value:
    x = net.settled(x)
    return net.add("Mul", x, net.add("Sigmoid", x).name)


def gelu(net: Network, x: Value, *, approximate: bool = False) -> Value:
    """Append x P(X <= x) of a normal distribution, by the error function."""
    if approximate:
        raise UntranslatableError("a gelu by tanh is not translated")
    x = net.settled(x)
    inner = net.add("Erf", net.add("Div", x, net.number(sqrt(2))))
    return net.add("Mul", net.add("Mul", x, net.add("Add", inner, net.number(1)).name), net.number(0.5))


def softmax(net: Network, x: Value) -> Value:
    """Make shares of the channels."""
    return net.add("Softmax", x, axis=x.channel_axis)


ACTIVATIONS: dict[str, Activation] = {
    "linear": lambda _net, x: x,
    "relu": _op("Relu"),
    "relu6": partial(clip, high=6),
    "leaky_relu": _op("LeakyRelu", alpha=0.2),
    "elu": _op("Elu"),
    "selu": _op("Selu", alpha=1.6732632423543772, gamma=1.0507009873554805),
    "gelu": gelu,
    "silu": _silu,
    "swish": _silu,
    "sigmoid": _op("Sigmoid"),
    "hard_sigmoid": _op("HardSigmoid", alpha=1 / 6, beta=0.5),
    OLD_HARD_SIGMOID: _op("HardSigmoid", alpha=0.2, beta=0.5),
    "hard_silu": _op("HardSwish"),
    "hard_swish": _op("HardSwish"),
    "tanh": _op("Tanh"),
    "softplus": _op("Softplus"),
    "softsign": _op("Softsign"),
    "mish": _op("Mish"),
    "exponential": _op("Exp"),
    "softmax": softmax,
}


def activation_name(layer: Any) -> str:
    """Return the name of a layer's activation; `linear` where it has none."""
    function = getattr(layer, "activation", None)
    return "linear" if function is None else str(getattr(function, "__name__", type(function).__name__))


def activate(net: Network, layer: Any, x: Value) -> Value:
    """Append a layer's activation."""
    name = activation_name(layer)
    if name not in ACTIVATIONS:
        raise UntranslatableError(f"the activation '{name}' is not translated")
    return ACTIVATIONS[name](net, x)
