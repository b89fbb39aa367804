"""The class names of a foreign model: in its metadata, or in a file."""

import ast
from pathlib import Path

from trtjob.errors import ConversionError

# ImageNet's thousand names take 30 kB.
_MOST_CHARACTERS = 2_000_000


def literal(text: str) -> object:
    """Return the value that a Python literal stands for; None where it is none, or is too long."""
    if len(text) > _MOST_CHARACTERS:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that its documentation names
        return None


def labels_in(text: str, path: Path) -> tuple[str, ...]:
    """Return the labels that an exporter wrote: a Python dict from numbers, or a list. Raises ConversionError."""
    value = literal(text)
    if isinstance(value, dict) and all(isinstance(key, int) for key in value):
        value = [value[key] for key in sorted(value)] if sorted(value) == list(range(len(value))) else None
    labels = [" ".join(str(label).split()) for label in value] if isinstance(value, list | tuple) else []
    if not labels or not all(label and label.isprintable() for label in labels):
        raise ConversionError(
            f"'{path}': the class names in its metadata cannot be read: expected a Python dict such as "
            "{0: 'cat', 1: 'dog'}. Name a file of them with --labels FILE"
        )
    return tuple(labels)


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the labels of a file, one a line. Raises ConversionError."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as err:
        raise ConversionError(f"the labels '{path}' cannot be read: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ConversionError(
            f"the labels '{path}' are no text in UTF-8. Name another file with --labels FILE"
        ) from err
    labels = tuple(line.strip() for line in text.rstrip().splitlines())
    for number, label in enumerate(labels, 1):
        if not label or "\0" in label:
            raise ConversionError(f"{path}:{number}: the line is empty or binary: expected labels, one on each line")
    if not labels:
        raise ConversionError(f"the labels '{path}' are empty: expected one on each line")
    return labels


def expect_count(labels: tuple[str, ...], classes: int, path: Path) -> None:
    """Raise ConversionError unless there is a label for each class."""
    if len(labels) != classes:
        raise ConversionError(
            f"'{path}' gives scores of {classes} classes, but there are {len(labels)} labels. "
            "Name a file with as many lines with --labels FILE"
        )
