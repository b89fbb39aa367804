"""Frames of videos as images of their own: `clip.mp4#t=12.040` is what `clip.mp4` shows at 12.04 seconds.

Which frames a video has is known when the job is planned, so that each is planned, done, counted and tried again as
every image is.
"""

from trtjob.storage.listing import VIDEO_SUFFIXES, suffix_of


def is_video(key: str) -> bool:
    """Whether a file is a video, by its name.

    >>> is_video("night/CLIP.MP4"), is_video("a.jpg")
    (True, False)
    """
    return suffix_of(key) in VIDEO_SUFFIXES


def time_s(key: str) -> float:
    """Return when the frame with this key is shown, in seconds.

    >>> time_s("clip.mp4#t=12.040")
    12.04
    """
    return float(key.rpartition("#t=")[2])


def video_key(key: str) -> str:
    """Return the video in which the frame with this key is.

    >>> video_key("clip.mp4#t=12.040")
    'clip.mp4'
    """
    return key.rpartition("#t=")[0]


def names_frame(key: str) -> bool:
    """Whether an image's key names a frame of a video, and no file that was made of one.

    >>> names_frame("clip.mp4#t=12.040"), names_frame("a#t=1.jpg"), names_frame("clip.mp4#t=12.040.jpg")
    (True, False, False)
    """
    video, _, time = key.rpartition("#t=")
    return time.replace(".", "", 1).isdecimal() and is_video(video)  # the cheap look first: most are no frames
