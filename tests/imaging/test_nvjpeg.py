"""How nvJPEG is called, on any machine: with stand-ins for it and for CUDA's driver, in child processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stand_in import compile_driver, compile_library

pytestmark = pytest.mark.extra

PACKAGE = "nvidia_nvjpeg-13.3.2.dist-info"
LIBRARY = Path("nvidia", "cu13", "lib", "libnvjpeg.so.13")

CODE = """
import json, logging, os, sys
import cv2
import numpy as np
from trtjob.engines.cuda.device import Device
from trtjob.engines.cuda.driver import threaded_driver
from trtjob.engines.spec import ModelSpec, Task
from trtjob.errors import TrtjobError
from trtjob.imaging.gpu import decoder as module
from trtjob.imaging.gpu.decoder import GpuDecoder
from trtjob.imaging.gpu.encoded import EncodedImages
from trtjob.imaging.gpu_jpeg import gpu_jpeg_hw
from trtjob.imaging.resampling import resampling

SPEC = ModelSpec(task=Task.DETECT, labels=("a",), input_hw=(32, 48), color="rgb")
module.MOST_PIXEL_BYTES = int(sys.argv[2])
device = Device(0, threaded_driver())

def encoded(shade, hw=(40, 56)):
    data = cv2.imencode(".jpg", np.zeros((*hw, 3), np.uint8))[1].tobytes()
    return data[:-3] + bytes([shade]) + data[-2:], resampling(hw, SPEC, SPEC.resize)[0]

def bad(hw=(40, 56)):
    return bytes(200), encoded(0, hw)[1]

def told(row):
    if row is None:
        return None
    host, stream = device.pinned(row.shape, np.uint8), device.stream()
    stream.copy_out(host, row.address)
    stream.mark()
    stream.wait()
    stream.close()
    return sorted(set(host.ravel().tolist()))

def pinned(images):
    memory = device.pinned(images.memory.shape, np.uint8)
    memory[:] = images.memory
    return EncodedImages(memory, images.told)

class Counted(logging.Handler):
    count = 0

    def emit(self, record):
        Counted.count += 1

logging.getLogger("trtjob").addHandler(Counted())
free = device.free_bytes()
said = {}
try:
    decoder = GpuDecoder(0, SPEC, batch=8, callers=2)
    said["title"] = decoder.title
    for name, images in {
        "whole": [encoded(5), encoded(6, (300, 200)), encoded(7)],
        "one is bad": [encoded(8), bad(), encoded(9), encoded(10, (64, 64))],
        "after it": [encoded(number) for number in range(11, 19)],
        "all are bad": [bad(), bad((90, 90))],
        "alone and bad": [bad()],
        "with pixels": [encoded(20), bad(), encoded(21, (80, 40))],
    }.items():
        batch = pinned(EncodedImages.of(images, wanted=(0, 2)))
        with decoder.decoded(batch) as rows:
            said[name] = [told(row) for row in rows]
    pixels = [batch.pixels(number) for number in range(3)]
    said["pixels"] = [None if each is None else sorted(set(each.ravel().tolist())) for each in pixels]
    said["busy"] = decoder.busy_s > 0
    if "LEFT_BYTES" in os.environ:
        block = device.alloc(device.free_bytes() - int(os.environ["LEFT_BYTES"]))
        for name, images in {
            "large, with another": [encoded(1), encoded(2, (2000, 3000))],
            "large, alone": [encoded(2, (2000, 3000))],
            "after it": [encoded(number) for number in range(11, 19)],
        }.items():
            try:
                with decoder.decoded(EncodedImages.of(images)) as rows:
                    said[name] = [told(row) for row in rows]
            except TrtjobError as err:
                said[name] = f"{type(err).__name__}: {err}"
        block.free()
except TrtjobError as err:
    said["error"] = f"{type(err).__name__}: {err}"
    if "title" in said:
        try:
            with decoder.decoded(EncodedImages.of([bad()])):
                pass
            with decoder.decoded(EncodedImages.of([bad()])):
                pass
        except TrtjobError as again:
            said["again"] = f"{type(again).__name__}: {again}"
if "title" in said:
    decoder.close()
if Counted.count:
    said["logged"] = Counted.count
said["left"] = free - device.free_bytes()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both libraries, nvJPEG's where its package has it."""
    folder = compile_driver(tmp_path_factory.mktemp("stand-ins"))
    (folder / LIBRARY).parent.mkdir(parents=True)
    compile_library(Path(__file__).with_name("nvjpeg_stand_in.c"), folder / LIBRARY)
    package = folder / PACKAGE
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-nvjpeg\nVersion: 13.3.2\n")
    (package / "RECORD").write_text(f"{LIBRARY},,\n")
    return folder


def said(stand_ins: Path, code: str = CODE, most_pixel_bytes: int = 1 << 28, **environment: str) -> dict[str, Any]:
    path = os.pathsep.join(filter(None, [str(stand_ins), os.environ.get("PYTHONPATH")]))
    told = os.environ | {"LD_LIBRARY_PATH": str(stand_ins), "PYTHONPATH": path} | environment
    command = [sys.executable, "-c", code, "-", str(most_pixel_bytes)]
    ended = subprocess.run(command, env=told, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


@pytest.mark.parametrize("most_pixel_bytes", [1 << 28, 3 * 40 * 56 * 2], ids=["at once", "in parts"])
def test_each_image_is_where_it_belongs_and_a_bad_one_takes_none_with_it(
    stand_ins: Path, most_pixel_bytes: int
) -> None:
    found = said(stand_ins, most_pixel_bytes=most_pixel_bytes)
    assert found == {
        "title": "nvJPEG 13.3, the JPEG engine",
        "whole": [[5], [6], [7]],
        "one is bad": [[8], None, [9], [10]],
        "after it": [[number] for number in range(11, 19)],
        "all are bad": [None, None],
        "alone and bad": [None],
        "with pixels": [[20], None, [21]],
        "pixels": [[20], None, [21]],
        "busy": True,
        "left": 0,
    }


def test_a_card_without_a_jpeg_engine_uses_its_cores(stand_ins: Path) -> None:
    found = said(stand_ins, NVJPEG_STAND_IN_ENGINES="0")
    assert found["title"] == "nvJPEG 13.3, CUDA cores and the CPU"
    assert found["one is bad"] == [[8], None, [9], [10]]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("5", "DeviceMemoryError: nvJPEG fails: allocator failure"),
        ("7", "EngineError: nvJPEG fails: architecture mismatch"),
        ("99", "EngineError: nvJPEG fails: status 99"),
    ],
)
def test_what_is_no_files_fault_is_an_error(stand_ins: Path, status: str, error: str) -> None:
    assert said(stand_ins, NVJPEG_STAND_IN_FAILS=status)["error"] == error


@pytest.mark.parametrize("status", ["6", "8"])
def test_a_file_with_which_it_fails_is_the_cpus_and_the_log_says_so(stand_ins: Path, status: str) -> None:
    found = said(stand_ins, NVJPEG_STAND_IN_FAILS=status)
    assert found["whole"] == [None] * 3
    assert "error" not in found
    assert found["logged"] > 3


def test_a_decoder_that_cannot_begin_again_says_so_and_can_be_closed(stand_ins: Path) -> None:
    found = said(stand_ins, NVJPEG_STAND_IN_STATES="2")
    assert found["error"] == "DeviceMemoryError: nvJPEG makes no decoder: allocator failure"
    assert found["again"] == found["error"]
    assert found["left"] == 0


def test_an_image_that_finds_no_room_on_the_gpu_is_the_cpus(stand_ins: Path) -> None:
    found = said(stand_ins, LEFT_BYTES=str(1 << 20))
    assert found["alone and bad"] == [None]
    assert found["large, alone"] == [None]
    assert found["large, with another"].startswith("DeviceMemoryError")
    assert found["after it"] == [[number] for number in range(11, 19)]


def test_where_its_package_is_not_installed_the_extra_is_named(stand_ins: Path, tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").symlink_to(stand_ins / "libcuda.so.1")
    found = said(tmp_path)
    assert "nvidia-nvjpeg" in found["error"]
    assert "trtjob[nvjpeg]" in found["error"]
    assert found["left"] == 0
