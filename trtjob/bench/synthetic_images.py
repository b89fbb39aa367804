"""Made-up pictures with the weight of photographs: smooth light, many edges, a little noise."""

from pathlib import Path

import cv2
import numpy as np

from trtjob.engines.protocol import UInt8Array

SIZES = {"640x480": (480, 640), "1920x1080": (1080, 1920)}
# Chosen so that the JPEG files weigh what camera pictures of these sizes do: about 75 KB and 330 KB.
_NOISE = {"640x480": 6.0, "1920x1080": 3.0}


def make_picture(name: str, seed: int) -> UInt8Array:
    """Return a BGR uint8 picture of a named size."""
    height, width = SIZES[name]
    rng = np.random.default_rng([2026, seed])
    light = cv2.resize(
        rng.uniform(40, 215, (9, 16, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    texture = cv2.resize(rng.normal(0, 9, (height // 6, width // 6, 1)).astype(np.float32), (width, height))
    picture = np.clip(light + texture[..., None] + rng.normal(0, _NOISE[name], (height, width, 1)), 0, 255)
    image = picture.astype(np.uint8)
    for _ in range(60):
        center = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        color = tuple(map(int, rng.integers(0, 256, 3)))
        cv2.circle(image, center, int(rng.integers(4, height // 8)), color, -1, cv2.LINE_AA)
    return image


def write_pictures(folder: Path, name: str, count: int) -> Path:
    """Write `count` JPEG files of a named size; a dozen pictures, each under many names."""
    folder.mkdir(parents=True)
    encoded = []
    for seed in range(min(12, count)):
        _, data = cv2.imencode(".jpg", make_picture(name, seed), [cv2.IMWRITE_JPEG_QUALITY, 90])
        encoded.append(data.tobytes())
    for index in range(count):
        (folder / f"{index:06d}.jpg").write_bytes(encoded[index % len(encoded)])
    return folder
