"""Results in the formats of other tools. Adding a format: one function, one line in FORMATS, one test."""

from collections.abc import Callable, Collection
from contextlib import closing
from enum import StrEnum
from functools import partial
from pathlib import Path

from trtjob.errors import ConfigError
from trtjob.jobs.exports.coco import write_coco
from trtjob.jobs.exports.csv_table import write_csv
from trtjob.jobs.exports.darknet import write_darknet
from trtjob.jobs.exports.label_studio import write_label_studio
from trtjob.jobs.exports.megadetector import write_megadetector
from trtjob.jobs.exports.results import Exported, Results, Shape
from trtjob.jobs.exports.yolo import write_yolo
from trtjob.jobs.folder import ERRORS, JOB, RECEIPT, REPORT, RESULTS, SUMMARY, JobFolder
from trtjob.jobs.spec import JobSpec


class ExportFormat(StrEnum):
    """The formats, by the names that `--format` takes."""

    COCO = "coco"
    MEGADETECTOR = "megadetector"
    DARKNET = "darknet"
    YOLO = "yolo"
    LABEL_STUDIO = "label-studio"
    CSV = "csv"


Write = Callable[[Results, Path], None]

FORMATS: dict[ExportFormat, Write] = {
    ExportFormat.COCO: write_coco,
    ExportFormat.MEGADETECTOR: write_megadetector,
    ExportFormat.DARKNET: write_darknet,
    ExportFormat.YOLO: write_yolo,
    ExportFormat.LABEL_STUDIO: write_label_studio,
    ExportFormat.CSV: write_csv,
}
_HOLDS_SHAPES = frozenset({ExportFormat.COCO, ExportFormat.YOLO, ExportFormat.LABEL_STUDIO})
_HOLDS_CLASSES = frozenset({ExportFormat.LABEL_STUDIO, ExportFormat.CSV})
_JOBS_OWN = frozenset({JOB, RESULTS, ERRORS, SUMMARY, REPORT, RECEIPT})
_WITH_BURSTS = (ExportFormat.COCO, ExportFormat.MEGADETECTOR, ExportFormat.CSV)
# What a user gets who names no file.
DEFAULT_NAMES = {
    ExportFormat.COCO: "coco.json",
    ExportFormat.MEGADETECTOR: "megadetector.json",
    ExportFormat.DARKNET: "darknet.json",
    ExportFormat.YOLO: "yolo",
    ExportFormat.LABEL_STUDIO: "label-studio.json",
    ExportFormat.CSV: "results.csv",
}


class Variant(StrEnum):
    """Ways to write a format, by the options that ask for them."""

    RAW = "--raw"
    POLYGONS = "--polygons"
    NO_SCORES = "--no-scores"


_VARIANTS: dict[Variant, dict[ExportFormat, Write]] = {
    Variant.RAW: {ExportFormat.CSV: partial(write_csv, raw=True)},
    Variant.POLYGONS: {
        ExportFormat.COCO: partial(write_coco, polygons=True),
        ExportFormat.LABEL_STUDIO: partial(write_label_studio, polygons=True),
    },
    Variant.NO_SCORES: {ExportFormat.YOLO: partial(write_yolo, scores=False)},
}


def export(
    folder: JobFolder,
    spec: JobSpec,
    format: ExportFormat,
    out: Path,
    *,
    conf: float,
    variants: Collection[Variant] = (),
    burst_s: float | None = None,
) -> Exported:
    """Write a job's results in another format to this machine: a file, or for `yolo` a folder. Memory stays flat.

    conf: detections below it are left out; burst_s: see `Results`. Returns how much was written.
    Raises ConfigError where the format cannot hold the results, StorageError where a file cannot be read or written.

    >>> folder = JobFolder.at("results/photos-1a2b3c4d")
    >>> export(folder, folder.spec(), ExportFormat.CSV, Path("pets.csv"), conf=0.25)
    Exported(images=2, detections=1, failed=0, dropped=())
    """
    if spec.model.task == "classify" and format not in _HOLDS_CLASSES:
        raise ConfigError(
            f"a classifier's results have no boxes, so they cannot be written as {format}: "
            "use --format csv or label-studio"
        )
    write = _writer(format, variants)
    if burst_s is not None:
        _check_bursts(spec, format)
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder '{out.parent}' to write '{out.name}' into")
    if out.name in _JOBS_OWN and str(out.parent.resolve()) == folder.uri:
        raise ConfigError(f"'{out}' is the job's own {out.name}, which an export may not replace: name another file")
    with closing(Results(folder, spec, conf, burst_s)) as job:
        write(job, out)
        return job.exported(holds=tuple(Shape) if format in _HOLDS_SHAPES else ())


def _check_bursts(spec: JobSpec, format: ExportFormat) -> None:
    if format not in _WITH_BURSTS:
        raise ConfigError(f"--burst is for {', '.join(_WITH_BURSTS)}, but the format is {format}: leave it out")
    if not spec.options.metadata:
        raise ConfigError(
            f"--burst needs the times of the images, and job '{spec.job_id}' has none: run it with --metadata"
        )


def _writer(format: ExportFormat, variants: Collection[Variant]) -> Write:
    write = FORMATS[format]
    for variant in variants:
        if format not in _VARIANTS[variant]:
            takers = " and ".join(_VARIANTS[variant])
            raise ConfigError(f"{variant} is for {takers}, but the format is {format}: leave it out")
        write = _VARIANTS[variant][format]
    return write


__all__ = ["DEFAULT_NAMES", "FORMATS", "ExportFormat", "Exported", "Variant", "export"]
