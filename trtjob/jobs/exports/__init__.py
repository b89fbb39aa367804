"""Results in the formats of other tools. Adding a format: one function, its lines in the tables here, one test."""

from collections.abc import Callable, Collection
from contextlib import closing
from enum import StrEnum
from functools import partial
from pathlib import Path

from trtjob.errors import ConfigError
from trtjob.jobs.exports.coco import write_coco
from trtjob.jobs.exports.coco_results import write_coco_results
from trtjob.jobs.exports.csv_table import write_csv
from trtjob.jobs.exports.cvat import write_cvat
from trtjob.jobs.exports.darknet import write_darknet
from trtjob.jobs.exports.label_studio import write_label_studio
from trtjob.jobs.exports.labelme import write_labelme
from trtjob.jobs.exports.megadetector import write_megadetector
from trtjob.jobs.exports.parquet import write_parquet
from trtjob.jobs.exports.results import Exported, Results, Shape
from trtjob.jobs.exports.voc import write_voc
from trtjob.jobs.exports.yolo import write_yolo
from trtjob.jobs.folder import ERRORS, JOB, RECEIPT, REPORT, RESULTS, SUMMARY, JobFolder
from trtjob.jobs.spec import JobSpec


class ExportFormat(StrEnum):
    """The formats, by the names that `--format` takes."""

    COCO = "coco"
    COCO_RESULTS = "coco-results"
    MEGADETECTOR = "megadetector"
    DARKNET = "darknet"
    YOLO = "yolo"
    VOC = "voc"
    LABELME = "labelme"
    CVAT = "cvat"
    LABEL_STUDIO = "label-studio"
    CSV = "csv"
    PARQUET = "parquet"


Write = Callable[..., None]  # of results and a path, and of what makes a variant

FORMATS: dict[ExportFormat, Write] = {
    ExportFormat.COCO: write_coco,
    ExportFormat.COCO_RESULTS: write_coco_results,
    ExportFormat.MEGADETECTOR: write_megadetector,
    ExportFormat.DARKNET: write_darknet,
    ExportFormat.YOLO: write_yolo,
    ExportFormat.VOC: write_voc,
    ExportFormat.LABELME: write_labelme,
    ExportFormat.CVAT: write_cvat,
    ExportFormat.LABEL_STUDIO: write_label_studio,
    ExportFormat.CSV: write_csv,
    ExportFormat.PARQUET: write_parquet,
}
_ALL_SHAPES = frozenset(Shape)
_SHAPES = {
    ExportFormat.COCO: _ALL_SHAPES,
    ExportFormat.COCO_RESULTS: _ALL_SHAPES - {Shape.ROTATED},
    ExportFormat.YOLO: _ALL_SHAPES,
    ExportFormat.LABELME: _ALL_SHAPES,
    ExportFormat.CVAT: _ALL_SHAPES,
    ExportFormat.LABEL_STUDIO: _ALL_SHAPES,
}
_HOLDS_CLASSES = frozenset({ExportFormat.LABEL_STUDIO, ExportFormat.CSV, ExportFormat.PARQUET})
_JOBS_OWN = frozenset({JOB, RESULTS, ERRORS, SUMMARY, REPORT, RECEIPT})
_WITH_BURSTS = (ExportFormat.COCO, ExportFormat.MEGADETECTOR, ExportFormat.CSV)
# What a user gets who names no file.
DEFAULT_NAMES = {
    ExportFormat.COCO: "coco.json",
    ExportFormat.MEGADETECTOR: "megadetector.json",
    ExportFormat.DARKNET: "darknet.json",
    ExportFormat.COCO_RESULTS: "coco-results.json",
    ExportFormat.YOLO: "yolo",
    ExportFormat.VOC: "voc",
    ExportFormat.LABELME: "labelme",
    ExportFormat.CVAT: "cvat.xml",
    ExportFormat.LABEL_STUDIO: "label-studio.json",
    ExportFormat.CSV: "results.csv",
    ExportFormat.PARQUET: "results.parquet",
}


class Variant(StrEnum):
    """Ways to write a format, by the options that ask for them."""

    RAW = "--raw"
    POLYGONS = "--polygons"
    WITH_SCORES = "--with-scores"
    PER_IMAGE = "--per-image"


# Each by the argument that says so to the functions of these formats.
_VARIANTS: dict[Variant, tuple[str, tuple[ExportFormat, ...]]] = {
    Variant.RAW: ("raw", (ExportFormat.CSV,)),
    Variant.POLYGONS: ("polygons", (ExportFormat.COCO, ExportFormat.LABEL_STUDIO)),
    Variant.WITH_SCORES: ("scores", (ExportFormat.YOLO,)),
    Variant.PER_IMAGE: ("per_image", (ExportFormat.CSV, ExportFormat.PARQUET)),
}


def export(
    folder: JobFolder,
    spec: JobSpec,
    format: ExportFormat,
    out: Path,
    *,
    conf: float,
    class_ids: Collection[int] | None = None,
    variants: Collection[Variant] = (),
    burst_s: float | None = None,
    truth: Path | None = None,
) -> Exported:
    """Write a job's results in another format to this machine, as a file or, for labels of single images, a folder.

    Memory stays flat.

    conf, class_ids, burst_s: see `Results`; truth: COCO's file with the ids for its results. Returns how much was
    written.
    Raises ConfigError where the format cannot hold the results, StorageError where a file cannot be read or written.

    >>> folder = JobFolder.at("results/photos-1a2b3c4d")
    >>> export(folder, folder.spec(), ExportFormat.CSV, Path("pets.csv"), conf=0.25)
    Exported(images=2, detections=1, failed=0, dropped=())
    """
    if spec.model.task == "classify" and format not in _HOLDS_CLASSES:
        raise ConfigError(
            f"a classifier's results have no boxes, so they cannot be written as {format}: "
            "use --format csv, parquet or label-studio"
        )
    write = _writer(format, variants, truth)
    if burst_s is not None:
        _check_bursts(spec, format)
    if str(out) == "-":
        raise ConfigError("--output '-': an export is a file or a folder, and is not written to standard output")
    if out.name in ("", ".."):
        raise ConfigError(
            f"--output '{out}' has no name for what is written. Give one, such as {DEFAULT_NAMES[format]}"
        )
    if out.is_symlink() and not out.is_fifo():  # what it leads to is written, and the link stays
        out = out.resolve()
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder '{out.parent}' to write '{out.name}' into")
    if out.name in _JOBS_OWN and str(out.parent.resolve()) == folder.uri:
        raise ConfigError(f"'{out}' is the job's own {out.name}, which an export may not replace: name another file")
    with closing(Results(folder, spec, conf, burst_s, class_ids)) as job:
        write(job, out)
        return job.exported(holds=_holds(format, variants))


def _check_bursts(spec: JobSpec, format: ExportFormat) -> None:
    if format not in _WITH_BURSTS:
        raise ConfigError(f"--burst is for {', '.join(_WITH_BURSTS)}, but the format is {format}: leave it out")
    if not spec.options.metadata:
        raise ConfigError(
            f"--burst needs the times of the images, and job '{spec.job_id}' has none: run it with --metadata"
        )


def _writer(format: ExportFormat, variants: Collection[Variant], truth: Path | None) -> Write:
    if truth is not None and format is not ExportFormat.COCO_RESULTS:
        raise ConfigError(f"--truth is for coco-results, but the format is {format}: leave it out")
    if truth is None and format is ExportFormat.COCO_RESULTS:
        raise ConfigError("--format coco-results needs --truth: images and categories get the ids of that file")
    write = FORMATS[format] if truth is None else partial(write_coco_results, truth=truth)
    for variant in variants:
        argument, takers = _VARIANTS[variant]
        if format not in takers:
            raise ConfigError(f"{variant} is for {' and '.join(takers)}, but the format is {format}: leave it out")
        write = partial(write, **{argument: True})
    return write


def _holds(format: ExportFormat, variants: Collection[Variant]) -> frozenset[Shape]:
    """Return what a format has beside boxes."""
    if format is ExportFormat.PARQUET and Variant.PER_IMAGE in variants:
        return frozenset(Shape)
    return _SHAPES.get(format, frozenset())


__all__ = ["DEFAULT_NAMES", "FORMATS", "ExportFormat", "Exported", "Variant", "export"]
