"""Keras networks with weights that say something: seeded, their statistics those of real activations."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from trtjob.converters.artefact import Converted, serialised
from trtjob.converters.keras import packages
from trtjob.converters.keras.origin import mode_of
from trtjob.engines.protocol import FloatArray, UInt8Array

# Of the same layers, with fewer channels.
NARROW: dict[str, dict[str, Any]] = {"MobileNetV2": {"alpha": 0.35}}

_LOGIT_DEVIATION = 1.0
# About what each way to prepare pixels does to them: mean and deviation.
_PIXELS = {"tf": (127.5, 127.5), "caffe": (115, 1), "torch": (115, 57), "none": (0, 1)}


def pictures(count: int, hw: tuple[int, int], channels: int = 3, seed: int = 0) -> UInt8Array:
    """Return images of random blocks, coarse and fine: unlike plain noise they differ in their means."""
    random = np.random.default_rng(seed)
    total = np.zeros((count, *hw, channels))
    for side in (1, 4, 16, 64):
        blocks = random.normal(size=(count, side, side, channels))
        rows, columns = (np.arange(size) * side // size for size in hw)
        total += blocks[:, rows][:, :, columns]
    return np.clip(128 + 45 * total, 0, 255).astype(np.uint8)


def lively(model: Any, seed: int = 0) -> Any:
    """Give a network random weights and the statistics that images leave, so that its answers differ; return it."""
    keras = packages.keras()
    height, width, channels = (size or 96 for size in model.input_shape[1:])
    mode, _ = mode_of(model) or ("tf", "")
    mean, deviation = _PIXELS[mode]
    images = (pictures(8, (height, width), channels, seed).astype(np.float32) - mean) / deviation
    random = np.random.default_rng(seed)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # the moving statistics become those of the next batch
        for variable in (layer.beta, layer.gamma):
            if variable is not None:
                variable.assign(variable + random.normal(scale=0.1, size=variable.shape).astype(np.float32))
    with packages.quiet():
        model(images, training=True)
    for layer in norms:
        layer.momentum = 0.99
    _spread_logits(keras, model, images)
    return model


def _spread_logits(keras: Any, model: Any, images: Any) -> None:
    """Scale the last layer so that its softmax is neither flat nor saturated."""
    last = model.layers[-1]
    assert len(model.inputs) == 1
    before = keras.Model(model.inputs[0], last.input)(images, training=False).numpy()
    logits = before @ last.kernel.numpy()
    logits -= logits.mean(0)
    last.kernel.assign(last.kernel * (_LOGIT_DEVIATION / max(float(logits.std()), 1e-9)))
    last.bias.assign(-(before.mean(0) @ last.kernel.numpy()))


def application(name: str, seed: int = 0, **options: Any) -> Any:
    """Return a lively network of keras.applications, or of a family there, one block of each kind."""
    keras = packages.keras()
    keras.utils.set_random_seed(seed)
    make = _FAMILIES[name] if name in _FAMILIES else getattr(keras.applications, name)
    return lively(make(weights=None, **options), seed)


def _convnext(**options: Any) -> Any:
    from keras.src.applications.convnext import ConvNeXt

    return ConvNeXt(depths=(1, 1, 1, 1), projection_dims=(16, 32, 64, 128), **options)


def _efficientnet(**options: Any) -> Any:
    from keras.src.applications.efficientnet import EfficientNet

    return EfficientNet(width_coefficient=0.25, depth_coefficient=0.1, default_size=64, **options)


_FAMILIES = {"ConvNeXt": _convnext, "EfficientNet": _efficientnet}


def saved(model: Any, path: Path) -> Path:
    with packages.quiet():
        model.save(path)
    return path


def answers(converted: Converted, images: UInt8Array) -> FloatArray:
    """Return what a converted model says of images."""
    session = onnxruntime.InferenceSession(
        serialised(converted.model, converted.spec), providers=["CPUExecutionProvider"]
    )
    (scores,) = session.run(None, {"images": images})
    return np.asarray(scores, np.float32)
