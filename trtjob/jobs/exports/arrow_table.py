"""Results as tables of Apache Arrow: a row for each image, or for each detection."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

from trtjob.errors import MissingDependencyError
from trtjob.imaging.metadata import Metadata
from trtjob.jobs.records import Record, to_line

if TYPE_CHECKING:
    import pyarrow as pa

Rows = Literal["detection", "image"]

BATCH_RECORDS = 10_000  # read into one part of a table

_ARROW_OF = {"str": "string", "float": "float64", "int": "int32"}


def record_batches(records: Iterable[Record], rows: Rows) -> "Iterator[pa.RecordBatch]":
    """Yield records as parts of a table, at least one, without holding more than one.

    `detection`: a row for each detection, or for each class of a classifier, with its image's name and size; an image
    without any has none. `image`: a row for each record, with the fields that it has in results.jsonl.
    A name that is no valid UTF-8 is written with its bytes escaped. Raises MissingDependencyError.
    """
    pa, schema = _pyarrow(), schema_of(rows)
    rows_of = _of_detections if rows == "detection" else _of_image
    left = iter(records)
    part = list(islice(left, BATCH_RECORDS))
    while True:
        yield pa.RecordBatch.from_pylist(list(chain.from_iterable(map(rows_of, part))), schema)
        if not (part := list(islice(left, BATCH_RECORDS))):
            return


def schema_of(rows: Rows) -> "pa.Schema":
    """Return the columns of a table."""
    return _detection_schema() if rows == "detection" else _image_schema()


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError as err:
        raise MissingDependencyError("pyarrow", extra="parquet") from err
    return pa


def _detection_schema() -> "pa.Schema":
    pa = _pyarrow()
    sizes: list[tuple[str, Any]] = [("image", pa.string()), ("width", pa.int32()), ("height", pa.int32())]
    found = [("label", pa.string()), ("class_id", pa.int32()), ("score", pa.float64())]
    return pa.schema([*sizes, *found, *((name, pa.float64()) for name in ("x1", "y1", "x2", "y2"))])


def _image_schema() -> "pa.Schema":
    pa = _pyarrow()
    named = [("label", pa.string()), ("class_id", pa.int32()), ("score", pa.float64())]
    point = pa.list_(pa.float64())
    detection = pa.struct(
        [
            *named,
            ("box", pa.list_(pa.float64(), 4)),
            ("mask", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])),
            ("polygons", pa.list_(pa.list_(pa.int32()))),
            ("keypoints", pa.list_(point)),
            ("box_rotated", pa.struct([("corners", pa.list_(point)), ("angle", pa.float64())])),
        ]
    )
    kinds = {each.name: str(each.type).split(" ")[0] for each in fields(Metadata)}
    metadata = pa.struct([(name, getattr(pa, _ARROW_OF[kind])()) for name, kind in kinds.items()])
    return pa.schema(
        [
            ("image", pa.string()),
            ("sha256", pa.string()),
            ("frame", pa.int64()),
            ("time_s", pa.float64()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("pages", pa.int32()),
            ("damage", pa.string()),
            ("truncated_file", pa.bool_()),
            ("metadata", metadata),
            ("error", pa.struct([("kind", pa.string()), ("message", pa.string()), ("attempts", pa.int32())])),
            ("detections", pa.list_(detection)),
            ("truncated", pa.bool_()),
            ("classes", pa.list_(pa.struct(named))),
            ("labels", pa.list_(pa.struct(named))),
        ]
    )


def _of_image(record: Record) -> Iterator[dict[str, Any]]:
    fields_of_record: dict[str, Any] = json.loads(to_line(record))
    fields_of_record["image"] = _text(record.image)
    yield fields_of_record


def _of_detections(record: Record) -> Iterator[dict[str, Any]]:
    common = {"image": _text(record.image), "width": record.width, "height": record.height}
    for found in record.detections or ():
        x1, y1, x2, y2 = found.box
        named = {"label": found.label, "class_id": found.class_id, "score": found.score}
        yield common | named | {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    for each in record.classifications:
        yield common | {"label": each.label, "class_id": each.class_id, "score": each.score}


def _text(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()
