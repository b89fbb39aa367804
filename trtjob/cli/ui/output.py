"""What commands print of jobs on standard output."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from trtjob.api.progress import duration
from trtjob.cli.ui.paint import Line, Painted, Piece, line
from trtjob.cli.ui.say import say, say_json
from trtjob.counted import counted
from trtjob.printable import printable

if TYPE_CHECKING:
    from trtjob.queue.views import JobView

LABELS_SHOWN = 10
FAILURES_SHOWN = 5


def print_json(document: Any) -> None:
    """Print one JSON document; a name that is no valid UTF-8 is escaped."""
    say_json(document, indent=2)


def print_summary(view: "JobView", *, is_fresh: bool) -> None:
    """Print how a finished job went and where its outputs lie.

    is_fresh: it ran from its beginning, so that images per second can be told.
    """
    from trtjob.jobs.finish import Summary
    from trtjob.jobs.folder import REPORT, RESULTS, JobFolder
    from trtjob.jobs.spec import Annotate

    folder = JobFolder.of(view.spec)
    summary = Summary.of(folder)
    rows: list[tuple[str, Piece]] = [("images", _images(summary.images, summary.ok, summary.failed))]
    if summary.frames:
        rows.append(("of videos", _frames(summary.frames, summary.videos)))
    for video, why in islice(summary.videos_not_copied.items(), LABELS_SHOWN):
        rows.append(("not copied", f"{video}: {why}"))
    if summary.failures:
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary.failures.items())
        rows.append(("failed", Painted(kinds, "red")))
    if summary.ignored:
        rows.append(("ignored", ", ".join(f"{count} {kind}" for kind, count in summary.ignored.items())))
    rows.append(("found", _found(summary.detections, summary.conf)))
    if summary.truncated:
        rows.append(("truncated", _truncated(summary.truncated)))
    if summary.damaged:
        rows.append(("damaged", _damaged(summary.damaged)))
    if summary.multi_page:
        rows.append(("first page", _multi_page(summary.multi_page)))
    rows += [("output", folder.uri), ("results", folder.storage.place(RESULTS))]
    if view.spec.options.annotate is not Annotate.NONE:
        rows.append(("annotated", folder.storage.place("annotated")))
    rows.append(("report", folder.storage.place(REPORT)))
    if view.started_at and view.finished_at:
        rows.append(("time", _time(view.finished_at - view.started_at, summary.images if is_fresh else 0)))
    print_rows(rows)


def outputs_document(view: "JobView") -> dict[str, Any]:
    """Return where the outputs of a finished job lie, and what was found: how many of each class."""
    from trtjob.jobs.finish import Summary
    from trtjob.jobs.folder import ERRORS, REPORT, RESULTS, SUMMARY, JobFolder

    folder = JobFolder.of(view.spec)
    summary = Summary.of(folder)
    places = {"results": RESULTS, "errors": ERRORS, "report": REPORT, "summary": SUMMARY}
    found = {"images_with_detections": summary.images_with_detections, "detections": summary.detections}
    return {name: folder.storage.place(key) for name, key in places.items()} | found


def print_failures(view: "JobView") -> None:
    """Name the first failed images on standard error, and where to find all."""
    from trtjob.jobs.folder import ERRORS, JobFolder
    from trtjob.jobs.records import read_records

    storage = JobFolder.of(view.spec).storage
    for record in islice(read_records(storage, ERRORS), FAILURES_SHOWN):
        assert record.error is not None  # the file holds nothing else
        say(f"failed: {record.image}: {record.error.kind}: {record.error.message}", err=True)
    if view.failed > FAILURES_SHOWN:
        say(f"... and {view.failed - FAILURES_SHOWN} more", err=True)
    say(f"All failures: {storage.place(ERRORS)}. Try them again with: trtjob retry {view.job_id}", err=True)


def print_left(left: Sequence[tuple[str, str]]) -> None:
    """Name the first images that nothing was done with, and why, on standard error."""
    for image, why in left[:FAILURES_SHOWN]:
        say(f"left: {image}: {why}", err=True)
    if (more := len(left) - FAILURES_SHOWN) > 0:
        say(f"... and {more:,} more", err=True)


def left_documents(left: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Return the images that nothing was done with, and why, as `--json` has them."""
    return [{"image": image, "why": why} for image, why in left]


def print_table(heads: tuple[str, ...], rows: Iterable[tuple[Piece, ...]]) -> None:
    """Print columns, as wide as they need."""
    say(*table_lines(heads, rows))


def table_lines(heads: tuple[str, ...], rows: Iterable[tuple[Piece, ...]]) -> list[Line]:
    """Return columns, as wide as they need, a line for each row."""
    lines: list[tuple[Piece, ...]] = [tuple(Painted(head, "bold") for head in heads), *rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return [line(*_padded(cells, widths)) for cells in lines]


def _padded(cells: tuple[Piece, ...], widths: list[int]) -> Iterator[Piece]:
    """Yield the cells of a row, and the blanks between them."""
    blanks = ""
    for cell, width in zip(cells, widths, strict=True):
        if str(cell):
            yield blanks
            yield cell
            blanks = ""
        blanks += " " * (width - _width(cell) + 2)


def _width(cell: Piece) -> int:
    return len(printable(str(cell)))


def print_rows(rows: Iterable[tuple[str, Piece]]) -> None:
    """Print names and values."""
    say(*row_lines(rows))


def row_lines(rows: Iterable[tuple[str, Piece]]) -> list[Line]:
    """Return names and values, a line for each."""
    return [line(Painted(f"{name:<10} ", "bold"), value) if name else line(value) for name, value in rows]


def _images(images: int, ok: int, failed: int) -> str:
    return f"{images} ({ok} ok, {failed} failed)"


def _frames(frames: int, videos: int) -> str:
    return f"{counted(frames, 'frame')} of {counted(videos, 'video')}"


def _found(detections: dict[str, int], conf: float) -> str:
    if not detections:
        return f"nothing with a score of {conf:g} or more"
    shown = ", ".join(f"{label}: {count}" for label, count in islice(detections.items(), LABELS_SHOWN))
    more = len(detections) - LABELS_SHOWN
    return f"{sum(detections.values())} ({shown}{f', and {more} other labels' if more > 0 else ''})"


def _truncated(images: int) -> str:
    which = f"{counted(images, 'image')} {'has' if images == 1 else 'have'}"
    return (
        f"{which} as many candidates as the model gives, and perhaps more objects: raise --min-score, or convert the "
        "model with more: trtjob convert --candidates N"
    )


def _damaged(images: int) -> str:
    which = f"{counted(images, 'image')} {'was' if images == 1 else 'were'}"
    return f"{which} read as far as possible: `damage` in results.jsonl"


def _multi_page(images: int) -> str:
    which = f"{counted(images, 'image')} {'has' if images == 1 else 'have'}"
    return f"{which} more pages or frames, which were not looked at: `pages` in results.jsonl"


def _time(elapsed_s: float, images: int) -> str:
    speed = f", {images / elapsed_s:.1f} images/s" if images and elapsed_s > 0 else ""
    return duration(elapsed_s) + speed
