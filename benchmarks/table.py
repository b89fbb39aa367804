"""The table that a benchmark prints."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, with its goal where it has one."""

    name: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None
    note: str = ""


def render(rows: list[Row]) -> str:
    """Return the rows as a table in Markdown."""
    lines = ["| what | measured | goal | met | note |", "|---|---:|---:|---|---|"]
    for row in rows:
        met = "" if row.met is None else ("yes" if row.met else "**no**")
        lines.append(f"| {row.name} | {row.value:.4g} {row.unit} | {row.goal} | {met} | {row.note} |")
    return "\n".join(lines)
