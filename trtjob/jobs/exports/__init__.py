"""Results in the formats of other tools. Adding a format: one function, one line in FORMATS, one test."""

from collections.abc import Callable
from contextlib import closing
from enum import StrEnum
from functools import partial
from pathlib import Path

from trtjob.errors import ConfigError
from trtjob.jobs.exports.coco import write_coco
from trtjob.jobs.exports.csv_table import write_csv
from trtjob.jobs.exports.darknet import write_darknet
from trtjob.jobs.exports.megadetector import write_megadetector
from trtjob.jobs.exports.results import Exported, Results
from trtjob.jobs.exports.yolo import write_yolo
from trtjob.jobs.folder import ERRORS, JOB, RECEIPT, REPORT, RESULTS, SUMMARY, JobFolder
from trtjob.jobs.spec import JobSpec


class ExportFormat(StrEnum):
    """The formats, by the names that `--format` takes."""

    COCO = "coco"
    MEGADETECTOR = "megadetector"
    DARKNET = "darknet"
    YOLO = "yolo"
    CSV = "csv"


FORMATS: dict[ExportFormat, Callable[[Results, Path], None]] = {
    ExportFormat.COCO: write_coco,
    ExportFormat.MEGADETECTOR: write_megadetector,
    ExportFormat.DARKNET: write_darknet,
    ExportFormat.YOLO: write_yolo,
    ExportFormat.CSV: write_csv,
}
_JOBS_OWN = frozenset({JOB, RESULTS, ERRORS, SUMMARY, REPORT, RECEIPT})
_WITH_BURSTS = (ExportFormat.COCO, ExportFormat.MEGADETECTOR, ExportFormat.CSV)
# What a user gets who names no file.
DEFAULT_NAMES = {
    ExportFormat.COCO: "coco.json",
    ExportFormat.MEGADETECTOR: "megadetector.json",
    ExportFormat.DARKNET: "darknet.json",
    ExportFormat.YOLO: "yolo",
    ExportFormat.CSV: "results.csv",
}


def export(
    folder: JobFolder,
    spec: JobSpec,
    format: ExportFormat,
    out: Path,
    *,
    conf: float,
    raw: bool = False,
    burst_s: float | None = None,
) -> Exported:
    """Write a job's results in another format to this machine: a file, or for `yolo` a folder. Memory stays flat.

    conf: detections below it are left out; raw: texts of a CSV as they are, formulas too; burst_s: see `Results`.
    Returns how much was written.
    Raises ConfigError where the format cannot hold the results, StorageError where a file cannot be read or written.

    >>> folder = JobFolder.at("results/photos-1a2b3c4d")
    >>> export(folder, folder.spec(), ExportFormat.CSV, Path("pets.csv"), conf=0.25)
    Exported(images=2, detections=1, failed=0)
    """
    if spec.model.task == "classify" and format is not ExportFormat.CSV:
        raise ConfigError(
            f"a classifier's results have no boxes, so they cannot be written as {format}: use --format csv"
        )
    if raw and format is not ExportFormat.CSV:
        raise ConfigError(f"--raw is for csv, but the format is {format}: leave it out")
    if burst_s is not None:
        _check_bursts(spec, format)
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder '{out.parent}' to write '{out.name}' into")
    if out.name in _JOBS_OWN and str(out.parent.resolve()) == folder.uri:
        raise ConfigError(f"'{out}' is the job's own {out.name}, which an export may not replace: name another file")
    write = partial(write_csv, raw=True) if raw else FORMATS[format]
    with closing(Results(folder, spec, conf, burst_s)) as job:
        write(job, out)
        return job.exported()


def _check_bursts(spec: JobSpec, format: ExportFormat) -> None:
    if format not in _WITH_BURSTS:
        raise ConfigError(f"--burst is for {', '.join(_WITH_BURSTS)}, but the format is {format}: leave it out")
    if not spec.options.metadata:
        raise ConfigError(
            f"--burst needs the times of the images, and job '{spec.job_id}' has none: run it with --metadata"
        )


__all__ = ["DEFAULT_NAMES", "FORMATS", "ExportFormat", "Exported", "export"]
