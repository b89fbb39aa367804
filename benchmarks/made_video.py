"""A video for benchmarks, of any length: a few seconds are drawn and encoded, and repeated."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FPS = 30
GOP_S = 2
ENCODED_S = 10  # as many are drawn


def write_video(
    path: Path, seconds: int, hw: tuple[int, int], *, encoder: str = "libx264", pix_fmt: str = "yuv420p"
) -> Path:
    """Write an MP4: a picture that moves, and in it the number of the frame."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = path.with_suffix(".part.mp4")
    with av.open(drawn, "w") as container:
        stream: Any = container.add_stream(encoder, rate=FPS, options={"preset": "veryfast", "crf": "23"})
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *hw, pix_fmt, FPS * GOP_S
        picture = _picture(hw)
        for number in range(min(seconds, ENCODED_S) * FPS):
            image = np.roll(picture, (number, 3 * number), (0, 1))
            cv2.putText(image, f"{number:05}", (40, hw[0] // 2), cv2.FONT_HERSHEY_SIMPLEX, 2, (255, 255, 255), 3)
            frame = av.VideoFrame.from_ndarray(image, "bgr24").reformat(format=pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    _repeat(drawn, path, seconds)
    drawn.unlink()
    return path


def _picture(hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Return light, texture and a little noise, as photographs have."""
    rng = np.random.default_rng(2026)
    light = cv2.resize(rng.uniform(40, 215, (9, 16, 3)).astype(np.float32), hw[::-1], interpolation=cv2.INTER_CUBIC)
    texture = cv2.resize(rng.normal(0, 9, (hw[0] // 6, hw[1] // 6)).astype(np.float32), hw[::-1])
    picture = light + texture[..., None] + rng.normal(0, 3, (*hw, 1))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _repeat(drawn: Path, path: Path, seconds: int) -> None:
    import av

    with av.open(path, "w") as copy:
        stream: Any = None
        for turn in range(-(-seconds // ENCODED_S)):
            with av.open(drawn) as container:
                source: Any = container.streams.video[0]
                stream = stream or copy.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.size:
                        shift = int(turn * ENCODED_S / packet.time_base)
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        copy.mux(packet)
