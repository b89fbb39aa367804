"""What Keras and TensorFlow say is wrong, in one line."""

import re

from trtjob.converters.texts import one_line

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What follows is what a layer was called with, or which layers have no weights.
_LISTS = re.compile("Arguments received by|List of objects that could not be loaded")
_KIND = re.compile(r"^\w*(Error|Exception): ")


def last_line(err: Exception) -> str:
    """Return the end of what Keras says, which names the cause; its first lines say where it was."""
    text = _LISTS.split(_COLOUR.sub("", str(err)))[0]
    *_, last = ("", *(line.strip() for line in text.splitlines() if line.strip()))
    return one_line(Exception(_KIND.sub("", last)) if last else err)
