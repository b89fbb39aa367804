"""The class names of a model, in a file: one a line, or as Darknet, Ultralytics, Keras and Hugging Face write them."""

import json
import re
from pathlib import Path
from typing import Any

from trtjob.converters.own_files import is_own
from trtjob.converters.texts import literal, one_line
from trtjob.errors import ConversionError

ACCEPTED = (
    "expected a text of names, one on each line, a Darknet .data file, or .yaml or .json with a list of names or a "
    "table from numbers to names"
)
# ImageNet's 21,842 names take a megabyte.
_MOST_NUMBERED = 100_000  # classes without names: more are no classes, but a mistake in the model
_MOST_BYTES = 10_000_000
_MOST_DIGITS = 10  # of a class's number
_DATA, _YAML = ".data", (".yaml", ".yml")
# What is text, and is no list of names.
_OTHERS = frozenset({".cfg", ".csv", ".ini", ".pbtxt", ".prototxt", ".toml", ".tsv", ".xml"})
_OPTION = re.compile(r"^\s*(classes|train|valid|names|backup)\s*=", re.MULTILINE)
# Darknet's lists of ImageNet have all its 21,842 classes, the 1,000 of a usual classifier in front.
_LONG_LISTS = ".list"


def resolved_labels_file(asked: Path) -> Path:
    """Return the file that holds the labels: the one that is asked for, or the one that a .data file names.

    Raises ConversionError where that is not beside the .data file.
    """
    if asked.suffix.lower() != _DATA:
        return asked
    options = data_options(asked)
    value, line = options.get("names") or options.get("labels") or ("", 0)
    if not value:
        raise ConversionError(f"the labels '{asked}': it has no line `names = FILE`")
    for name in dict.fromkeys((value, Path(value).name)):
        file = asked.parent / name
        if "\0" not in name and is_own(file, asked) and file.is_file():
            return file
    raise ConversionError(
        f"{asked}:{line}: names={value}: there is no such file beside it. Name the labels' file with --labels FILE"
    )


def data_options(path: Path) -> dict[str, tuple[str, int]]:
    """Return the options of a .data file with their lines; of one given twice the first counts."""
    options: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(_read(path).decode("utf-8-sig", "replace").split("\n"), start=1):
        key, equals, value = "".join(line.split()).partition("=")
        if equals and value and key[:1] not in ("#", ";"):
            options.setdefault(key, (value, number))
    return options


def read_labels(path: Path) -> tuple[str, ...]:
    r"""Return the labels of a file, as `resolved_labels_file` returns it. Raises ConversionError where they are none.

    >>> file = Path("pets.names")
    >>> _ = file.write_text("cat\ndog\n")
    >>> read_labels(file)
    ('cat', 'dog')
    """
    suffix = path.suffix.lower()
    if suffix in _OTHERS:
        raise _no_labels(path)
    try:
        text = _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise ConversionError(
            f"the labels '{path}' are no text in UTF-8. Name another file with --labels FILE"
        ) from err
    if suffix in _YAML:
        return _labels_in(_yaml(text, path), path)
    if text.lstrip()[:1] in ("{", "[") or suffix == ".json":
        return _labels_in(_json(text, path), path)
    if _OPTION.search(text):
        raise _no_labels(path)
    # By line feeds alone: a name may hold what else Python takes for the end of a line.
    labels = tuple(line.strip() for line in text.rstrip().split("\n"))
    for number, label in enumerate(labels, 1):
        if not label or "\0" in label:
            raise ConversionError(f"{path}:{number}: the line is empty or binary: expected labels, one on each line")
    return labels


def fitting_labels(path: Path, classes: int, model: Path, *, is_asked: bool) -> tuple[tuple[str, ...], str]:
    """Return a label for each class, and what the user has to know; an empty text where the file's fit.

    is_asked: the user named the file; else it was found beside the model, and may be of another one.
    Raises ConversionError where a file that was asked for does not fit.
    """
    labels = read_labels(path)
    if path.suffix == _LONG_LISTS:
        labels = labels[:classes]
    if len(labels) == classes:
        return labels, ""
    if is_asked or classes > _MOST_NUMBERED:
        expect_count(labels, classes, model)
    return numbered(classes), (
        f"'{path.name}' beside the model has {len(labels)} names, but the model has {classes} classes. It is not used, "
        "and they are called class_0 and so on. Name the right file with --labels FILE."
    )


def numbered(classes: int) -> tuple[str, ...]:
    """Return made-up labels."""
    return tuple(f"class_{number}" for number in range(classes))


def expect_count(labels: tuple[str, ...], classes: int, model: Path) -> None:
    """Raise ConversionError unless there is a label for each class."""
    if len(labels) != classes:
        raise ConversionError(
            f"'{model}' gives scores of {classes} classes, but there are {len(labels)} labels. "
            "Name a file with as many of them with --labels FILE"
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as err:
        raise ConversionError(f"the labels '{path}' cannot be read: {err.strerror}") from err
    if len(data) > _MOST_BYTES:
        raise ConversionError(f"the labels '{path}' are larger than {_MOST_BYTES:,} bytes: {ACCEPTED}")
    return data


def _yaml(text: str, path: Path) -> Any:
    import yaml

    try:
        # Of texts alone: else the name `no` would be a truth value, and `1e3` a number.
        return yaml.load(text, yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as err:
        raise ConversionError(f"the labels '{path}' are no YAML: {one_line(err)}") from err


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        if (value := literal(text)) is not None:  # as Python writes them, in well-known lists of ImageNet's names
            return value
        raise ConversionError(f"the labels '{path}' are no JSON: {one_line(err)}") from err


def _labels_in(value: Any, path: Path) -> tuple[str, ...]:
    """Return the labels of a list, of a table from or to numbers, or of what holds one as `names` or `id2label`."""
    if isinstance(value, dict):
        for key in ("names", "id2label"):
            if isinstance(value.get(key), dict | list):
                return _labels_in(value[key], path)
        value = _in_order(value)
    labels = [_label(item) for item in value] if isinstance(value, list) else []
    if not labels or not all(labels):
        raise _no_labels(path)
    return tuple(labels)


def _in_order(table: dict[Any, Any]) -> list[Any] | None:
    """Return the values of a table from the numbers 0, 1, ... to names, or its keys by their numbers; else None."""
    for pairs in (table.items(), [(number, name) for name, number in table.items()]):
        by_number = {int(number): name for number, name in pairs if _is_number(number)}
        if sorted(by_number) == list(range(len(table))):
            return [by_number[number] for number in range(len(table))]
    return None


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return value.isdecimal() and len(value) < _MOST_DIGITS
    return isinstance(value, int) and not isinstance(value, bool)


def _label(item: object) -> str:
    """Return a name as one line; of WordNet's id and a name the name; empty where it is none."""
    if isinstance(item, list) and len(item) == 2:
        item = item[1]
    text = " ".join(item.split()) if isinstance(item, str) else ""
    return "" if "\0" in text else text


def _no_labels(path: Path) -> ConversionError:
    return ConversionError(f"the labels '{path}' are none that are understood: {ACCEPTED}")
