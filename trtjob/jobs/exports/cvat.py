"""CVAT's `CVAT for images 1.1` (docs.cvat.ai, XML annotation format): one XML file."""

from collections.abc import Iterator
from math import dist
from pathlib import Path

from trtjob.imaging.detections import VISIBLE, Detection, RotatedBox
from trtjob.jobs.exports.outlines import edge_outlines
from trtjob.jobs.exports.results import Image, Results
from trtjob.jobs.exports.xml_text import xml_attribute, xml_text
from trtjob.storage import LocalStorage


def write_cvat(results: Results, out: Path) -> None:
    """Write one file, which a task of CVAT takes whose labels are called as the model's. It has no place for scores."""
    with LocalStorage(out.parent).writing(out.name) as file:
        for text in _document(results):
            file.write(text.encode())


def _document(results: Results) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task><labels>\n'
    for label in results.spec.model.labels:
        yield f"<label><name>{xml_text(label)}</name><attributes></attributes></label>\n"
    yield "</labels></task></meta>\n"
    for number, image in enumerate(results.images()):
        size = f'width="{image.width}" height="{image.height}"'
        yield f'<image id="{number}" name={xml_attribute(image.name)} {size}>\n'
        for group, detection in enumerate(image.detections, start=1):
            yield from _shapes(image, group, detection)
        yield "</image>\n"
    yield "</annotations>\n"


def _shapes(image: Image, group: int, detection: Detection) -> Iterator[str]:
    """Yield the parts of an object: those of a mask, and keypoints, belong together by their group."""
    common = f'label={xml_attribute(detection.label)} source="auto" occluded="0" z_order="0"'
    if detection.mask is not None or detection.keypoints:
        common += f' group_id="{group}"'
    if detection.mask is not None:
        for outline in edge_outlines(image, detection):
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in outline.tolist())
            yield f'<polygon {common} points="{points}"></polygon>\n'
    elif detection.rotated is not None:
        yield f"<box {common} {_turned(detection.rotated)}></box>\n"
    else:
        yield f"<box {common} {_corners(*detection.box)}></box>\n"
    seen = [f"{x:.2f},{y:.2f}" for x, y, visibility in detection.keypoints or () if visibility > VISIBLE]
    if seen:
        yield f'<points {common} points="{";".join(seen)}"></points>\n'


def _corners(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}"'


def _turned(rotated: RotatedBox) -> str:
    """Return the box as it would stand upright around its centre, and by how many degrees it is turned clockwise."""
    first, second, third, _ = rotated.corners
    x, y = (first[0] + third[0]) / 2, (first[1] + third[1]) / 2
    half_width, half_height = dist(first, second) / 2, dist(second, third) / 2
    box = _corners(x - half_width, y - half_height, x + half_width, y + half_height)
    return f'{box} rotation="{rotated.angle % 360:.2f}"'
