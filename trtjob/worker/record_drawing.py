"""How a job wants things drawn, and what is drawn of an image's record."""

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.detections import Classification
from trtjob.imaging.draw import Look, Skeleton, annotate, annotate_classes
from trtjob.jobs.records import Record
from trtjob.jobs.spec import Options


class RecordDrawing:
    """Draws what was found on images of one job."""

    def __init__(self, options: Options, skeleton: Skeleton) -> None:
        self._conf = options.conf
        self._skeleton = skeleton
        self._look = look_of(options)

    def draw(self, image: UInt8Array, record: Record) -> UInt8Array:
        """Draw the objects that count on an image, uint8 [H, W, 3] BGR, in place, and return it.

        Of a classifier whose classes exclude each other the best is written, and others of at least that score.
        """
        if record.detections is not None:
            return annotate(image, record.detections, conf=self._conf, skeleton=self._skeleton, look=self._look)
        return annotate_classes(image, self._certain(record), self._look)

    def _certain(self, record: Record) -> list[Classification]:
        best, others = (record.classes[:1], record.classes[1:]) if record.classes else ((), record.labels or ())
        return [*best, *(found for found in others if found.score >= self._conf)]


def look_of(options: Options) -> Look:
    """Return how a job's annotated copies look.

    >>> look_of(Options(conf=0.25, min_score=0.05, iou=0.45, resize="stretch", hide_scores=True)).has_scores
    False
    """
    return Look(
        has_labels=not options.hide_labels,
        has_scores=not options.hide_scores,
        line_width=options.line_width,
        font_size=options.font_size,
    )
