"""Parquet files (parquet.apache.org), for data frames and databases: a row for each detection, or for each image."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trtjob.jobs.exports.arrow_table import Rows, record_batches, schema_of
from trtjob.jobs.exports.results import Results
from trtjob.jobs.records import Record
from trtjob.storage import LocalStorage


def write_parquet(results: Results, out: Path, *, per_image: bool = False) -> None:
    """Write one file, ten thousand images at a time. per_image: a row for each image, with its detections as a list.

    Raises MissingDependencyError.
    """
    rows: Rows = "image" if per_image else "detection"
    schema = schema_of(rows)
    from pyarrow import parquet

    with LocalStorage(out.parent).writing(out.name) as file, parquet.ParquetWriter(file, schema) as writer:
        for batch in record_batches(_counting(results), rows):
            writer.write_batch(batch)


def _counting(results: Results) -> Iterator[Record]:
    """Yield the records with the detections that count."""
    for record in results.records():
        yield record if record.detections is None else replace(record, detections=results.counting(record))
