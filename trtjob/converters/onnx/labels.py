"""The class names in the metadata of a foreign model."""

from pathlib import Path

from trtjob.converters.texts import literal
from trtjob.errors import ConversionError


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
