"""The names of a pose's keypoints and the lines between them, where they are known."""

from collections.abc import Mapping

from trtjob.converters.texts import literal

# COCO's person (cocodataset.org/#keypoints-2020); the lines as its annotations have them, from 0.
COCO = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)
COCO_SKELETON = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)


def keypoint_names(count: int, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of so many keypoints: as the file has them, COCO's where there are as many, else numbers.

    >>> keypoint_names(2, {})
    ('keypoint_0', 'keypoint_1')
    >>> keypoint_names(2, {"kpt_names": "{0: ['head', 'tail']}"})
    ('head', 'tail')
    """
    told = literal(metadata.get("kpt_names", ""))
    first = next(iter(told.values()), None) if isinstance(told, dict) else None
    if isinstance(first, list) and len(first) == count and all(isinstance(name, str) for name in first):
        return tuple(first)
    return COCO if count == len(COCO) else tuple(f"keypoint_{number}" for number in range(count))


def skeleton_of(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Return the pairs of keypoints that a line joins, none where that is not known."""
    return COCO_SKELETON if names == COCO else ()
