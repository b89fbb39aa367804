"""A job's results, for Python programs: read when they are asked for, however many there are."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from trtjob.api.given import as_classes, as_score
from trtjob.api.image_result import Classes, ImageResult
from trtjob.api.job_folders import job_folder
from trtjob.api.session import settings_for
from trtjob.api.tables import html_table
from trtjob.counted import counted
from trtjob.errors import ConfigError, MissingDependencyError, UnknownImageError
from trtjob.jobs.records import read_records

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from trtjob.jobs.exports.arrow_table import Rows
    from trtjob.jobs.finish import Summary
    from trtjob.jobs.folder import JobFolder

IMAGES_SHOWN = 10


@dataclass(frozen=True, slots=True, repr=False)
class Results:
    """The results of a job, sorted by image; each walk over them reads them anew and holds one image at a time.

    labels, min_score: what detections and classes must have to be among them, one of the labels where there are any;
    images without any are then left out.

    >>> import trtjob
    >>> results = trtjob.results("results/photos-1a2b3c4d")
    >>> [(result.image, len(result.detections)) for result in results]
    [('a.jpg', 1), ('b.jpg', 0)]
    >>> list(results.filter(label="dog", min_score=0.5).images())
    ['a.jpg']
    >>> results["b.jpg"].detections
    ()
    >>> results["c.jpg"]
    Traceback (most recent call last):
    trtjob.errors.UnknownImageError: job 'photos-1a2b3c4d' has no image 'c.jpg'
    """

    _folder: "JobFolder"
    labels: tuple[str, ...] = ()
    min_score: float = 0.0

    @classmethod
    def of(cls, folder: "JobFolder") -> "Results":
        """Return the results in a job's folder. Raises JobError where there are none yet."""
        from trtjob.jobs.folder import RESULTS

        folder.check_has(RESULTS)
        return cls(folder)

    @property
    def summary(self) -> "Summary":
        """The job in numbers, of all its images. Raises StorageError."""
        from trtjob.jobs.finish import Summary

        return Summary.of(self._folder)

    def filter(self, *, label: Classes | None = None, min_score: float = 0.0) -> "Results":
        """Return the images with a detection or class that has the label, and at least the score, with these alone.

        label: a class's name, or its number, or several of these. Raises ConfigError for what is no score, and no
        class of the model.
        """
        least = as_score("min_score", min_score)
        labels = self.labels if label is None else self._labels_of(label)
        return replace(self, labels=labels, min_score=max(least, self.min_score))

    def _labels_of(self, classes: Classes) -> tuple[str, ...]:
        from trtjob.jobs.spec import class_ids_from

        known = self._folder.spec().model.labels
        # A number is one, also where another class has it for a name.
        numbered = dict(enumerate(known))
        names = (
            numbered.get(each, str(each)) if isinstance(each, int) else each for each in as_classes("label", classes)
        )
        ids = class_ids_from(",".join(names), known, option="label")
        return tuple(known[number] for number in ids)

    def __iter__(self) -> Iterator[ImageResult]:
        """Yield the images. Raises StorageError where the results are damaged or cannot be read."""
        from trtjob.jobs.folder import RESULTS

        results = map(ImageResult, read_records(self._folder.storage, RESULTS))
        if not self._is_filtered:
            return results
        filtered = (result.with_only(self.labels, self.min_score) for result in results)
        return (result for result in filtered if result.detections or result.classes)

    @property
    def _is_filtered(self) -> bool:
        return bool(self.labels) or self.min_score > 0

    def __getitem__(self, image: str | Path) -> ImageResult:
        """Return one image, without reading all. Raises UnknownImageError, which is a KeyError, and StorageError."""
        from trtjob.jobs.folder import RESULTS
        from trtjob.jobs.lookup import find_record

        with self._folder.storage.open(self._folder.storage.entry(RESULTS)) as file:
            record = find_record(file, str(image))
        if record is None:
            raise UnknownImageError(str(image), job_id=self._folder.spec().job_id)
        result = ImageResult(record)
        return result.with_only(self.labels, self.min_score) if self._is_filtered else result

    def __contains__(self, image: object) -> bool:
        try:
            return isinstance(image, str | Path) and self[image] is not None
        except UnknownImageError:
            return False

    def images(self) -> Iterator[str]:
        """Yield the names of the images: their paths below the source."""
        return (result.image for result in self)

    def failures(self) -> Iterator[ImageResult]:
        """Yield the images that have failed."""
        return (result for result in replace(self, labels=(), min_score=0.0) if result.error is not None)

    def to_arrow(self, rows: "Rows" = "detection") -> "pyarrow.Table":
        """Return a table: a row for each detection, or class; with `image` a row for each image, with lists in it.

        The table is in memory as a whole; `trtjob export --format parquet` writes one of any size.
        Raises MissingDependencyError, ConfigError for other rows.
        """
        from trtjob.jobs.exports.arrow_table import Rows, record_batches, schema_of

        if rows not in get_args(Rows):
            raise ConfigError(f"rows {rows!r}: expected {' or '.join(get_args(Rows))}")
        schema = schema_of(rows)
        import pyarrow as pa

        return pa.Table.from_batches(record_batches((result.record for result in self), rows), schema)

    def to_pandas(self, rows: "Rows" = "detection") -> "pandas.DataFrame":
        """Return such a table as pandas has it. Raises MissingDependencyError."""
        _expect("pandas")
        return self.to_arrow(rows).to_pandas()

    def to_polars(self, rows: "Rows" = "detection") -> "polars.DataFrame":
        """Return such a table as Polars has it. Raises MissingDependencyError."""
        frame: polars.DataFrame = _expect("polars").from_arrow(self.to_arrow(rows))
        return frame

    def __repr__(self) -> str:
        return f"<trtjob.Results {self._folder.uri}>"

    def _repr_html_(self) -> str:
        shown = [_row(result) for result in islice(self, IMAGES_SHOWN)]
        summary = self.summary
        said = f"{self._folder.uri}: {counted(summary.images, 'image')}, {summary.failed:,} failed"
        title = (
            f"{said}; those with {' or '.join(self.labels) or 'anything'} from {self.min_score:g} on"
            if self._is_filtered
            else said
        )
        return html_table(f"{title} (the first {len(shown)})", ("image", "found", "best"), shown)


def results(place: str | Path) -> Results:
    """Return the results of a job, by its folder, its s3:// prefix or its id.

    Raises JobError where there are none yet, ConfigError, UnknownJobError, StorageError.
    """
    return Results.of(job_folder(str(place), settings_for))


def _row(result: ImageResult) -> tuple[str, str, str]:
    if result.error is not None:
        return result.image, "failed", result.error.message
    found = result.detections or result.classes
    return result.image, str(len(found)), f"{found[0].label} {found[0].score:.2f}" if found else ""


def _expect(package: str) -> Any:
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as err:
        raise MissingDependencyError(package, extra=package) from err
