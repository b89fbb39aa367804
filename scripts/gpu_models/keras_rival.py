"""How fast Keras itself runs VGG16 and YOLOv3 on a GPU, with PyTorch or JAX: one line of JSON for each way.

Needs neither trtjob nor TensorFlow, and Python 3.10 or later: KERAS_BACKEND=torch python keras_rival.py vgg16
yolov3-416=yolov3-416.cfg. A cfg is one of Darknet's; the weights are those that Keras makes, which cost as much.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

FLOAT32, HALF = "float32", "float16"
WARM_UP_CALLS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="vgg16, or NAME=FILE.cfg")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--limit", type=float, default=1e9, help="seconds for each precision")
    wanted = parser.parse_args()
    for precision in (FLOAT32, HALF):
        end = time.perf_counter() + wanted.limit
        keras.config.set_dtype_policy(precision if precision == FLOAT32 else "mixed_float16")
        for name in wanted.models:
            for how, call in _ways(_built(name)).items():
                line: dict[str, Any] = {"model": name.partition("=")[0], "keras": keras.__version__}
                line |= {"precision": precision, "how": how, "device": _device()}
                print(json.dumps(line | _measured(call, name, wanted.batch, wanted.seconds, end)), flush=True)


def _built(name: str) -> Any:
    name, _, cfg = name.partition("=")
    return yolo(Path(cfg).read_text()) if cfg else keras.applications.VGG16(weights=None)


def _measured(
    call: Callable[[Any, int], Callable[[], Any]], name: str, batches: list[int], seconds: float, end: float
) -> dict[str, Any]:
    found: dict[str, float | None] = {}
    for batch in batches:
        found[str(batch)] = None
        if time.perf_counter() > end:
            continue
        try:
            found[str(batch)] = rate(call, batch, seconds)
        except Exception as err:  # noqa: BLE001 - of whatever backend: it is told, and the next one measured
            return {"problem": f"batch {batch}: {type(err).__name__}: {str(err)[:200]}"}
    return {"images_per_s": found} if any(found.values()) else {"problem": "no time was left"}


def rate(call: Callable[[Any, int], Callable[[], Any]], batch: int, seconds: float) -> float:
    """Return images per second, from arrays of the host to arrays of the host."""
    run = call(np.random.default_rng(5), batch)
    for _ in range(WARM_UP_CALLS):
        run()
    calls, started = 0, time.perf_counter()
    while (now := time.perf_counter()) < started + seconds or calls < WARM_UP_CALLS:
        run()
        calls += 1
    return calls * batch / (now - started)


def _ways(model: Any) -> dict[str, Callable[[Any, int], Callable[[], Any]]]:
    """Return the ways to call a model: as its users do, and as fast as its backend can."""

    def images(rng: Any, batch: int) -> Any:
        return rng.random((batch, *model.input_shape[1:]), np.float32)

    def predict(rng: Any, batch: int) -> Callable[[], Any]:
        batch_of_images = images(rng, batch)
        return lambda: model.predict_on_batch(batch_of_images)

    if keras.backend.backend() == "jax":  # compiled once for each batch, which takes long enough
        return {"jitted call": lambda rng, batch: _jax_call(model, images(rng, batch))}
    return {"call": lambda rng, batch: _torch_call(model, images(rng, batch)), "predict_on_batch": predict}


def _jax_call(model: Any, images: Any) -> Callable[[], Any]:
    import jax  # type: ignore[import-not-found, unused-ignore]

    trained, others = model.trainable_variables, model.non_trainable_variables
    values = [v.value for v in trained], [v.value for v in others]
    compiled = jax.jit(lambda a, b, x: model.stateless_call(a, b, x, training=False)[0])
    return lambda: jax.device_get(compiled(*values, images))


def _torch_call(model: Any, images: Any) -> Callable[[], Any]:
    import torch  # type: ignore[import-not-found, unused-ignore]

    torch.backends.cudnn.benchmark = True
    device = model.trainable_variables[0].value.device

    def run() -> Any:
        with torch.inference_mode():
            outputs = model(torch.from_numpy(images).to(device), training=False)
        return [output.cpu() for output in (outputs if isinstance(outputs, list) else [outputs])]

    return run


def _device() -> str:
    if keras.backend.backend() == "jax":
        import jax  # type: ignore[import-not-found, unused-ignore]

        return str(jax.devices()[0].device_kind)
    import torch  # type: ignore[import-not-found, unused-ignore]

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else "CPU"


def yolo(cfg: str) -> Any:
    """Build the network of a YOLOv3 cfg, without decoding its heads: three maps of raw values."""
    net, *sections = _sections(cfg)
    image = keras.Input((int(net["height"]), int(net["width"]), 3))
    outputs: list[Any] = []
    heads = []
    x = image
    for section in sections:
        if section["kind"] == "yolo":
            heads.append(x)
        else:
            x = _LAYERS[section["kind"]](x, section, outputs)
        outputs.append(x)
    return keras.Model(image, heads)


def _convolutional(x: Any, section: dict[str, str], _outputs: list[Any]) -> Any:
    size, stride = int(section["size"]), int(section["stride"])
    if stride > 1:  # Darknet pads both sides, Keras only where it must
        x = layers.ZeroPadding2D(size // 2)(x)
    is_normalized = "batch_normalize" in section
    padding = "same" if stride == 1 else "valid"
    x = layers.Conv2D(int(section["filters"]), size, stride, padding=padding, use_bias=not is_normalized)(x)
    if is_normalized:
        x = layers.BatchNormalization()(x)
    return layers.LeakyReLU(negative_slope=0.1)(x) if section["activation"] == "leaky" else x


def _shortcut(x: Any, section: dict[str, str], outputs: list[Any]) -> Any:
    return layers.Add()([x, outputs[int(section["from"])]])


def _route(_x: Any, section: dict[str, str], outputs: list[Any]) -> Any:
    chosen = [outputs[int(number)] for number in section["layers"].split(",")]
    return chosen[0] if len(chosen) == 1 else layers.Concatenate()(chosen)


def _upsample(x: Any, _section: dict[str, str], _outputs: list[Any]) -> Any:
    return layers.UpSampling2D(2)(x)


_LAYERS = {"convolutional": _convolutional, "shortcut": _shortcut, "route": _route, "upsample": _upsample}


def _sections(cfg: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for line in filter(None, map(str.strip, cfg.splitlines())):
        if line.startswith("["):
            found.append({"kind": line.strip("[]")})
        else:
            key, _, value = line.partition("=")
            found[-1][key.strip()] = value.strip()
    return found


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    main()
