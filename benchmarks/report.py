"""What a report costs, and how it opens: `python -m benchmarks.report`.

Of jobs of so many records, with three objects each: the time that `finish` takes and the report's share of it, the
memory that it takes, and, in a real Chromium, the first view and filters of all records. Each size runs in a process of
its own, so that its memory is its own.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from benchmarks.constant import LABELS
from benchmarks.million import SIZES
from trtjob.errors import FailureKind
from trtjob.imaging.detections import Detection
from trtjob.jobs.finish import Summary, finish
from trtjob.jobs.folder import RESULTS, SUMMARY, JobFolder, PlanEpoch, ShardManifest, results_key
from trtjob.jobs.plan import write_shard
from trtjob.jobs.records import ImageFailure, Record, read_records, to_line
from trtjob.jobs.report import Report
from trtjob.jobs.spec import Annotate, JobSpec, ModelRef, Options, Source
from trtjob.storage.listing import Entry

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import Tab, browser, find_chromium

SHARD, BLOCK = 10_000, 50
FILTERS = (
    "#score=0.4",
    "#score=0.6&class=a",
    "#search=77&sort=best",
    "#tab=nearly&score=0.7",
    "#sort=random&folder=0003",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """images: records; finish_s, report_s: CPU time of all and of the report; peak_mb: the highest resident memory;
    page_kb: of the page itself; first_s, filter_s: until the first view, and the first of all records, is shown;
    first_mb, filters_mb: what Chromium takes for the page then, and after more filters; None where there is none."""

    images: int
    finish_s: float
    report_s: float
    peak_mb: float
    page_kb: float
    first_s: float | None = None
    first_mb: float | None = None
    filter_s: float | None = None
    filters_mb: float | None = None


def make_job(folder: Path, count: int) -> tuple[JobFolder, JobSpec]:
    """Return a job of so many records, complete but for its finish."""
    spec = JobSpec(
        job_id="bench",
        source=Source(kind="folder", root=str(folder / "photos")),
        model=ModelRef(name="constant", sha256="0" * 64, path="/none", task="detect", labels=LABELS),
        options=Options(conf=0.25, min_score=0.05, iou=0.45, annotate=Annotate.NONE, resize="stretch"),
        output=str(folder),
        created_at=time.time(),
        versions={},
    )
    job = JobFolder.of(spec)
    job.storage.make_root()
    job.open_round(0, "submit")
    numbers = random.Random(1)
    shards = range((count + SHARD - 1) // SHARD)
    for shard in shards:
        records = list(_records(numbers, range(shard * SHARD, min(count, (shard + 1) * SHARD))))
        write_shard(job, 0, shard, [Entry(record.image, 1, "etag") for record in records])
        key = results_key(shard, "1")
        job.storage.write(key, b"".join(map(to_line, records)))
        failed = sum(record.error is not None for record in records)
        manifest = ShardManifest(
            shard=shard, results=key, ok=len(records) - failed, failed=failed, attempt=1, worker="w", device="CPU",
            elapsed_s=1.0, busy_s={},
        )  # fmt: skip
        job.commit_shard(manifest)
    job.commit_epoch(PlanEpoch(epoch=0, reason="submit", first_shard=0, shards=len(shards), images=count, listed=count))
    return job, spec


def _records(numbers: random.Random, images: range) -> Iterator[Record]:
    for number in images:
        name = f"{number // 1000:04d}/{number:07d}.jpg"
        if number % 200 == 199:
            yield Record(name, error=ImageFailure(FailureKind.DECODE, "the file is empty"))
            continue
        scores = sorted((round(numbers.betavariate(0.6, 1.2), 4) for _ in range(3)), reverse=True)
        detections = tuple(_detection(numbers, score) for score in scores if score >= 0.05)
        yield Record(name, "ab" * 32, 640, 480, detections)


def _detection(numbers: random.Random, score: float) -> Detection:
    x, y, class_id = (
        round(numbers.uniform(0, 500), 1),
        round(numbers.uniform(0, 380), 1),
        numbers.randrange(len(LABELS)),
    )
    return Detection(LABELS[class_id], class_id, score, (x, y, round(x + 90.5, 1), round(y + 77.7, 1)))


def measure(folder: Path, count: int) -> Outcome:
    """Finish a job, make its report again, and open it."""
    job, spec = make_job(folder, count)
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest memory so far
    finish_s = min(_finish_s(job, spec) for _ in range(_rounds(count)))
    peak_mb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000
    report_s = min(_report_s(job, spec) for _ in range(_rounds(count)))
    page = Path(job.uri, "report.html")
    outcome = Outcome(count, finish_s, report_s, peak_mb, page.stat().st_size / 1000)
    if (chromium := find_chromium()) is None:
        return outcome
    with browser(chromium, folder / "profile") as tab:
        first_s, first_mb = _opened(tab, page, "")
    with browser(chromium, folder / "profile-2") as tab:
        filter_s, _ = _opened(tab, page, FILTERS[0])
        for address in FILTERS[1:]:
            tab.evaluate(f"location.hash = {json.dumps(address)}; 0")
            time.sleep(0.2)
            tab.settle()
        filters_mb = tab.memory_mb()
    return Outcome(count, finish_s, report_s, peak_mb, outcome.page_kb, first_s, first_mb, filter_s, filters_mb)


def _rounds(count: int) -> int:
    """Return how often a step is measured: the best counts, as what disturbs a machine only ever adds."""
    return max(1, min(5, 500_000 // count))


def _finish_s(job: JobFolder, spec: JobSpec) -> float:
    started = time.process_time()
    finish(job, spec)
    return time.process_time() - started


def _report_s(job: JobFolder, spec: JobSpec) -> float:
    """Return what the report takes, without the reading of the records."""
    summary = job.document(Summary, SUMMARY, remedy="Remove it").model_dump()
    report, taken_s = Report(job, spec), 0.0
    records = read_records(job.storage, RESULTS)
    while some := list(islice(records, BLOCK)):
        started = time.process_time()
        for record in some:
            report.add(record)
        taken_s += time.process_time() - started
    started = time.process_time()
    report.write(summary)
    return taken_s + time.process_time() - started


def _opened(tab: Tab, page: Path, address: str) -> tuple[float, float]:
    """Open a page. Returns the seconds until its images are shown, and megabytes."""
    tab.look(1440, 900)
    started = time.monotonic()
    tab.open(page, address)
    tab.wait_for("document.querySelectorAll('.card').length > 0", timeout_s=120)
    return time.monotonic() - started, tab.memory_mb()


def main() -> int:
    """Run the sizes that are asked for, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="records in a job (default: 10^4 10^5 10^6)")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # the folder of the one size that a child runs
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asdict(measure(arguments.one, arguments.sizes[0]))))
        return 0
    print("| images | finish, CPU | the report's | more | peak MB | page kB | first view | MB | filter | MB after 5 |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(prefix="trtjob-bench-") as folder:
            command = [sys.executable, "-m", "benchmarks.report", str(size), "--one", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        print(_row(Outcome(**json.loads(done.stdout.splitlines()[-1]))), flush=True)
    return 0


def _row(outcome: Outcome) -> str:
    more = outcome.report_s / (outcome.finish_s - outcome.report_s)
    cells = [
        f"{outcome.images:,}",
        f"{outcome.finish_s:.2f} s",
        f"{outcome.report_s:.2f} s",
        f"{more:.0%}",
        f"{outcome.peak_mb:.0f}",
        f"{outcome.page_kb:.0f}",
    ]
    if outcome.first_s is not None:
        cells += [
            f"{outcome.first_s:.1f} s",
            f"{outcome.first_mb:.0f}",
            f"{outcome.filter_s:.1f} s",
            f"{outcome.filters_mb:.0f}",
        ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
