"""What a planner and a process that lists frames of videos say to each other.

Standard input brings the config, which is empty, then a line of JSON for each video: `{"size": ..., "sampling": ...}`.
Standard output asks for parts of it, `{"read": [where, bytes]}`; the answer is their length, four bytes, and they; or
UNREADABLE. It says that something is done, `{}`; and then brings `{"frames": [...]}` as often as is needed, at last
`{"is_read": ...}`: whether the file can be read.
"""

import struct

LISTER = "trtjob.imaging.frame_lister"
LENGTH = struct.Struct(">I")
UNREADABLE = (1 << 32) - 1

# Of a frame: when it is shown, in seconds, as its key has it; number, pts, start, seek, begin, stop.
FrameRow = tuple[str, int, int, int, int, int, int]
