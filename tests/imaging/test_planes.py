"""A network's input from the planes of a video's frame, beside what FFmpeg makes of the whole frame."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import videos
from imaging.specs import model

from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import ModelSpec, ResizeMode, Sampling
from trtjob.imaging.planes import prepare_planes, takes_planes
from trtjob.imaging.resize import Placement, prepare
from trtjob.imaging.video import Picture

av = videos.av
SAMPLINGS = (Sampling.HALF_PIXEL, Sampling.ALIGN_CORNERS)
FLOORED = 3  # FFmpeg rounds each of three products down


def scene(hw: tuple[int, int], *, matrix: int = 2, colour_range: int = 0, format: str = "yuv420p") -> Any:
    """Return a frame with waves of light and colour, of which each is longer than a few pixels."""
    height, width = hw

    def waves(rows: int, columns: int, low: int, high: int, turns: float) -> UInt8Array:
        y, x = np.mgrid[:rows, :columns]
        wave = np.sin(turns * x / columns + 1) * np.cos(0.7 * turns * y / rows)
        return np.asarray((low + (high - low) * (wave + 1) / 2).round(), np.uint8)

    frame = av.VideoFrame(width, height, format)
    half = (height + 1) // 2, (width + 1) // 2
    planes = (waves(*hw, 60, 190, 9), waves(*half, 110, 140, 5), waves(*half, 115, 145, 4))
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = values
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = matrix, colour_range
    return frame


def ffmpegs(frame: Any) -> UInt8Array:
    """Return a frame in BGR as FFmpeg's own filter makes it."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25))
    graph.link_nodes(
        source, graph.add("scale", "flags=bilinear"), graph.add("format", "bgr24"), graph.add("buffersink")
    ).configure()
    graph.push(frame)
    image: UInt8Array = graph.pull().to_ndarray()
    return image


def from_planes(frame: Any, spec: ModelSpec, mode: ResizeMode) -> tuple[UInt8Array, Placement]:
    planes = Picture(frame).planes()
    assert planes is not None
    tensor = np.full((*spec.input_hw, spec.channels), 1, np.uint8)
    return tensor, prepare_planes(planes, spec, mode, tensor)


@pytest.mark.parametrize("color", ["bgr", "rgb", "gray"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("mode", [ResizeMode.STRETCH, ResizeMode.LETTERBOX, ResizeMode.CORNER])
@pytest.mark.parametrize("hw", [(180, 320), (181, 319), (40, 48)], ids=["shrunk", "odd", "enlarged"])
def test_the_input_is_that_of_ffmpegs_whole_frame(
    hw: tuple[int, int], mode: ResizeMode, sampling: Sampling, color: str
) -> None:
    spec = model((64, 64), sampling=sampling, color=color)
    frame = scene(hw)
    found, placement = from_planes(frame, spec, mode)
    expected, expected_placement = prepare(ffmpegs(frame), spec, mode)
    assert placement == expected_placement
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= FLOORED + 3
    assert apart.mean() < 2


@pytest.mark.parametrize(("matrix", "colour_range"), [(1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (5, 1), (5, 2), (6, 1)])
def test_colours_are_made_by_the_matrix_and_range_that_the_frame_says(matrix: int, colour_range: int) -> None:
    frame = scene((96, 128), matrix=matrix, colour_range=colour_range)
    found, _ = from_planes(frame, model((96, 128)), ResizeMode.STRETCH)
    apart = found.astype(int) - ffmpegs(frame)
    assert 0 <= apart.mean() < 2
    assert np.abs(apart).max() <= FLOORED


def test_a_format_of_full_range_says_so_by_its_name() -> None:
    frame = scene((96, 128), format="yuvj420p")
    found, _ = from_planes(frame, model((96, 128)), ResizeMode.STRETCH)
    assert np.abs(found.astype(int) - ffmpegs(frame)).max() <= FLOORED


def test_nvdecs_frames_have_the_same_planes() -> None:
    frame, spec = scene((96, 128), matrix=1), model((32, 32))
    of_nvdec = frame.reformat(format="nv12")
    of_nvdec.colorspace = 1
    assert (from_planes(of_nvdec, spec, ResizeMode.STRETCH)[0] == from_planes(frame, spec, ResizeMode.STRETCH)[0]).all()


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda frame: frame.reformat(format="yuv420p10le"), id="10-bits"),
        pytest.param(lambda frame: frame.reformat(format="yuv422p"), id="4:2:2"),
        pytest.param(lambda frame: frame.reformat(format="bgr24"), id="colours"),
        pytest.param(lambda _: scene((48, 64), matrix=9), id="BT.2020"),
    ],
)
def test_what_is_no_plain_frame_is_taken_as_a_whole(other: Callable[[Any], Any]) -> None:
    assert Picture(other(scene((48, 64)))).planes() is None


def test_pillows_samplings_and_crops_take_the_whole_frame() -> None:
    assert takes_planes(model(), ResizeMode.LETTERBOX)
    assert not takes_planes(model(), ResizeMode.CROP)
    assert not takes_planes(model(sampling=Sampling.ANTIALIAS), ResizeMode.STRETCH)
