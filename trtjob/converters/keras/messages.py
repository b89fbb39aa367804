"""What Keras and TensorFlow say is wrong, in one line."""

import re

from trtjob.converters.texts import one_line, shown

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What follows is what a layer was called with, or which layers have no weights.
_LISTS = re.compile("Arguments received by|List of objects that could not be loaded")
_KIND = re.compile(r"^\w*(Error|Exception): ")

# A lambda, or a function of one's own, where Keras has a name.
_UNKNOWN_FUNCTION = re.compile(r"(?:function identifier: |Could not locate function ')([^'. ]+)")
_SAVE_AGAIN = (
    "Where it was made, save it as a SavedModel, with model.export('folder') or, of Keras 2, model.save('folder'), and "
    "convert that"
)


def last_line(err: Exception) -> str:
    """Return the end of what Keras says, which names the cause; its first lines say where it was."""
    text = _LISTS.split(_COLOUR.sub("", str(err)))[0]
    *_, last = ("", *(line.strip() for line in text.splitlines() if line.strip()))
    return one_line(Exception(_KIND.sub("", last)) if last else err)


def why_unbuilt(version: str, err: Exception) -> str:
    """Return why Keras, of a version, cannot build a network, and what to do."""
    said = last_line(err)
    if found := _UNKNOWN_FUNCTION.search(said):
        why = f"the function {shown(found[1])} is not in the file, which has but its name, and it is none of Keras'"
    else:
        why = f"Keras {version} cannot build the network: {said.rstrip('.')}"
    return f"{why}. {_SAVE_AGAIN}"
