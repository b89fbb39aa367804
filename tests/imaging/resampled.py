"""What the kernel that resizes on a GPU computes, written out in NumPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import ModelSpec
from trtjob.imaging.resampling import Resampling


def resampled(image: UInt8Array, how: Resampling, spec: ModelSpec) -> UInt8Array:
    """Return the network's input. image: uint8 [h, w, 3], BGR."""
    tensor = np.full((*spec.input_hw, 3), spec.pad_value, np.uint8)
    rows, columns = np.arange(how.top, how.bottom), np.arange(how.left, how.right)
    down = _weights(how.first_y + rows * how.step_y, how.height, how.reach_y)
    across = _weights(how.first_x + columns * how.step_x, how.width, how.reach_x)
    mean = np.einsum("yj,jic,xi->yxc", down, image.astype(np.float64), across)
    tensor[how.top : how.bottom, how.left : how.right] = np.clip(mean + 0.5, 0, 255).astype(np.uint8)
    if spec.color == "gray":
        grey = tensor.astype(np.int64) @ np.array([3735, 19235, 9798]) + (1 << 14) >> 15
        return np.asarray(grey, np.uint8)[..., None]
    return tensor[..., ::-1] if spec.color == "rgb" else tensor


def _weights(places: NDArray[np.floating[Any]], side: int, reach: float) -> NDArray[np.float64]:
    near = np.clip(1 - np.abs(places[:, None] - np.arange(side)) / reach, 0, None)
    weights: NDArray[np.float64] = near / near.sum(1, keepdims=True)
    return weights
