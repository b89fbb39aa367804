"""What the checks found: rows of a table, as text and as Markdown."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

HEADS = ("check", "result", "figure", "note")
MARKER = "<!-- Below: as scripts/gpu_check wrote it. -->"


class State(StrEnum):
    OK = "ok"
    FAILED = "FAILED"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Row:
    """One finding. figure: what was measured, with its unit."""

    check: str
    state: State = State.OK
    figure: str = ""
    note: str = ""


class NotRun(Exception):
    """A check cannot run on this machine; the message says why."""


def to_line(row: Row) -> str:
    return json.dumps(asdict(row)) + "\n"


def from_lines(text: str) -> list[Row]:
    """Return the rows that `to_line` wrote; one cut off by the end of its process is left out."""
    whole, _, _cut = text.rpartition("\n")
    documents = map(json.loads, whole.splitlines())
    return [Row(**{**document, "state": State(document["state"])}) for document in documents]


def as_text(parts: Mapping[str, Sequence[Row]]) -> str:
    """Return one table, with the parts below one another."""
    cells = {title: [_cells(row) for row in rows] for title, rows in parts.items()}
    every = [HEADS, *(row for rows in cells.values() for row in rows)]
    widths = [max(map(len, column)) for column in list(zip(*every, strict=True))[:-1]]

    def line(row: Sequence[str]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        return "  ".join([*padded, row[-1]]).rstrip()

    blocks = ["\n".join([title.upper(), *(line(row) for row in rows)]) for title, rows in cells.items()]
    return "\n\n".join([line(HEADS), *blocks])


def as_markdown(parts: Mapping[str, Sequence[Row]]) -> str:
    """Return a table for each part."""
    return "\n".join(line for title, rows in parts.items() for line in _section(title, rows))


def _section(title: str, rows: Iterable[Row]) -> Iterator[str]:
    yield from (f"## {title}", "", f"| {' | '.join(HEADS)} |", "|---|---|---|---|")
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in _cells(row))} |"
    yield ""


def _cells(row: Row) -> tuple[str, ...]:
    return tuple(" ".join(str(value).split()) for value in (row.check, row.state, row.figure, row.note))


def merged(existing: str, tables: str, order: Sequence[str]) -> str:
    """Return a document with new tables in place of those of the same titles; the others stay.

    What a person wrote above the marker stays, too. order: of all titles that are known; tables of other titles go.
    """
    head, marker, old = existing.partition(MARKER)
    if not marker:
        head, old = existing or "# GPU: what was measured\n\n", ""
    known = {**_sections(old), **_sections(tables)}
    return f"{head}{MARKER}\n\n" + "\n".join(known[title] for title in order if title in known)


def _sections(tables: str) -> dict[str, str]:
    """Return tables by their titles, each with its title's line."""
    _, *parts = f"\n{tables}".split("\n## ")
    return {part.partition("\n")[0]: f"## {part.strip()}\n" for part in parts}


def failures(parts: Mapping[str, Iterable[Row]]) -> int:
    return sum(row.state is State.FAILED for rows in parts.values() for row in rows)
