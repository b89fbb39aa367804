"""Decoding on a GPU, beside OpenCV's on the CPU."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from trtjob.bench.synthetic_images import make_picture
from trtjob.engines.cuda.device import Device
from trtjob.engines.cuda.driver import threaded_driver
from trtjob.engines.protocol import DeviceImage, UInt8Array
from trtjob.engines.spec import ModelSpec, ResizeMode, Sampling, Task
from trtjob.imaging.decode import decode_image
from trtjob.imaging.gpu import decoder as gpu_decoder
from trtjob.imaging.gpu.decoder import GpuDecoder
from trtjob.imaging.gpu.encoded import EncodedImages
from trtjob.imaging.gpu_jpeg import gpu_jpeg_hw
from trtjob.imaging.resampling import Resampling, resampling
from trtjob.imaging.resize import prepare

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]

BATCH = 8


def model(**more: object) -> ModelSpec:
    return ModelSpec.model_validate(
        {"task": Task.DETECT, "labels": ("cat",), "input_hw": (96, 128), "color": "rgb"} | more
    )


def jpeg(image: UInt8Array, *options: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90, *options])[1].tobytes()


def encoded(data: bytes, spec: ModelSpec, mode: ResizeMode = ResizeMode.STRETCH) -> tuple[bytes, Resampling]:
    size = gpu_jpeg_hw(data)
    assert size is not None
    found = resampling(size, spec, mode)
    assert found is not None
    return data, found[0]


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device(0, threaded_driver())
    yield device
    device.close()


def fetched(device: Device, image: DeviceImage | None) -> UInt8Array:
    """Return what lies on the GPU."""
    assert image is not None
    host: UInt8Array = device.pinned(image.shape, np.uint8)
    stream = device.stream()
    stream.copy_out(host, image.address)
    stream.mark()
    stream.wait()
    stream.close()
    return host.copy()


@pytest.mark.parametrize("mode", ResizeMode)
@pytest.mark.parametrize("sampling", [each for each in Sampling if each is not Sampling.BICUBIC])  # which the CPU does
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_the_input_is_nearly_opencvs(device: Device, mode: ResizeMode, sampling: Sampling, color: str) -> None:
    spec = model(sampling=sampling, color=color, channels=1 if color == "gray" else 3)
    shapes = [(480, 640), (97, 131), (300, 200)]
    pictures = [cv2.resize(make_picture("640x480", seed), hw[::-1]) for seed, hw in enumerate(shapes)]
    files = [jpeg(np.asarray(picture, np.uint8)) for picture in pictures]
    decoder = GpuDecoder(0, spec, batch=BATCH, callers=1)
    try:
        with decoder.decoded(EncodedImages.of([encoded(data, spec, mode) for data in files])) as images:
            found = [fetched(device, image) for image in images]
    finally:
        decoder.close()
    for data, ours in zip(files, found, strict=True):
        theirs, _ = prepare(decode_image(data, max_pixels=10**6), spec, mode)
        gap = np.abs(ours.astype(int) - theirs)
        assert gap.max() <= 12, decoder.title
        assert gap.mean() < 0.6


def test_samplings_and_grey_files(device: Device) -> None:
    spec = model()
    picture = make_picture("640x480", 3)
    samplings = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    files = [jpeg(picture, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling) for sampling in samplings]
    files.append(jpeg(np.ascontiguousarray(picture[..., 0])))
    decoder = GpuDecoder(0, spec, batch=BATCH, callers=1)
    try:
        with decoder.decoded(EncodedImages.of([encoded(data, spec) for data in files])) as images:
            for data, image in zip(files, images, strict=True):
                if image is None:  # this card's decoder does not take it, which is for the pipeline to see to
                    continue
                theirs, _ = prepare(decode_image(data, max_pixels=10**6), spec, ResizeMode.STRETCH)
                assert np.abs(fetched(device, image).astype(int) - theirs).mean() < 0.6
    finally:
        decoder.close()


def test_pixels_come_to_the_host_where_they_are_wanted(device: Device) -> None:
    spec = model()
    pictures = [make_picture("640x480", 1), np.ascontiguousarray(make_picture("640x480", 2)[..., 0])]
    files = [encoded(jpeg(np.asarray(picture, np.uint8)), spec) for picture in pictures]
    batch = EncodedImages.of(files * 2, wanted=(2, 3))
    decoder = GpuDecoder(0, spec, batch=BATCH, callers=1)
    try:
        with decoder.decoded(batch) as images:
            found = [image is not None for image in images]
            assert found[2:] == found[:2]  # it is no other image for that
    finally:
        decoder.close()
    assert found[0], decoder.title
    for number, (data, _) in enumerate(files, 2):
        theirs = cv2.cvtColor(decode_image(data, max_pixels=10**6), cv2.COLOR_BGR2RGB)
        pixels = batch.pixels(number)
        assert pixels is not None
        assert not found[number] or np.abs(pixels.astype(int) - theirs).mean() < 0.6


def test_a_damaged_file_is_refused_and_the_others_are_not(device: Device) -> None:
    spec = model()
    good = jpeg(make_picture("640x480", 0))
    whole = encoded(good, spec)
    cut = good[: len(good) // 3] + b"\xff\xd9"
    decoder = GpuDecoder(0, spec, batch=BATCH, callers=1)
    try:
        with decoder.decoded(EncodedImages.of([whole])) as images:
            alone = fetched(device, images[0])
        with decoder.decoded(EncodedImages.of([whole, (cut, whole[1]), whole])) as images:
            assert np.array_equal(fetched(device, images[0]), alone)
            assert np.array_equal(fetched(device, images[2]), alone)
        with decoder.decoded(EncodedImages.of([(bytes(300), whole[1])])) as images:
            assert images == [None]
    finally:
        decoder.close()


def test_many_callers_get_the_same_bytes(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = model()
    monkeypatch.setattr(gpu_decoder, "MOST_PIXEL_BYTES", 3 * 640 * 480 * 2)  # a batch goes in parts
    files = EncodedImages.of([encoded(jpeg(make_picture("640x480", seed)), spec) for seed in range(BATCH)])
    decoder = GpuDecoder(0, spec, batch=BATCH, callers=4)

    def turn(count: int) -> list[bytes]:
        own = Device(0, threaded_driver())
        try:
            with decoder.decoded(files[:count]) as images:
                return [fetched(own, image).tobytes() for image in images]
        finally:
            own.close()

    try:
        with ThreadPoolExecutor(4) as pool:
            turns = list(pool.map(turn, [BATCH, 1, 5, BATCH] * 8))
    finally:
        decoder.close()
    for found in turns:
        assert found == turns[0][: len(found)]


@pytest.mark.alone
def test_opening_and_closing_leaves_no_memory_behind(device: Device) -> None:
    spec = model()
    free = []
    for _ in range(6):
        decoder = GpuDecoder(0, spec, batch=BATCH, callers=2)
        with decoder.decoded(EncodedImages.of([encoded(jpeg(make_picture("640x480", 0)), spec)])):
            pass
        decoder.close()
        free.append(device.free_bytes())
    assert free[-1] >= free[2] - (32 << 20)
