"""Tables in a notebook."""

from collections.abc import Iterable, Sequence
from html import escape

from trtjob.printable import printable


def html_table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a line above it. What is shown may be anybody's: it is escaped.

    >>> html_table("Two", ("a", "b"), [(1, "<b>")])
    '<p>Two</p><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>&lt;b&gt;</td></tr></table>'
    """
    lines = [_row("th", head)] if any(head) else []
    lines += [_row("td", row) for row in rows]
    return f"<p>{_text(title)}</p><table>{''.join(lines)}</table>"


def _row(cell: str, values: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{cell}>{_text(value)}</{cell}>" for value in values) + "</tr>"


def _text(value: object) -> str:
    return escape(printable(f"{value:.4g}" if isinstance(value, float) else str(value)))
