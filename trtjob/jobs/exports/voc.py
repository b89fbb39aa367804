"""PASCAL VOC's annotations (VOC development kit, 2012): an XML file for each image."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from trtjob.imaging.detections import Detection
from trtjob.jobs.exports.label_folder import write_label_folder
from trtjob.jobs.exports.results import Image, Results
from trtjob.jobs.exports.xml_text import xml_text


def write_voc(results: Results, out: Path) -> None:
    """Write a folder. Boxes are of whole pixels, which are counted from 1, the last one among them; no scores."""
    write_label_folder(results, out, ".xml", lambda image: "".join(_lines(image)).encode())


def _lines(image: Image) -> Iterator[str]:
    path = PurePosixPath(image.name)
    yield "<annotation>\n"
    yield f"  <folder>{xml_text(path.parent.name)}</folder>\n  <filename>{xml_text(path.name)}</filename>\n"
    yield f"  <size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>\n"
    yield "  <segmented>0</segmented>\n"
    for detection in image.detections:
        yield _object(image, detection)
    yield "</annotation>\n"


def _object(image: Image, detection: Detection) -> str:
    x1, y1, x2, y2 = map(round, detection.box)
    at_edge = int(x1 <= 0 or y1 <= 0 or x2 >= image.width or y2 >= image.height)
    left, top = min(x1 + 1, image.width), min(y1 + 1, image.height)
    return (
        f"  <object>\n    <name>{xml_text(detection.label)}</name>\n    <pose>Unspecified</pose>\n"
        f"    <truncated>{at_edge}</truncated>\n    <difficult>0</difficult>\n    <bndbox>"
        f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{max(left, x2)}</xmax><ymax>{max(top, y2)}</ymax>"
        "</bndbox>\n  </object>\n"
    )
