"""What commands print of jobs on standard output."""

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from trtjob.api.progress import duration
from trtjob.cli.ui.say import say, say_json
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
    from trtjob.jobs.folder import REPORT, RESULTS, SUMMARY, JobFolder
    from trtjob.jobs.spec import Annotate

    folder = JobFolder.of(view.spec)
    summary = Summary.model_validate_json(folder.storage.read(SUMMARY))
    rows = [("images", _images(summary.images, summary.ok, summary.failed))]
    if summary.frames:
        rows.append(("of videos", _frames(summary.frames, summary.videos)))
    if summary.failures:
        rows.append(("failed", ", ".join(f"{count} {kind}" for kind, count in summary.failures.items())))
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


def print_table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print columns, as wide as they need."""
    say(*table_lines(heads, rows))


def table_lines(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return columns, as wide as they need, a line for each row."""
    lines = [heads, *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values."""
    say(*row_lines(rows))


def row_lines(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return names and values, a line for each."""
    return [printable(f"{name:<10} {value}" if name else value) for name, value in rows]


def _images(images: int, ok: int, failed: int) -> str:
    return f"{images} ({ok} ok, {failed} failed)"


def _frames(frames: int, videos: int) -> str:
    return f"{frames} frames of {videos} video{'' if videos == 1 else 's'}"


def _found(detections: dict[str, int], conf: float) -> str:
    if not detections:
        return f"nothing with a score of {conf:g} or more"
    shown = ", ".join(f"{label}: {count}" for label, count in islice(detections.items(), LABELS_SHOWN))
    more = len(detections) - LABELS_SHOWN
    return f"{sum(detections.values())} ({shown}{f', and {more} other labels' if more > 0 else ''})"


def _truncated(images: int) -> str:
    which = "1 image has" if images == 1 else f"{images} images have"
    return (
        f"{which} as many candidates as the model gives, and perhaps more objects: raise --min-score, or convert the "
        "model with more: trtjob convert --candidates N"
    )


def _damaged(images: int) -> str:
    which = "1 image was" if images == 1 else f"{images} images were"
    return f"{which} read as far as possible: `damage` in results.jsonl"


def _multi_page(images: int) -> str:
    which = "1 image has" if images == 1 else f"{images} images have"
    return f"{which} more pages or frames, which were not looked at: `pages` in results.jsonl"


def _time(elapsed_s: float, images: int) -> str:
    speed = f", {images / elapsed_s:.1f} images/s" if images and elapsed_s > 0 else ""
    return duration(elapsed_s) + speed
