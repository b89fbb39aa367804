"""Read which images a file names: a list, a table, or the JSON in which other tools keep their images."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trtjob.errors import ConfigError, MissingDependencyError
from trtjob.jobs.image_list import parsed_list, text_of
from trtjob.storage.listing import IMAGE_SUFFIXES, suffix_of

# What people and tools call the column with the image: small letters and digits of it.
_COLUMNS = frozenset(
    {
        *("image", "imagefile", "imagename", "imagepath", "imageurl", "img", "imgpath"),
        *("file", "filename", "filepath", "path", "uri", "url"),
    }
)
_SHOWN = 20


def listed_paths(file: Path, column: str = "") -> tuple[str, ...]:
    """Return the paths and addresses that a list names, as they are written; the kind of list is its suffix's.

    column: of a table, its name or, from 1 on, its number; empty: the one that is called as images are.
    Raises ConfigError where it cannot be read, is damaged, or does not say which column; MissingDependencyError.
    """
    kind = file.suffix.lower()
    try:
        if kind == ".parquet":
            return tuple(_of_parquet(file, column))
        data = file.read_bytes()
        if kind == ".txt":
            return parsed_list(data)
        return tuple(_READERS[kind](text_of(data), column))
    except OSError as err:
        raise ConfigError(f"cannot read the list '{file}': {err.strerror or err}") from err
    except ConfigError as err:
        raise ConfigError(f"the list '{file}': {err}") from err
    except (ValueError, csv.Error, RecursionError) as err:
        raise ConfigError(f"the list '{file}' is no {kind} file: {err}") from err


def is_list(file: Path) -> bool:
    """Whether a source is a file that names images."""
    # Path.is_file raises for a name that no file can have.
    return file.suffix.lower() in LIST_SUFFIXES and os.path.isfile(file)  # noqa: PTH113


# -- tables ------------------------------------------------------------------------------------------------------------


def _of_csv(text: str, column: str) -> Iterator[str]:
    """Read a table with commas or, as spreadsheets write it in many countries, semicolons or tabs."""
    return _of_table(text, max(",;\t", key=text.partition("\n")[0].count), column)


def _of_tsv(text: str, column: str) -> Iterator[str]:
    return _of_table(text, "\t", column)


def _of_table(text: str, delimiter: str, column: str) -> Iterator[str]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    head = next(rows, [])
    is_data = [suffix_of(cell) in IMAGE_SUFFIXES for cell in head]
    if any(is_data):
        at = is_data.index(True) if not column and sum(is_data) == 1 else _number(column, len(head))
        if at is None:
            raise ConfigError(
                f"its first line has no names of columns. Give the number of one: --column 1 to {len(head)}"
            )
        yield head[at]
    else:
        numbered = None if column in head else _number(column, len(head))
        at = head.index(_column(head, column)) if numbered is None else numbered
    for line, row in enumerate(rows, 2):
        if row and at >= len(row):
            raise ConfigError(f"line {line} has {len(row)} columns, and the images are in column {at + 1}")
        if row and (cell := row[at].strip()):
            yield cell


def _column(names: Sequence[str], column: str) -> str:
    """Return the name of the column with the images."""
    if column in names:
        return column
    if column and (at := _number(column, len(names))) is not None:
        return names[at]
    known = [name for name in names if "".join(filter(str.isalnum, name)).lower() in _COLUMNS]
    if not column and len(known or names) == 1:
        return (known or names)[0]
    if not names:
        raise ConfigError("it is empty")
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    what = f"it has no column {column!r}" if column else "it does not say which column names the images"
    raise ConfigError(f"{what}. Name one with --column: {shown}")


def _number(column: str, columns: int) -> int | None:
    return int(column) - 1 if column.isdecimal() and 0 < int(column) <= columns else None


def _of_parquet(file: Path, column: str) -> Iterator[str]:
    try:
        from pyarrow import parquet
    except ImportError as err:
        raise MissingDependencyError("pyarrow", extra="parquet") from err
    with parquet.ParquetFile(file) as table:
        name = _column(table.schema_arrow.names, column)
        for batch in table.iter_batches(columns=[name]):
            yield from _texts(batch.column(0).to_pylist(), name)


# -- JSON --------------------------------------------------------------------------------------------------------------


def _of_json_lines(text: str, column: str) -> Iterator[str]:
    lines = enumerate(text.split("\n"), 1)
    return _of_objects((_json_of(line, number) for number, line in lines if line.strip()), column)


def _json_of(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as err:
        raise ConfigError(f"line {number} is no JSON: {err.msg}") from err


def _of_json(text: str, column: str) -> Iterator[str]:
    """Read COCO's and MegaDetector's `images`, or a plain array of paths or objects."""
    document = json.loads(text)
    if not isinstance(document, dict):
        return _of_objects(document if isinstance(document, list) else [document], column)
    images = document.get("images")
    if not isinstance(images, list):
        raise ConfigError("it has no array `images`, as COCO's and MegaDetector's files have")
    # COCO's images have addresses beside their file's name.
    named = next((name for name in ("file_name", "file") if all(isinstance(i, dict) and name in i for i in images)), "")
    return _of_objects(images, column or named)


def _of_objects(items: Iterable[Any], column: str) -> Iterator[str]:
    name = ""
    for number, item in enumerate(items, 1):
        if isinstance(item, Mapping):
            if not name or name not in item:
                name = _field(list(item), column, number)
            yield from _texts([item[name]], name)
        elif isinstance(item, str):
            yield item
        else:
            raise ConfigError(f"expected paths or objects with one, got {json.dumps(item)[:80]}")


def _field(names: Sequence[str], column: str, number: int) -> str:
    try:
        return _column(names, column)
    except ConfigError as err:
        raise ConfigError(f"object {number}: {err}") from err


def _texts(cells: Iterable[Any], name: str) -> Iterator[str]:
    """Yield the cells of a column that are not empty."""
    for cell in cells:
        if cell is not None and not isinstance(cell, str):
            raise ConfigError(f"the column {name!r} holds {cell!r:.80}, which is no path")
        if cell:
            yield cell


_READERS: dict[str, Callable[[str, str], Iterator[str]]] = {
    ".csv": _of_csv,
    ".tsv": _of_tsv,
    ".jsonl": _of_json_lines,
    ".ndjson": _of_json_lines,
    ".json": _of_json,
}
LIST_SUFFIXES = frozenset({".txt", ".parquet", *_READERS})
