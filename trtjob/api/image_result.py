"""What is known of one image, for Python programs."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from trtjob.api.given import as_classes, as_score
from trtjob.api.tables import html_table
from trtjob.errors import MissingDependencyError
from trtjob.imaging.detections import Classification, Detection
from trtjob.jobs.records import ImageFailure, Record, to_line

if TYPE_CHECKING:
    from supervision import Classifications, Detections

Classes: TypeAlias = str | int | Sequence[str | int]

ROWS_SHOWN = 20


@dataclass(frozen=True, slots=True, repr=False)
class ImageResult:
    """An image's record, and what other libraries make of it.

    >>> import trtjob
    >>> result = trtjob.results("results/photos-1a2b3c4d")["a.jpg"]
    >>> result.image, result.width, result.height
    ('a.jpg', 200, 100)
    >>> [(found.label, found.score, found.box) for found in result.detections]
    [('dog', 0.9, (10.0, 20.0, 110.0, 70.5))]
    """

    record: Record

    @property
    def image(self) -> str:
        """The path below the source; of `predict` the path as it was given, empty for pixels."""
        return self.record.image

    @property
    def width(self) -> int | None:
        """In pixels, after EXIF rotation; None where the image could not be decoded."""
        return self.record.width

    @property
    def height(self) -> int | None:
        return self.record.height

    @property
    def detections(self) -> tuple[Detection, ...]:
        """What a detector has found, by falling score; empty for a classifier, and for an image that failed."""
        return self.record.detections or ()

    @property
    def classes(self) -> tuple[Classification, ...]:
        """What a classifier says, by falling score; empty for a detector, and for an image that failed."""
        return self.record.classifications

    @property
    def error(self) -> ImageFailure | None:
        """Why there is no result; None where there is one."""
        return self.record.error

    def filter(self, *, label: Classes | None = None, min_score: float = 0.0) -> "ImageResult":
        """Return this with those detections or classes alone that have the label, and at least the score.

        label: a class's name, or its number, or several of these. Raises ConfigError for what is no label or score.
        """
        classes = () if label is None else as_classes("label", label)
        return self.with_only(classes, as_score("min_score", min_score))

    def with_only(self, classes: Collection[str | int], min_score: float) -> "ImageResult":
        """Return this with what is of these classes, by names and numbers, or of any where there are none."""

        def wanted(found: Detection | Classification) -> bool:
            return found.score >= min_score and (not classes or found.label in classes or found.class_id in classes)

        record = self.record
        return ImageResult(
            replace(
                record,
                detections=None if record.detections is None else tuple(filter(wanted, record.detections)),
                classes=None if record.classes is None else tuple(filter(wanted, record.classes)),
                labels=None if record.labels is None else tuple(filter(wanted, record.labels)),
            )
        )

    def to_json(self) -> str:
        """Return the record as its line of results.jsonl has it, without the end of the line."""
        return to_line(self.record).decode().removesuffix("\n")

    def to_supervision(self) -> "Detections | Classifications":
        """Return the detections as supervision has them, with masks and rotated boxes; the classes of a classifier.

        Raises MissingDependencyError.
        """
        try:
            import supervision
        except ImportError as err:
            raise MissingDependencyError("supervision", extra="supervision") from err
        import numpy as np

        if self.classes:
            ids, scores = zip(*((found.class_id, found.score) for found in self.classes), strict=True)
            return supervision.Classifications(np.array(ids), np.array(scores, np.float32))
        found = self.detections
        data: dict[str, Any] = {"class_name": np.array([each.label for each in found])}
        if any(each.rotated for each in found):
            corners = [each.rotated.corners for each in found if each.rotated is not None]
            data["xyxyxyxy"] = np.array(corners, np.float32)
        masks = [each.mask.decode() for each in found if each.mask is not None]
        return supervision.Detections(
            xyxy=np.array([each.box for each in found], np.float32).reshape(-1, 4),
            confidence=np.array([each.score for each in found], np.float32),
            class_id=np.array([each.class_id for each in found], int),
            mask=np.array(masks) if masks else None,
            data=data,
        )

    def __repr__(self) -> str:
        counts = Counter(found.label for found in self.detections or self.classes)
        said = ", ".join(f"{count} {label}" for label, count in counts.most_common()) or "nothing"
        return f"<trtjob.ImageResult {self.image}: {said if self.error is None else self.error.message}>"

    def _repr_html_(self) -> str:
        if self.error is not None:
            return html_table(self.image, ("failed", "why"), [(self.error.kind, self.error.message)])
        if self.classes:
            return html_table(self.image, ("label", "score"), [(each.label, each.score) for each in self.classes])
        rows = [(each.label, each.score, *each.box) for each in islice(self.detections, ROWS_SHOWN)]
        return html_table(
            f"{self.image}: {len(self.detections)} found", ("label", "score", "x1", "y1", "x2", "y2"), rows
        )
