"""`python -m benchmarks.nvdec`: frames a second of NVDEC and of the CPU, and whether they give the same pixels.

Needs PyAV, OpenCV and NumPy, and nothing else of what trtjob needs.
"""

import argparse
import hashlib
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.made_video import write_video
from trtjob.imaging.sampling import run_starts, sampled
from trtjob.imaging.video import VideoReader
from trtjob.imaging.video_times import frame_times

HD = (1080, 1920)
VIDEOS = {
    "H.264, 1080p": ("libx264", "yuv420p"),
    "HEVC, 1080p": ("libx265", "yuv420p"),
    "HEVC, 1080p, 10 bits": ("libx265", "yuv420p10le"),
}


def decode(path: Path, *, on_gpu: bool) -> tuple[str, bool, int, float]:
    """Decode all frames. Returns a digest of the pixels, whether NVDEC did it, how many, and seconds of the CPU."""
    began_s = _cpu_s()
    with path.open("rb") as file:
        times = frame_times(file)
    chosen = sampled(times, "every=1")
    digest = hashlib.blake2b(digest_size=8)
    reader = VideoReader(path.open("rb"), max_pixels=10**8, on_gpu=on_gpu)
    try:
        for frame, start in zip(chosen.tolist(), run_starts(times, chosen), strict=True):
            picture, damage = reader.picture(
                int(times.pts[frame]), start_pts=int(times.pts[start]), seek=int(times.seek[start])
            )
            assert damage is None, damage
            digest.update(picture.bgr()[::40].tobytes())
        return digest.hexdigest(), reader.is_on_gpu, len(chosen), _cpu_s() - began_s
    finally:
        reader.close()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _decode_in_child(path: str, on_gpu: bool) -> tuple[str, bool, int, float]:
    return decode(Path(path), on_gpu=on_gpu)


def main() -> int:
    """Print a table. Returns 1 where NVDEC did not decode, or gave other pixels."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nvdec", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="how long the videos are")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4, 8, 16])
    arguments = parser.parse_args()
    is_right = True
    print("| video | processes | NVDEC, frames/s | CPU, frames/s | CPU-ms a frame | of NVDEC | same pixels |")
    print("|---|---:|---:|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for title, (encoder, pix_fmt) in VIDEOS.items():
            path = write_video(Path(temporary) / "a.mp4", arguments.seconds, HD, encoder=encoder, pix_fmt=pix_fmt)
            for processes in arguments.processes:
                rates, cpu_ms, digests, is_on_gpu = [], [], set(), False
                for on_gpu in (True, False):
                    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                        start = time.perf_counter()
                        done = list(pool.map(_decode_in_child, [str(path)] * processes, [on_gpu] * processes))
                        took_s = time.perf_counter() - start
                    frames = sum(count for _, _, count, _ in done)
                    rates.append(frames / took_s)
                    cpu_ms.append(1000 * sum(cpu_s for *_, cpu_s in done) / frames)
                    digests |= {digest for digest, *_ in done}
                    is_on_gpu |= all(used for _, used, _, _ in done)
                same = (
                    "yes" if len(digests) == 1 and is_on_gpu else "**no**" if is_on_gpu else "**not decoded by NVDEC**"
                )
                is_right &= same == "yes"
                print(
                    f"| {title} | {processes} | {rates[0]:.0f} | {rates[1]:.0f} "
                    f"| {cpu_ms[1]:.2f} | {cpu_ms[0]:.2f} | {same} |",
                    flush=True,
                )
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
