"""When the frames of an AVI are shown: it says when each is decoded, and FFmpeg guesses the rest."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from trtjob.imaging.sampling import NEVER

# Codecs of which FFmpeg's guess is wrong, and the kinds of NAL units behind which nothing is shown before them.
_WHOLE = {"h264": "5", "hevc": "16-20"}
_VOP = b"\0\0\1\xb6"  # with which a frame begins in MPEG-4 part 2
_MOST_EMPTY_BYTES = 19  # of what fills the place of a packed frame (MAX_NVOP_SIZE in FFmpeg's h263dec.h)
_MOST_PACKED = 16  # packets, from one with two frames on, until such a place


def is_avi(container: Any) -> bool:
    """Whether a file is an AVI, whatever its name."""
    return bool(container.format.name == "avi")


def mended(found: Iterator[Any], container: Any, stream: Any) -> Iterator[Any]:
    """Return a container's packets, those of a stream in it with the times that are meant."""
    if is_avi(container) and stream.codec_context.name in _WHOLE:
        return _by_decoding(found, stream)
    if stream.codec_context.name == "mpeg4":  # also where it was an AVI's
        return _unpacked(found, stream)
    return found


def _by_decoding(found: Iterator[Any], stream: Any) -> Iterator[Any]:
    """Have packets say when each is decoded (see `ShownTimes`), and, as they do not say whether anything behind a
    keyframe is shown before it, only those be keyframes of which the codec says that nothing is; and the first one."""
    is_first = True
    for packet in found:
        if packet.stream is stream and packet.size:
            packet.pts = packet.dts
            if packet.is_keyframe:
                packet.is_keyframe = is_first or _is_whole(packet, stream)
                is_first = False
        yield packet


def _is_whole(packet: Any, stream: Any) -> bool:
    import av

    kinds = f"filter_units=pass_types={_WHOLE[stream.codec_context.name]}"
    try:
        return bool(av.BitStreamFilterContext(kinds, stream).filter(_packet(bytes(packet))))
    except av.FFmpegError:
        return False


def _packet(data: bytes) -> Any:
    """Return a packet with memory of its own, for FFmpeg reads beyond its end: that of `Packet(data)` is Python's."""
    import av

    packet = av.Packet(len(data))
    packet.update(data)
    return packet


def _unpacked(found: Iterator[Any], stream: Any) -> Iterator[Any]:
    """Part what DivX packs: two frames in one packet, and later an empty one, so that none is shown late."""
    packed: list[Any] = []
    for packet in found:
        if packet.stream is not stream:
            yield packet
        elif bytes(packet).count(_VOP) == 2:
            yield from packed
            packed = [packet]
        elif packed and 0 < packet.size <= _MOST_EMPTY_BYTES:
            yield from _parted([*packed, packet])
            packed = []
        elif packed and packet.size and len(packed) < _MOST_PACKED:
            packed.append(packet)
        else:
            yield from (*packed, packet)
            packed = []
    yield from packed


def _parted(packed: list[Any]) -> Iterator[Any]:
    """Give each frame a packet. What was shown last of these FFmpeg took for the first, and the empty one for that."""
    both = bytes(packed[0])
    second = both.rindex(_VOP)
    frames = [both[:second], both[second:], *map(bytes, packed[1:-1])]
    packed[0].pts, packed[-1].pts = packed[-1].pts, packed[0].pts
    for place, data in zip(packed, frames, strict=True):
        packet = _packet(data)
        packet.stream, packet.time_base = place.stream, place.time_base
        packet.pts, packet.dts, packet.is_keyframe = place.pts, place.dts, place.is_keyframe
        yield packet


class ShownTimes:
    """Gives decoded frames their times: those of their packets; or, where these say when each is decoded, the same ones
    in the order in which the decoder gives the frames."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._is_avi = is_avi(container)
        self._is_told = not self._is_avi or stream.codec_context.name not in _WHOLE
        self._stream = stream
        self._decoded = deque[int]()
        self._newest = NEVER

    def feed(self, packet: Any) -> None:
        """Note what the decoder is given; None, or an empty packet: the end."""
        if not self._is_told and packet is not None and packet.size and packet.dts is not None:
            self._decoded.append(packet.dts)

    def end(self) -> None:
        """Note that the decoder was emptied."""
        self._decoded.clear()

    def has_time(self, frame: Any) -> bool:
        """Give the next frame its time. Returns whether it has one."""
        if frame.pts is None:
            frame.pts = frame.dts
        if frame.pts is None:
            return False
        if self._decoded:
            # No frame came of what is before it: it is damaged.
            while len(self._decoded) > 1 and self._decoded[0] < frame.pts and self._is_in_order(frame):
                self._decoded.popleft()
            frame.pts = self._decoded.popleft()
        elif self._is_avi and frame.pts == self._newest:
            frame.pts += 1  # the last one, as it was planned
        self._newest = frame.pts
        return True

    def _is_in_order(self, frame: Any) -> bool:
        """Whether all that is before a frame in the file is shown before it."""
        return frame.key_frame or not self._stream.codec_context.has_b_frames
