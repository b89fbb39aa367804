"""How a job wants things drawn."""

from trtjob.imaging.draw import Look
from trtjob.jobs.spec import Options


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
