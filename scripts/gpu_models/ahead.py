"""Make, where TensorFlow is, the Keras models that a GPU machine needs: `python -m scripts.gpu_models.ahead FOLDER`.

VGG16 becomes a skeleton of some kilobytes (its weights are drawn where it is used), MobileNetV2 a whole model. Both go
through our own converter, from a file as Keras saves it.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from scripts.gpu_models.cfg import LOST
from scripts.gpu_models.skeleton import SUFFIX, strip_weights
from trtjob.converters.artefact import pieces
from trtjob.converters.calibration_images import generated_image
from trtjob.converters.keras import packages
from trtjob.converters.output import write_atomically
from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import convert

SEED = 16
_LOGIT_DEVIATION = 2.5
_BRANCH = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.gpu_models.ahead", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the models go")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    print(vgg16(folder))
    print(mobilenetv2(folder))
    return 0


def vgg16(folder: Path) -> Path:
    """Write VGG16 without its weights."""
    model = packages.keras().applications.VGG16(weights=None)
    return _converted(model, folder / f"vgg16{SUFFIX}", is_skeleton=True)


def mobilenetv2(folder: Path) -> Path:
    """Write MobileNetV2 with weights whose answers depend on the image."""
    keras = packages.keras()
    keras.utils.set_random_seed(SEED)
    model = keras.applications.MobileNetV2(weights=None)
    make_lively(model, pictures((224, 224)) / 127.5 - 1)
    return _converted(model, folder / "mobilenetv2.onnx", is_skeleton=False)


def pictures(hw: tuple[int, int]) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Return generated pictures, float32 [N, H, W, 3] of 0 to 255."""
    import cv2

    return np.stack([cv2.resize(generated_image(index), hw[::-1]) for index in range(8)]).astype(np.float32)


def make_lively(model: Any, images: "np.ndarray[Any, np.dtype[np.float32]]") -> None:
    """Give batch normalisations statistics of images, as cfg.py explains, and spread what the last layer says."""
    keras = packages.keras()
    added = {layer.name.replace("_add", "_project_BN") for layer in model.layers if layer.name.endswith("_add")}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        values = keras.Model(model.inputs[0], layer.input)(images, training=False).numpy()
        mean, variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
        layer.moving_mean.assign(LOST * mean)
        layer.moving_variance.assign(variance + ((1 - LOST) * mean) ** 2)
        if layer.name in added:  # a block adds little to what it is added to: else rounding errors grow with each
            layer.gamma.assign(_BRANCH * layer.gamma)
    last = model.layers[-1]
    before = keras.Model(model.inputs[0], last.input)(images, training=False).numpy()
    logits = before @ last.kernel.numpy()
    last.kernel.assign(last.kernel * (_LOGIT_DEVIATION / float((logits - logits.mean(0)).std())))
    last.bias.assign(-(before.mean(0) @ last.kernel.numpy()))


def _converted(model: Any, out: Path, *, is_skeleton: bool) -> Path:
    with tempfile.TemporaryDirectory(prefix="trtjob-") as folder:
        saved = Path(folder) / f"{out.name.partition('.')[0]}.keras"
        with packages.quiet():
            model.save(saved)
        converted = convert(ConversionRequest(model=saved))
    if is_skeleton:
        strip_weights(converted.model)
    write_atomically(out, pieces(converted.model, converted.spec))
    return out


if __name__ == "__main__":
    sys.exit(main())
