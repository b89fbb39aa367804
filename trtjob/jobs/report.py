"""report.html: a job at a glance, in one file that needs nothing else."""

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import quote

from trtjob.jobs.records import Record
from trtjob.jobs.spec import JobSpec

MAX_PICTURES = 48
MAX_FAILURES = 200
MAX_LABELS = 50

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #3b82f6; --soft: #8882; --bad: #dc2626 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin-top: 2.5rem }
.sub { opacity: .7 } .bad { color: var(--bad) }
.numbers { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; padding: 0 }
.numbers div { background: var(--soft); border-radius: 8px; padding: .6rem 1rem; min-width: 7rem }
.numbers b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums; width: 6rem } td.name { overflow-wrap: anywhere }
.bar { background: var(--bar); height: .8rem; border-radius: 3px; min-width: 2px; display: inline-block }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 1rem }
figure { margin: 0 } figure img { width: 100%; height: 170px; object-fit: contain; background: var(--soft) }
figcaption { font-size: .8rem; overflow-wrap: anywhere; opacity: .8 }
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """An annotated image; key: where it lies in the job's folder."""

    key: str
    image: str
    labels: Counter[str]


@dataclass(slots=True)
class Highlights:
    """What the report shows of the images: the first pictures and the first failures."""

    pictures: list[Picture] = field(default_factory=list)
    failures: list[Record] = field(default_factory=list)

    @property
    def wants_picture(self) -> bool:
        return len(self.pictures) < MAX_PICTURES

    def add_picture(self, key: str, image: str, labels: Counter[str]) -> None:
        self.pictures.append(Picture(key, image, labels))

    def add_failure(self, record: Record) -> None:
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(record)


def render_report(spec: JobSpec, summary: dict[str, Any], highlights: Highlights) -> bytes:
    """Return the report as UTF-8. summary: the fields of `summary.json`."""
    started = datetime.fromtimestamp(spec.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(spec.job_id)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(spec.source.shown)}</h1>",
        f'<p class="sub">model {_text(spec.model.name)}, job {_text(spec.job_id)}, submitted {started}'
        f"{_devices(summary)}</p>",
        f'<p class="bad">{_text(summary["incomplete"])}</p>' if summary["incomplete"] else "",
        _numbers(spec, summary),
        _labels(spec, summary),
        _failures(summary, highlights.failures),
        _pictures(highlights.pictures, spec),
        _stages(summary),
        "</body></html>\n",
    ]
    return "\n".join(filter(None, parts)).encode()


def _numbers(spec: JobSpec, summary: dict[str, Any]) -> str:
    numbers = {"images": summary["images"], "failed": summary["failed"]}
    if spec.model.task == "detect":
        numbers["with detections"] = summary["images_with_detections"]
        numbers[f"detections of score {summary['conf']:g} or more"] = sum(summary["detections"].values())
    cells = (
        f"<div{' class=bad' if name == 'failed' and number else ''}><b>{number:,}</b>{escape(name)}</div>"
        for name, number in numbers.items()
    )
    ignored = ", ".join(f"{count:,} {suffix}" for suffix, count in summary["ignored"].items())
    note = f'<p class="sub">Not taken: {_text(ignored)}</p>' if ignored else ""
    return f'<div class="numbers">{"".join(cells)}</div>{note}'


def _devices(summary: dict[str, Any]) -> str:
    return f", run on {_text(', '.join(summary['devices']))}" if summary["devices"] else ""


def _labels(spec: JobSpec, summary: dict[str, Any]) -> str:
    counts = list(summary["detections"].items())
    more = f"<p>... and {len(counts) - MAX_LABELS} more in summary.json</p>" if len(counts) > MAX_LABELS else ""
    heading = "Detections" if spec.model.task == "detect" else "Images by class"
    return _bars(heading, [(label, count, f"{count:,}") for label, count in counts[:MAX_LABELS]]) + more


def _stages(summary: dict[str, Any]) -> str:
    seconds = sorted(summary["busy_s"].items(), key=lambda item: -item[1])
    return _bars("Seconds of work, over all threads", [(stage, busy, f"{busy:,.1f}") for stage, busy in seconds])


def _bars(heading: str, rows: list[tuple[str, float, str]]) -> str:
    """Return a table of names, numbers as they are shown, and bars; the first row has the longest."""
    if not rows:
        return ""
    longest = rows[0][1] or 1
    cells = "".join(
        f'<tr><td class="name">{_text(name)}</td><td class="n">{shown}</td>'
        f'<td style="width:60%"><span class="bar" style="width:{100 * value / longest:.1f}%"></span></td></tr>'
        for name, value, shown in rows
    )
    return f"<h2>{heading}</h2><table>{cells}</table>"


def _failures(summary: dict[str, Any], failures: list[Record]) -> str:
    if not failures:
        return ""
    rows = "".join(
        f'<tr><td class="name">{_text(record.image)}</td><td>{record.error.kind}</td>'
        f'<td class="name">{_text(record.error.message)}</td></tr>'
        for record in failures
        if record.error is not None
    )
    left = summary["failed"] - len(failures)
    more = f"<p>... and {left:,} more in errors.jsonl</p>" if left else ""
    head = "<tr><th>image</th><th>kind</th><th>what happened</th></tr>"
    return f"<h2>Failed images</h2><table>{head}{rows}</table>{more}"


def _pictures(pictures: list[Picture], spec: JobSpec) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f'<figure><a href="{_link(picture.key)}"><img loading="lazy" alt="" src="{_link(picture.key)}"></a>'
        f"<figcaption>{_text(picture.image)}: {_text(_counted(picture.labels))}</figcaption></figure>"
        for picture in pictures
    )
    heading = "The first images with detections" if spec.model.task == "detect" else "The first images"
    return f'<h2>{heading}</h2><div class="grid">{figures}</div>'


def _counted(labels: Counter[str]) -> str:
    return ", ".join(label if count == 1 else f"{count} {label}" for label, count in labels.most_common(6))


def _link(key: str) -> str:
    return quote(os.fsencode(key))


def _text(value: str) -> str:
    """Escape a text for HTML; bytes of a name that are no UTF-8 become question marks."""
    return escape(value.encode("utf-8", "replace").decode())
