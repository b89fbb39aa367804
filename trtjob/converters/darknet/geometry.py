"""What layers share in reading their geometry."""

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.request import MAX_SIDE


def check_side(section: Section, height: int, width: int, name: str) -> None:
    """Raise DarknetParseError for an output that could only fill the memory: of a mistyped number."""
    if max(height, width) > MAX_SIDE:
        raise section.error(f"its output of {height}x{width} is too large: at most {MAX_SIDE} are possible", name)


def strides(section: Section) -> tuple[int, int]:
    """Return the vertical and the horizontal stride: `stride_y` and `stride_x`, or `stride` for both."""
    stride = section.integer("stride", 1, least=1)
    return section.integer("stride_y", stride, least=1), section.integer("stride_x", stride, least=1)
