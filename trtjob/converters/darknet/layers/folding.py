"""Weights after batch normalisation: at inference it is one factor and one shift for each filter."""

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.network import Network
from trtjob.engines.protocol import FloatArray

# normalize_cpu in blas.c
EPSILON = 1e-5
PJREDDIES_EPSILON = 1e-6


def factor_and_shift(
    net: Network, section: Section, bias: FloatArray, statistics: tuple[FloatArray, FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Return what (x - mean) / deviation * scale + bias does to x. statistics: scale, mean, variance."""
    scale, mean, variance = statistics
    if (variance < 0).any():
        net.suspect(section, "some variances are negative")
    with np.errstate(over="ignore", invalid="ignore"):  # reported by `normalised`, or by the reader
        factor = scale / _deviation(np.maximum(variance, 0).astype(np.float64), net.is_pjreddies)
        return factor.astype(np.float32), (bias - mean * factor).astype(np.float32)


def _deviation(variance: NDArray[np.float64], is_pjreddies: bool) -> NDArray[np.float64]:
    """Return the root of the variance and something that keeps it from 0; pjreddie adds that after the root."""
    if is_pjreddies:
        return np.sqrt(variance) + PJREDDIES_EPSILON
    return np.asarray(np.sqrt(variance + EPSILON), np.float64)


def take_statistics(net: Network, section: Section, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Take scale, mean and variance, in this order."""
    scale, mean, variance = (net.take(section, name, count) for name in ("scales", "means", "variances"))
    return scale, mean, variance


def normalised(
    net: Network, section: Section, weights: FloatArray, factor: FloatArray, shift: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return weights whose first axis is the filter's, times the factor, and the bias that goes with them."""
    with np.errstate(over="ignore", invalid="ignore"):
        folded = weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
    if not (np.isfinite(folded).all() and np.isfinite(shift).all()):
        net.suspect(section, "some weights are too large once they are normalised")
    return folded, shift
