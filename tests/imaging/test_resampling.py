"""Resizing in numbers is what OpenCV and Pillow do: else a GPU would be shown another picture than the CPU."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from imaging.resampled import resampled
from imaging.specs import model

import trtjob.imaging.gpu
from trtjob.engines.spec import ModelSpec, ResizeMode, Sampling, Task
from trtjob.imaging.gpu.encoded import EncodedImages
from trtjob.imaging.resampling import resampling
from trtjob.imaging.resize import SAME_SAMPLE_PX, prepare

sides = st.integers(1, 90)
HW = (32, 24)
# Pillow rounds after each of its two passes; with aligned corners OpenCV's samples may lie a little beside.
LEVELS = {Sampling.HALF_PIXEL: 1, Sampling.ANTIALIAS: 2, Sampling.ALIGN_CORNERS: 1 + 2 * 255 * SAME_SAMPLE_PX}


@pytest.mark.slow
@pytest.mark.parametrize("sampling", LEVELS)
@pytest.mark.parametrize("mode", ResizeMode)
@settings(max_examples=12)  # of each of twelve ways
@given(height=sides, width=sides)
@example(height=32, width=24)
@example(height=64, width=48)
@example(height=90, width=7)
def test_the_input_is_opencvs_and_pillows(sampling: Sampling, mode: ResizeMode, height: int, width: int) -> None:
    spec = model(HW, sampling=sampling)
    image = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)
    expected, placement = prepare(image, spec, mode)
    found = resampling((height, width), spec, mode)
    assume(found is not None)
    assert found is not None
    assert found[1] == placement
    gap = np.abs(resampled(image, found[0], spec).astype(int) - expected)
    assert gap.max() <= LEVELS[sampling]


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_the_colours_are_the_models(color: str) -> None:
    spec = model(HW, color=color)
    image = np.random.default_rng(1).integers(0, 256, (50, 60, 3), np.uint8)
    found = resampling((50, 60), spec, ResizeMode.LETTERBOX)
    assert found is not None
    expected, _ = prepare(image, spec, ResizeMode.LETTERBOX)
    inside = np.s_[found[0].top : found[0].bottom, found[0].left : found[0].right]
    assert np.abs(resampled(image, found[0], spec).astype(int) - expected)[inside].max() <= 1


def test_a_thread_whose_ends_are_cut_off_is_left_to_opencv() -> None:
    assert resampling((1, 60_000), model(HW), ResizeMode.CROP) is None
    assert resampling((1, 60_000), model(HW), ResizeMode.LETTERBOX) is not None


def test_it_travels_in_numbers_of_fixed_size() -> None:
    found = resampling((480, 640), model(HW, sampling=Sampling.ALIGN_CORNERS), ResizeMode.LETTERBOX)
    assert found is not None
    files = EncodedImages.of([(b"one", found[0]), (b"another", found[0])], wanted=[0])
    assert [files.file(number).tobytes() for number in (0, 1)] == [b"one", b"another"]
    assert [files.pixels(number) is None for number in (0, 1)] == [False, True]
    assert files[1:].resampling(0) == pytest.approx(found[0])


def test_the_kernel_that_is_shipped_is_its_sources() -> None:
    folder = Path(trtjob.imaging.gpu.__file__).parent
    digest = hashlib.sha256((folder / "resample.cu").read_bytes()).hexdigest()
    said = (folder / "resample.ptx").read_text().splitlines()[0]
    assert said == f"// resample.cu {digest}", "run scripts/compile_ptx.py"


def test_bicubic_is_left_to_pillow() -> None:
    spec = ModelSpec(task=Task.CLASSIFY, labels=("cat",), input_hw=HW, sampling=Sampling.BICUBIC)
    assert resampling((64, 48), spec, ResizeMode.STRETCH) is None
