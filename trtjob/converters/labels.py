"""The class names of a model, in a file: one a line."""

from pathlib import Path

from trtjob.errors import ConversionError


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
