"""A job's results file, looked at without reading it all: its lines are sorted by image."""

import os
from typing import BinaryIO

from trtjob.jobs.records import Record, from_line

_LINEAR_BYTES = 1 << 16  # so little is read in one go


def find_record(file: BinaryIO, image: str) -> Record | None:
    """Return an image's record, None where there is none. file: the results, to be read in parts.

    Raises StorageError where it is damaged.

    >>> import io
    >>> lines = [f'{{"image": "{name}.jpg", "detections": []}}\\n' for name in "abcdefgh"]
    >>> find_record(io.BytesIO("".join(lines).encode()), "c.jpg")
    Record(image='c.jpg', ...)
    >>> find_record(io.BytesIO("".join(lines).encode()), "cc.jpg")
    """
    low, high = 0, file.seek(0, os.SEEK_END)
    # The line that is looked for begins in low..high, and low is where a line begins.
    while high - low > _LINEAR_BYTES:
        file.seek((low + high) // 2)
        file.readline()
        begin, line = file.tell(), file.readline()
        if begin > high or not line or from_line(line).image > image:
            high = (low + high) // 2
        else:
            low = begin
    file.seek(low)
    while file.tell() <= high and (line := file.readline()):
        record = from_line(line)
        if record.image >= image:
            return record if record.image == image else None
    return None
