"""Each object that a job has found, as an image of its own beside a table."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from epochs import failed, found, job_spec, write_records
from PIL import Image
from web_server import web_server

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import ConfigError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.encode import encode_image
from trtjob.imaging.masks import Mask
from trtjob.imaging.rotated import corners, rounded
from trtjob.jobs.folder import RESULTS, JobFolder
from trtjob.jobs.records import Record
from trtjob.jobs.spec import Source
from trtjob.storage import open_storage
from trtjob.worker.crops import Crops, make_crops

CAT, DOG, LIGHT = range(3)
LEFT, RIGHT = (10.0, 20.0, 60.0, 80.0), (120.0, 10.0, 190.0, 90.0)


class Job:
    """A finished job over photos of 200 x 100 whose left half is dark, and its right one bright."""

    def __init__(self, folder: Path) -> None:
        self.photos, self.out = folder / "photos", folder / "crops"
        self.photos.mkdir()
        source = Source(kind="folder", root=str(self.photos))
        self.spec = job_spec(folder / "out").model_copy(update={"source": source})
        self.folder = JobFolder.of(self.spec)
        self.folder.storage.make_root()

    def photo(self, key: str, data: bytes | None = None) -> str:
        """Write a photo. Returns its sha256."""
        path = self.photos / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(halves() if data is None else data)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def see(self, *records: Record) -> None:
        write_records(Path(self.folder.uri) / RESULTS, records)

    def crop(self, *, margin: float = 0, conf: float = 0.25, **options: Any) -> Crops:
        spec = self.spec.model_copy(update={"options": self.spec.options.model_copy(update=options)})
        return make_crops(
            self.folder,
            spec,
            self.out,
            conf=conf,
            margin=margin,
            max_pixels=10**6,
            jpeg_quality=95,
            allow_local=True,
        )

    def image(self, key: str) -> UInt8Array:
        return decode_image((self.out / key).read_bytes(), max_pixels=10**6)

    def crops(self) -> list[str]:
        return sorted(str(path.relative_to(self.out)) for path in self.out.rglob("*.jpg"))

    def table(self) -> list[dict[str, str]]:
        with (self.out / "crops.csv").open(newline="") as file:
            return list(csv.DictReader(file))


def halves(suffix: str = ".png") -> bytes:
    image = np.full((100, 200, 3), 40, np.uint8)
    image[:, 100:] = 200
    return encode_image(image, suffix)


def seen(job: Job, key: str, *objects: tuple[int, float, Sequence[float]]) -> Record:
    boxes = [(class_id, score, (box[0], box[1], box[2], box[3])) for class_id, score, box in objects]
    return replace(found(key, *boxes), sha256=job.photo(key))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_each_object_is_an_image_in_the_folder_of_its_class(job: Job) -> None:
    job.see(seen(job, "cam1/a.png", (DOG, 0.9, LEFT), (CAT, 0.8, RIGHT), (DOG, 0.1, RIGHT)), seen(job, "b.png"))
    made = job.crop()
    assert (made.crops, made.images, made.left) == (2, 1, [])
    assert job.crops() == ["cat/cam1/a.png-2.jpg", "dog/cam1/a.png-1.jpg"]
    assert job.image("dog/cam1/a.png-1.jpg").shape == (60, 50, 3)
    assert abs(job.image("dog/cam1/a.png-1.jpg").mean() - 40) < 2
    assert abs(job.image("cat/cam1/a.png-2.jpg").mean() - 200) < 2


def test_the_table_says_of_which_object_a_crop_is(job: Job) -> None:
    job.see(seen(job, "a.png", (DOG, 0.9, LEFT)))
    job.crop(margin=0.1)
    assert job.table() == [
        {
            "crop": "dog/a.png-1.jpg",
            "width": "60",
            "height": "72",
            "image": "a.png",
            "label": "dog",
            "class_id": "1",
            "score": "0.9",
            "x1": "10.0",
            "y1": "20.0",
            "x2": "60.0",
            "y2": "80.0",
            "angle": "",
        }
    ]
    assert job.image("dog/a.png-1.jpg").shape == (72, 60, 3)


def test_boxes_are_of_the_image_as_it_is_seen(job: Job) -> None:
    upright = np.full((100, 200, 3), 40, np.uint8)
    upright[:, 100:] = 200
    file = io.BytesIO()
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(file, "JPEG", exif=orientation)
    record = seen(job, "a.jpg", (DOG, 0.9, RIGHT))
    job.see(replace(record, sha256=job.photo("a.jpg", file.getvalue())))
    assert job.crop().left == []
    assert job.image("dog/a.jpg-1.jpg").mean() > 190


def test_images_of_one_name_and_objects_of_one_image_do_not_mix(job: Job) -> None:
    job.see(*(seen(job, key, (DOG, 0.9, LEFT), (DOG, 0.8, RIGHT)) for key in ("a.jpg", "a.png", "b/a.jpg")))
    assert job.crop().crops == 6
    assert len(job.crops()) == 6


def test_what_cannot_be_read_again_is_left_and_named(job: Job) -> None:
    records = [seen(job, key, (DOG, 0.9, LEFT)) for key in ("a.png", "b.png", "c.png")]
    (job.photos / "a.png").unlink()
    job.photo("b.png", b"something else")
    job.see(*records, failed("d.png"))
    made = job.crop()
    assert [image for image, _ in made.left] == ["a.png", "b.png"]
    assert "has changed since the job" in made.left[1][1]
    assert job.crops() == ["dog/c.png-1.jpg"]
    assert [row["image"] for row in job.table()] == ["c.png"]


def test_the_same_again_makes_only_what_is_missing(job: Job) -> None:
    job.see(seen(job, "a.png", (DOG, 0.9, LEFT)), seen(job, "b.png", (DOG, 0.9, LEFT)))
    job.crop()
    table = job.table()
    (job.out / "dog/a.png-1.jpg").unlink()
    (job.photos / "b.png").unlink()
    made = job.crop()
    assert (made.crops, made.left) == (2, [])
    assert job.table() == table


def test_crops_do_not_lie_where_the_next_job_would_find_them(job: Job) -> None:
    job.see(seen(job, "a.png", (DOG, 0.9, LEFT)))
    job.out = job.photos / "crops"
    with pytest.raises(ConfigError, match="lies in the source"):
        job.crop()
    assert not job.out.exists()


def test_other_crops_do_not_come_between(job: Job) -> None:
    job.see(seen(job, "a.png", (DOG, 0.9, LEFT)))
    job.crop()
    with pytest.raises(ConfigError, match="has other crops"):
        job.crop(margin=0.2)
    (job.out / "crops.json").unlink()
    with pytest.raises(ConfigError, match="not empty"):
        job.crop()


def test_a_rotated_box_is_upright_and_has_its_angle_in_the_table(job: Job) -> None:
    box = np.array([[150, 50, 60, 20, np.pi / 4]])
    [rotated] = rounded(box, corners(box))
    record = seen(job, "a.png", (DOG, 0.9, RIGHT))
    assert record.detections is not None
    job.see(replace(record, detections=(replace(record.detections[0], rotated=rotated),)))
    assert job.crop().ignored == set()
    assert job.image("dog/a.png-1.jpg").shape == (20, 60, 3)
    assert [(row["width"], row["height"], row["angle"]) for row in job.table()] == [("60", "20", "45.0")]


def test_masks_are_ignored_and_that_is_known(job: Job) -> None:
    record = seen(job, "a.png", (DOG, 0.9, LEFT))
    assert record.detections is not None
    mask = Mask.encode(np.ones((100, 200), bool))
    job.see(replace(record, detections=(replace(record.detections[0], mask=mask),)))
    assert job.crop().ignored == {"masks"}


def test_images_of_a_web_server_have_crops(job: Job) -> None:
    with web_server() as server:
        record = seen(job, "cam1/a.png", (DOG, 0.9, LEFT))
        server.put("/cam1/a.png", halves())
        job.see(record)
        job.spec = job.spec.model_copy(update={"source": Source(kind="list", root=server.url)})
        assert job.crop().crops == 1


def test_images_of_a_bucket_have_crops(job: Job, bucket: str) -> None:
    open_storage(f"s3://{bucket}").put("cam1/a.png", halves())
    job.see(seen(job, "cam1/a.png", (DOG, 0.9, LEFT)))
    job.spec = job.spec.model_copy(update={"source": Source(kind="folder", root=f"s3://{bucket}")})
    assert job.crop().crops == 1
    assert job.image("dog/cam1/a.png-1.jpg").shape == (60, 50, 3)


def test_a_page_has_crops_of_its_own(job: Job) -> None:
    frames = [np.full((100, 200, 3), value, np.uint8) for value in (10, 250)]
    ok, data = cv2.imencodemulti(".tif", frames)
    assert ok
    sha256 = job.photo("s.tif", data.tobytes())
    job.see(*(replace(found(f"s.tif#{page}", (DOG, 0.9, LEFT)), sha256=sha256) for page in (1, 2)))
    assert job.crop(pages="all").left == []
    assert job.image("dog/s.tif#1-1.jpg").mean() < 20
    assert job.image("dog/s.tif#2-1.jpg").mean() > 240


def test_a_classifier_has_no_crops(job: Job) -> None:
    job.spec = job.spec.model_copy(update={"model": job.spec.model.model_copy(update={"task": "classify"})})
    with pytest.raises(ConfigError, match="crops are of boxes"):
        job.crop()
