"""Exports as the tools read them that they are for: each by the tool's own reader, where that is installed."""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import reader
from epochs import LABELS, failed, found, job_spec, write_records

from trtjob.errors import ConfigError, MissingDependencyError
from trtjob.imaging.detections import Classification, Detection, RotatedBox
from trtjob.imaging.encode import encode_image
from trtjob.imaging.masks import Mask
from trtjob.jobs.exports import ExportFormat, Variant, export
from trtjob.jobs.folder import RESULTS, JobFolder
from trtjob.jobs.records import Record

BOX = (10.0, 20.0, 110.0, 70.0)
RECORDS = [found("a.jpg", (1, 0.9, BOX), (0, 0.2, BOX)), failed("broken.jpg"), found("sub/b.jpg", (2, 0.5, BOX))]
SQUARE = np.zeros((100, 200), bool)
SQUARE[20:70, 10:110] = True
CORNERS = ((60.0, 10.0), (90.0, 40.0), (60.0, 70.0), (30.0, 40.0))

Export = Callable[..., Path]


@pytest.fixture
def exported(tmp_path: Path) -> Export:
    """Export records, and return where they lie; their images lie in `photos`."""

    def run(format: ExportFormat, *variants: Variant, records: Sequence[Record] = RECORDS, **asked: Any) -> Path:
        write_records(tmp_path / RESULTS, records)
        for record in records:
            path = tmp_path / "photos" / record.image
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_image(np.zeros((100, 200, 3), np.uint8), ".jpg"))
        asked = {"conf": 0.25, **asked}
        spec = job_spec(tmp_path, task="classify" if records is CLASSIFIED else "detect")
        if records is POSED:
            spec = spec.model_copy(update={"model": spec.model.model_copy(update={"keypoints": ("nose", "tail")})})
        export(JobFolder.at(tmp_path), spec, format, tmp_path / "out", variants=variants, **asked)
        return tmp_path / "out"

    return run


def shaped(**shape: Any) -> list[Record]:
    return [Record("a.jpg", "cd" * 32, 200, 100, detections=(Detection("dog", 1, 0.9, BOX, **shape),))]


MASKED = shaped(mask=Mask.encode(SQUARE))
ROTATED = shaped(rotated=RotatedBox(CORNERS, 45.0))
POSED = shaped(keypoints=((20.0, 30.0, 0.9), (40.0, 30.0, 0.1)))
CLASSIFIED = [Record("a.jpg", "cd" * 32, 200, 100, classes=(Classification("dog", 1, 0.9),))]


def xyxy(corners: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return (*corners[0], *corners[2])


# -- which of them -----------------------------------------------------------------------------------------------------


def test_only_classes_and_scores_that_are_asked_for_are_written(exported: Export) -> None:
    rows = exported(ExportFormat.CSV, conf=0.0, class_ids=[0, 2]).read_text().splitlines()[1:]
    assert [row.split(",")[3] for row in rows] == ["cat", "traffic light"]


def test_a_table_of_images_has_empty_and_failed_ones(exported: Export) -> None:
    records = [*RECORDS, found("c.jpg")]
    with exported(ExportFormat.CSV, Variant.PER_IMAGE, records=records).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["found"], row["label"], row["score"], row["error"]) for row in rows] == [
        ("a.jpg", "1", "dog", "0.9", ""),
        ("broken.jpg", "0", "", "", "decode"),
        ("sub/b.jpg", "1", "traffic light", "0.5", ""),
        ("c.jpg", "0", "", "", ""),
    ]


# -- COCO's results ----------------------------------------------------------------------------------------------------


def truth(
    path: Path, images: Sequence[str] = ("sub/b.jpg", "a.jpg"), classes: Sequence[str] = ("dog", "zebra")
) -> Path:
    named = [{"id": 100 + number, "file_name": name, "width": 200, "height": 100} for number, name in enumerate(images)]
    categories = [{"id": 7 * number, "name": name} for number, name in enumerate(classes, start=1)]
    box = {"bbox": [10.0, 20.0, 100.0, 50.0], "area": 5000.0, "iscrowd": 0, "segmentation": []}
    annotations = [{"id": 1, "image_id": named[-1]["id"], "category_id": 7, **box}]
    path.write_text(json.dumps({"images": named, "categories": categories, "annotations": annotations}))
    return path


def test_results_have_the_ids_of_the_ground_truth(exported: Export, tmp_path: Path) -> None:
    out = exported(ExportFormat.COCO_RESULTS, truth=truth(tmp_path / "truth.json"), conf=0.0)
    assert json.loads(out.read_text()) == [
        {"image_id": 101, "category_id": 7, "bbox": [10.0, 20.0, 100.0, 50.0], "score": 0.9}
    ]


def test_a_truth_of_images_that_have_all_failed_gives_no_results(exported: Export, tmp_path: Path) -> None:
    out = exported(ExportFormat.COCO_RESULTS, truth=truth(tmp_path / "truth.json"), records=[failed("a.jpg")])
    assert json.loads(out.read_text()) == []


@pytest.mark.parametrize(
    ("images", "classes", "said"),
    [(["z.jpg"], ["dog"], "names none of the job's images"), (["a.jpg"], ["zebra"], "has none of the model's classes")],
)
def test_a_truth_of_other_images_or_classes_is_refused(
    exported: Export, tmp_path: Path, images: list[str], classes: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        exported(ExportFormat.COCO_RESULTS, truth=truth(tmp_path / "truth.json", images, classes))
    assert not (tmp_path / "out").exists()


def test_a_truth_is_for_results_alone_and_they_need_one(exported: Export, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--format coco-results needs --truth"):
        exported(ExportFormat.COCO_RESULTS)
    with pytest.raises(ConfigError, match="--truth is for coco-results, but the format is coco: leave it out"):
        exported(ExportFormat.COCO, truth=truth(tmp_path / "truth.json"))


@pytest.mark.reader
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("records", [RECORDS, MASKED], ids=["boxes", "masks"])
def test_pycocotools_loads_results_and_datasets(exported: Export, tmp_path: Path, records: list[Record]) -> None:
    coco = reader("pycocotools.coco")
    known = coco.COCO(str(truth(tmp_path / "truth.json", ["a.jpg"])))
    out = exported(ExportFormat.COCO_RESULTS, truth=tmp_path / "truth.json", records=records)
    (result,) = known.loadRes(str(out)).loadAnns([1])
    assert (result["image_id"], result["category_id"], result["score"]) == (100, 7, 0.9)
    dataset = coco.COCO(str(exported(ExportFormat.COCO, records=records)))
    assert (dataset.annToMask(dataset.loadAnns([1])[0]).astype(bool) == SQUARE).all()


@pytest.mark.reader
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("records", "asked", "field", "value"),
    [
        (RECORDS, {"label_types": ["detections"]}, "detections.bounding_box", [0.05, 0.2, 0.5, 0.5]),
        (MASKED, {"label_types": ["segmentations"]}, "detections.mask", SQUARE[20:70, 10:110]),
        (POSED, {"label_types": ["keypoints"]}, "keypoints.visible", [2, 0]),
        (
            ROTATED,
            {"label_types": ["segmentations"], "use_polylines": True},
            "polylines.points",
            [[(x / 200, y / 100) for x, y in CORNERS]],
        ),
    ],
    ids=["boxes", "masks", "keypoints", "rotated"],
)
def test_fiftyone_imports_a_dataset(
    exported: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    records: list[Record],
    asked: dict[str, Any],
    field: str,
    value: Any,
) -> None:
    monkeypatch.setenv("FIFTYONE_DISABLE_SERVICES", "1")  # no database: what reads the file needs none
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "1")
    coco = reader("fiftyone.utils.coco")
    labels, photos = str(exported(ExportFormat.COCO, records=records)), str(tmp_path / "photos")
    with coco.COCODetectionDatasetImporter(labels_path=labels, data_path=photos, include_id=True, **asked) as images:
        found = {Path(path).name: labels for path, _, labels in images}
    kind, name = field.split(".")
    (thing,) = found["a.jpg"][asked["label_types"][0]][kind]
    assert (thing.label, thing.confidence) == ("dog", None if records is POSED else 0.9)
    assert np.array_equal(thing[name], value)


# -- labels for each image ---------------------------------------------------------------------------------------------


@pytest.mark.reader
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_labelimg_reads_yolo_and_voc(exported: Export, tmp_path: Path) -> None:
    yolo, voc = reader("libs.yolo_io"), reader("libs.pascal_voc_io")  # which is what labelImg calls its package

    class Picture:
        def height(self) -> int:
            return 100

        def width(self) -> int:
            return 200

        def isGrayscale(self) -> bool:
            return False

    shapes = yolo.YoloReader(str(exported(ExportFormat.YOLO) / "sub" / "b.txt"), Picture()).get_shapes()
    assert [(label, xyxy(corners)) for label, corners, *_ in shapes] == [("traffic light", BOX)]
    (tmp_path / "out").rename(tmp_path / "yolo")
    shapes = voc.PascalVocReader(str(exported(ExportFormat.VOC) / "a.xml")).get_shapes()
    assert [(label, xyxy(corners)) for label, corners, *_ in shapes] == [("dog", (11, 21, 110, 70))]


@pytest.mark.reader
def test_supervision_reads_yolo_and_voc(exported: Export, tmp_path: Path) -> None:
    supervision = reader("supervision")
    records = [RECORDS[0]]
    out, photos = exported(ExportFormat.YOLO, records=records), str(tmp_path / "photos")
    dataset = supervision.DetectionDataset.from_yolo(photos, str(out), str(out / "data.yaml"))
    ((_, _, detections),) = list(dataset)
    assert dataset.classes == list(LABELS)
    assert (detections.xyxy.tolist(), detections.class_id.tolist()) == ([list(BOX)], [1])
    out.rename(tmp_path / "yolo")
    voc = supervision.DetectionDataset.from_pascal_voc(photos, str(exported(ExportFormat.VOC, records=records)))
    ((_, _, detections),) = list(voc)
    assert detections.xyxy.tolist() == [list(BOX)]


@pytest.mark.reader
def test_supervision_reads_yolos_outlines(exported: Export, tmp_path: Path) -> None:
    supervision = reader("supervision")
    for records, kind in ((MASKED, "force_masks"), (ROTATED, "is_obb")):
        out = exported(ExportFormat.YOLO, records=records)
        paths = str(tmp_path / "photos"), str(out), str(out / "data.yaml")
        ((_, _, detections),) = supervision.DetectionDataset.from_yolo(*paths, **{kind: True})
        if records is MASKED:
            assert (detections.mask[0] == SQUARE).all()
        else:
            assert detections.data["xyxyxyxy"][0] == pytest.approx(np.array(CORNERS), abs=1e-4)
        out.rename(tmp_path / kind)


def test_a_voc_file_is_xml_whatever_an_image_is_called(exported: Export) -> None:
    out = exported(ExportFormat.VOC, records=[found("a<&\udcff.jpg", (1, 0.9, (0.0, 0.0, 200.0, 100.0)))])
    (file,) = out.iterdir()
    root = ElementTree.fromstring(file.read_bytes())
    assert root.findtext("filename") == "a<&\\udcff.jpg"
    assert [int(edge.text or "") for edge in root.iterfind("object/bndbox/*")] == [1, 1, 200, 100]


@pytest.mark.parametrize(
    ("records", "kinds"),
    [(RECORDS, ["rectangle"]), (MASKED, ["polygon"]), (ROTATED, ["polygon"]), (POSED, ["rectangle", "point"])],
    ids=["boxes", "masks", "rotated", "keypoints"],
)
def test_labelme_has_a_shape_for_each_part(exported: Export, records: list[Record], kinds: list[str]) -> None:
    document = json.loads((exported(ExportFormat.LABELME, records=records) / "a.json").read_text())
    assert (document["imagePath"], document["imageWidth"], document["imageHeight"]) == ("a.jpg", 200, 100)
    assert [shape["shape_type"] for shape in document["shapes"]] == kinds
    assert {shape["description"] for shape in document["shapes"]} == {"0.9"}
    assert document["shapes"][0]["points"][0] in ([10.0, 20.0], [60.0, 10.0])


@pytest.mark.reader
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("records", [RECORDS, MASKED, POSED], ids=["boxes", "masks", "keypoints"])
def test_labelme_reads_its_files(exported: Export, tmp_path: Path, records: list[Record]) -> None:
    label_file = reader("labelme._label_file")
    out = exported(ExportFormat.LABELME, records=records)
    (out / "a.json").rename(tmp_path / "photos" / "a.json")  # beside its image, where Labelme looks
    read = label_file.read_label_file(str(tmp_path / "photos" / "a.json"))
    assert read.shapes[0]["label"] == "dog"
    assert read.image_data


@pytest.mark.parametrize(
    ("records", "tag", "place"),
    [
        (RECORDS, "box", {"xtl": "10.00", "ytl": "20.00", "xbr": "110.00", "ybr": "70.00"}),
        (MASKED, "polygon", {}),
        (ROTATED, "box", {"xtl": "38.79", "ytl": "18.79", "xbr": "81.21", "ybr": "61.21", "rotation": "45.00"}),
        (POSED, "points", {"points": "20.00,30.00"}),
    ],
    ids=["boxes", "masks", "rotated", "keypoints"],
)
def test_cvat_has_an_element_for_each_part(
    exported: Export, records: list[Record], tag: str, place: dict[str, str]
) -> None:
    root = ElementTree.parse(exported(ExportFormat.CVAT, records=records)).getroot()
    assert [each.findtext("name") for each in root.iter("label") if each.find("name") is not None] == list(LABELS)
    element = root.find(f"image[@name='a.jpg']/{tag}")
    assert element is not None
    assert element.get("label") == "dog"
    assert place.items() <= element.attrib.items()


@pytest.mark.reader
@pytest.mark.parametrize(
    ("records", "read"),
    [
        (RECORDS, {"a": [("Bbox", BOX)], "sub/b": [("Bbox", BOX)]}),
        (MASKED, {"a": [("Polygon", (10, 20, 10, 70, 110, 70, 110, 20))]}),
        (ROTATED, {"a": [("RotatedBbox", (60, 40, 42.42, 42.42, 45))]}),
        (POSED, {"a": [("Bbox", BOX), ("Points", (20, 30))]}),
    ],
    ids=["boxes", "masks", "rotated", "keypoints"],
)
def test_datumaro_reads_cvats_file(
    exported: Export, tmp_path: Path, records: list[Record], read: dict[str, list[tuple[str, tuple[float, ...]]]]
) -> None:
    datumaro = reader("datumaro")
    (tmp_path / "cvat").mkdir()
    exported(ExportFormat.CVAT, records=records).rename(tmp_path / "cvat" / "annotations.xml")
    (tmp_path / "photos").rename(tmp_path / "cvat" / "images")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "cvat"), "cvat")
    assert {item.id: [type(each).__name__ for each in item.annotations] for item in dataset} == {
        name: [kind for kind, _ in found] for name, found in read.items()
    }
    for item in dataset:
        for each, (_, points) in zip(item.annotations, read[item.id], strict=True):
            assert tuple(each.points) == pytest.approx(points)


# -- Label Studio ------------------------------------------------------------------------------------------------------

INTERFACE = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="rectanglelabels" toName="image">{labels}</RectangleLabels>
  <PolygonLabels name="polygonlabels" toName="image">{labels}</PolygonLabels>
  <BrushLabels name="brushlabels" toName="image">{labels}</BrushLabels>
  <KeyPointLabels name="keypointlabels" toName="image"><Label value="nose"/><Label value="tail"/></KeyPointLabels>
  <Choices name="choices" toName="image">{choices}</Choices>
</View>
"""


@pytest.mark.reader
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("records", "variants"),
    [(RECORDS, []), (ROTATED, []), (MASKED, []), (MASKED, [Variant.POLYGONS]), (POSED, []), (CLASSIFIED, [])],
    ids=["boxes", "rotated", "brushes", "polygons", "keypoints", "classes"],
)
def test_label_studio_finds_its_tasks_valid(exported: Export, records: list[Record], variants: list[Variant]) -> None:
    studio = reader("label_studio_sdk.label_interface")
    labels, choices = ("".join(f'<{tag} value="{label}"/>' for label in LABELS) for tag in ("Label", "Choice"))
    interface = studio.LabelInterface(INTERFACE.format(labels=labels, choices=choices))
    tasks = json.loads(exported(ExportFormat.LABEL_STUDIO, *variants, records=records).read_text())
    assert len(tasks) == sum(record.error is None for record in records)
    for task in tasks:
        assert interface.validate_task({"data": task["data"]})
        assert [interface.validate_prediction(each, return_errors=True) for each in task["predictions"]] == [[]]


@pytest.mark.reader
@pytest.mark.filterwarnings("ignore")
def test_label_studios_converter_paints_a_brushs_pixels(exported: Export) -> None:
    brush = reader("label_studio_sdk.converter.brush")
    (task,) = json.loads(exported(ExportFormat.LABEL_STUDIO, records=MASKED).read_text())
    (region,) = task["predictions"][0]["result"]
    painted = brush.decode_rle(region["value"]["rle"]).reshape(100, 200, 4)[..., 3] > 0
    assert (painted == SQUARE).all()


# -- Parquet -----------------------------------------------------------------------------------------------------------


def test_parquet_is_a_table_of_detections_or_of_images(exported: Export) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(exported(ExportFormat.PARQUET)).to_pylist()
    assert [(row["image"], row["label"], row["x2"]) for row in rows] == [
        ("a.jpg", "dog", 110.0),
        ("sub/b.jpg", "traffic light", 110.0),
    ]
    rows = parquet.read_table(exported(ExportFormat.PARQUET, Variant.PER_IMAGE)).to_pylist()
    assert [(row["image"], len(row["detections"] or ())) for row in rows] == [
        ("a.jpg", 1),
        ("broken.jpg", 0),
        ("sub/b.jpg", 1),
    ]
    assert rows[1]["error"] == {"kind": "decode", "message": "not an image", "attempts": 1}


def test_parquet_without_its_package_names_the_extra(exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"trtjob\[parquet\]"):
        exported(ExportFormat.PARQUET)


@pytest.mark.reader
@pytest.mark.parametrize("variants", [[], [Variant.PER_IMAGE]], ids=["detections", "images"])
def test_data_frames_and_duckdb_read_parquet(exported: Export, variants: list[Variant]) -> None:
    pandas, polars, duckdb = reader("pandas"), reader("polars"), reader("duckdb")
    path = str(exported(ExportFormat.PARQUET, *variants, records=MASKED))
    frames = [pandas.read_parquet(path), polars.scan_parquet(path).collect()]
    assert [list(frame["image"]) for frame in frames] == [["a.jpg"], ["a.jpg"]]
    assert duckdb.sql(f"select image from read_parquet('{path}')").fetchall() == [("a.jpg",)]
