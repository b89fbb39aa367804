"""Small files that ask for gigabytes, or for minutes: refused or decoded without either.

Each is decoded in a process of its own, whose memory so tells what this one took.
"""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

MOST_MB = 100  # a picture of as many pixels as are allowed may take more
MOST_S = 5.0

# For each line, the names of two files, prints the megabytes that decoding the second took beyond what was there, its
# seconds, and how it ended. What all need is imported once; each is decoded in a fork.
MEASURE = """
import os, sys, time
from pathlib import Path
from trtjob.errors import ImageError
from trtjob.imaging.decode import decode_image

def peak_mb():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3

def measure(calm, bomb):
    decode_image(Path(calm).read_bytes(), max_pixels=10**8)
    data = Path(bomb).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak_mb(), time.perf_counter()
    try:
        ended = "x".join(map(str, decode_image(data, max_pixels=10**8).shape[:2]))
    except ImageError as err:
        ended = err.kind.value
    print(peak_mb() - before, time.perf_counter() - start, ended, flush=True)

for line in sys.stdin:
    if not (pid := os.fork()):
        measure(*line.rstrip().split("\t"))
        os._exit(0)
    if status := os.waitpid(pid, 0)[1]:
        print("inf", "inf", f"ended as {status}", flush=True)
"""


@pytest.fixture(scope="module")
def measuring() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", MEASURE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def ihdr(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def pixels(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IDAT", zlib.compress(b"\0" * (1 + 3 * width) * height, 9)


END = (b"IEND", b"")


@cache
def zeros() -> bytes:
    """Return half a megabyte that holds half a gigabyte."""
    return zlib.compress(bytes(500_000_000), 9)


def png_with_more_pixels_than_its_header_says() -> bytes:
    return png(ihdr(16, 16), (b"IDAT", zeros()), END)


def png_with_a_text_of_half_a_gigabyte() -> bytes:
    return png(ihdr(16, 16), (b"zTXt", b"Comment\0\0" + zeros()), pixels(16, 16), END)


def png_with_a_colour_profile_of_half_a_gigabyte() -> bytes:
    return png(ihdr(16, 16), (b"iCCP", b"p\0\0" + zeros()), pixels(16, 16), END)


def png_of_two_headers() -> bytes:
    return png(ihdr(16, 16), ihdr(9000, 9000), pixels(16, 16), END)


def png_of_a_billion_frames() -> bytes:
    frame = (b"fcTL", struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 1, 1, 0, 0))
    return png(ihdr(16, 16), (b"acTL", struct.pack(">II", 2**31 - 1, 0)), frame, pixels(16, 16), END)


def png_whose_frame_is_larger_than_it() -> bytes:
    frame = (b"fcTL", struct.pack(">IIIIIHHBB", 0, 30_000, 30_000, 0, 0, 1, 1, 0, 0))
    return png(ihdr(16, 16), (b"acTL", struct.pack(">II", 2, 0)), frame, pixels(16, 16), END)


def tiff(*entries: tuple[int, int, int], data: bytes = b"") -> bytes:
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + data


def _tiff_of_16(*changed: tuple[int, int, int]) -> bytes:
    fields = {256: (3, 16), 257: (3, 16), 258: (3, 8), 259: (3, 1), 262: (3, 1), 277: (3, 1)}
    fields |= {tag: (kind, value) for tag, kind, value in changed}
    return tiff(*((tag, kind, value) for tag, (kind, value) in fields.items()), data=bytes(4096))


def png_whose_chunk_claims_a_hundred_megabytes() -> bytes:
    return png(ihdr(16, 16)) + struct.pack(">I", 100_000_000) + b"IDAT" + bytes(100)


def tiff_that_names_its_size_twice() -> bytes:
    """Small for who takes the last, 20,000 x 20,000 for who takes the first."""
    entries = [(256, 4, 20_000), (256, 4, 16), (257, 4, 20_000), (257, 4, 16), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    entries += [(273, 4, 200), (277, 3, 1), (278, 4, 20_000), (279, 4, 4096)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + bytes(4096)


def tiff_of_giant_tiles() -> bytes:
    return _tiff_of_16((322, 4, 30_000), (323, 4, 30_000), (324, 4, 200), (325, 4, 900_000_000))


def tiff_of_a_giant_strip() -> bytes:
    return _tiff_of_16((273, 4, 200), (278, 4, 2**31 - 1), (279, 4, 2**31 - 1))


def tiff_of_many_samples() -> bytes:
    return _tiff_of_16((277, 3, 65_535), (273, 4, 200), (278, 4, 16), (279, 4, 4096))


def tiff_of_directories_in_a_circle() -> bytes:
    first = _tiff_of_16((273, 4, 200), (278, 4, 16), (279, 4, 256))
    at = 10 + 12 * 9
    return first[:at] + struct.pack("<I", 8) + first[at + 4 :]


def _jpeg(width: int, height: int) -> bytes:
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def jpeg_with_a_second_larger_frame() -> bytes:
    small, large = _jpeg(16, 16), _jpeg(9000, 9000)
    return small[:-2] + large[2:]


def jpeg_with_sixteen_megabytes_of_profile() -> bytes:
    data = _jpeg(16, 16)
    segment = b"\xff\xe2\xff\xff" + b"ICC_PROFILE\0\1\1" + bytes(65_533 - 14)
    return data[:2] + segment * 255 + data[2:]


def jpeg_of_many_scans() -> bytes:
    """A progressive picture of 4,000 x 4,000, its last scan said again and again: each costs a pass over all of it."""
    return _scanned(progressive=True)


def jpeg_of_many_scans_that_is_not_progressive() -> bytes:
    """The same of an ordinary one, in which a scan of one colour is followed by others."""
    data = _scanned(progressive=False)
    at = data.index(b"\xff\xda")
    return data[: at + 4] + b"\1" + data[at + 5 : at + 7] + data[at + 11 :]


def _scanned(*, progressive: bool) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((4000, 4000, 3), np.uint8)).save(out, "JPEG", progressive=progressive)
    data = out.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * (2_000_000 // len(scan) + 101) + data[-2:]


def webp_whose_frame_is_larger_than_its_canvas() -> bytes:
    large = cv2.imencode(".webp", np.zeros((9000, 9000, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (15).to_bytes(3, "little") * 2
    body = b"WEBP" + canvas + large[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _animation(kind: str) -> bytes:
    frames = [Image.fromarray(np.full((16, 16, 3), n % 256, np.uint8)) for n in range(3000)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


def webp_of_thousands_of_frames() -> bytes:
    return _animation("WEBP")


def gif_of_thousands_of_frames() -> bytes:
    return _animation("GIF")


def gif_whose_frame_is_larger_than_its_screen() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((9000, 9000), np.uint8)).save(out, "GIF")
    data = out.getvalue()
    return data[:6] + struct.pack("<HH", 16, 16) + data[10:]


def bmp_whose_rows_are_packed() -> bytes:
    """Run-length coded, and cut off after a jump."""
    header = struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 1078, 40, 9000, 9000, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + header + bytes(1024) + b"\0\2\xff\xff" * 8


def avif_that_is_larger_than_it_says() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(out, "AVIF", speed=10)
    data = out.getvalue()
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", 16, 16) + data[at + 8 :]


def _jpeg2000(at: int, field: bytes) -> bytes:
    """Return a picture of 16 x 16 with something else in its codestream's header."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG2000")
    data = out.getvalue()
    start = data.index(b"\xff\x4f\xff\x51") + at
    return data[:start] + field + data[start + len(field) :]


def jpeg2000_of_many_components() -> bytes:
    return _jpeg2000(40, struct.pack(">H", 16_384))


def jpeg2000_of_a_hundred_million_tiles() -> bytes:
    return _jpeg2000(8, struct.pack(">IIIIII", 9000, 9000, 0, 0, 1, 1))


def jpeg_xl_that_claims_a_billion_pixels() -> bytes:
    return b"\xff\x0a" + bytes([0b00000110, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]) + bytes(1000)


def raw_photo_whose_directories_lie_over_each_other() -> bytes:
    entries = struct.pack("<HHII", 50706, 1, 4, 1) + struct.pack("<HHII", 330, 4, 16, 8) * 60_000
    return b"II*\0" + struct.pack("<IH", 8, 60_001) + entries + bytes(100)


BOMBS: list[Callable[[], bytes]] = [
    png_with_more_pixels_than_its_header_says,
    png_with_a_text_of_half_a_gigabyte,
    png_with_a_colour_profile_of_half_a_gigabyte,
    png_of_two_headers,
    png_of_a_billion_frames,
    png_whose_frame_is_larger_than_it,
    png_whose_chunk_claims_a_hundred_megabytes,
    tiff_that_names_its_size_twice,
    tiff_of_giant_tiles,
    tiff_of_a_giant_strip,
    tiff_of_many_samples,
    tiff_of_directories_in_a_circle,
    jpeg_with_a_second_larger_frame,
    jpeg_with_sixteen_megabytes_of_profile,
    jpeg_of_many_scans,
    jpeg_of_many_scans_that_is_not_progressive,
    webp_whose_frame_is_larger_than_its_canvas,
    webp_of_thousands_of_frames,
    gif_of_thousands_of_frames,
    gif_whose_frame_is_larger_than_its_screen,
    bmp_whose_rows_are_packed,
    avif_that_is_larger_than_it_says,
    jpeg2000_of_many_components,
    jpeg2000_of_a_hundred_million_tiles,
    jpeg_xl_that_claims_a_billion_pixels,
    raw_photo_whose_directories_lie_over_each_other,
]


@pytest.mark.slow
@pytest.mark.parametrize("make", BOMBS, ids=lambda make: make.__name__)
def test_a_bomb_does_not_go_off(make: Callable[[], bytes], measuring: subprocess.Popen[str], tmp_path: Path) -> None:
    calm, bomb = tmp_path / "calm.jpg", tmp_path / "bomb"
    calm.write_bytes(_jpeg(64, 64))
    bomb.write_bytes(make())
    assert measuring.stdin is not None
    assert measuring.stdout is not None
    print(calm, bomb, sep="\t", file=measuring.stdin, flush=True)
    taken_mb, elapsed_s, ended = measuring.stdout.readline().split(maxsplit=2)
    assert float(taken_mb) < MOST_MB, ended
    assert float(elapsed_s) < MOST_S, ended
