"""Compare networks of keras.applications, in full size and with seeded weights, with what they are converted to.

Run it where trtjob[keras] is installed, from the top of a checkout, all networks or some:

    PYTHONPATH=tests python scripts/keras_parity.py [NAME ...]
"""

import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from converters.keras.networks import application, pictures, saved

from trtjob.converters.artefact import serialised
from trtjob.converters.keras import packages
from trtjob.converters.keras.convert import convert
from trtjob.converters.request import ConversionRequest

NAMES = ("VGG16", "ResNet50", "MobileNetV2", "InceptionV3", "EfficientNetB0", "Xception", "DenseNet121")
IMAGES = 32
BATCH = 8
LIMIT = 1e-5


def compare(name: str, folder: Path) -> tuple[str, bool]:
    """Return a line of the table, and whether the two agree."""
    path = saved(application(name), folder / f"{name}.keras")
    packages.keras().utils.clear_session()
    started = time.perf_counter()
    converted = convert(ConversionRequest(model=path))
    seconds = time.perf_counter() - started
    data = serialised(converted.model, converted.spec)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    images = pictures(IMAGES, converted.spec.input_hw, seed=1)
    assert converted.reference is not None
    batches = [images[at : at + BATCH] for at in range(0, IMAGES, BATCH)]
    ours = np.concatenate([session.run(None, {"images": batch})[0] for batch in batches])
    theirs = np.concatenate([converted.reference.run(batch).scores for batch in batches])
    same = sum(list(a[:5]) == list(b[:5]) for a, b in zip(np.argsort(-ours), np.argsort(-theirs), strict=True))
    largest = float(np.abs(ours - theirs).max())
    path.unlink()
    line = (
        f"{name:16} {same:>3}/{IMAGES} {largest:>12.1e} {theirs.max(1).mean():>10.3f} {seconds:>8.1f} "
        f"{len(converted.model.graph.node):>6}"
    )
    return line, same == IMAGES and largest <= LIMIT


def main(names: list[str]) -> int:
    logging.disable(logging.WARNING)  # each network has no labels
    print(f"{'network':16} {'top 5':>6} {'difference':>12} {'best mean':>10} {'seconds':>8} {'nodes':>6}")
    agree = True
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            line, agrees = compare(name, Path(folder))
            agree &= agrees
            print(line, flush=True)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(NAMES)))
