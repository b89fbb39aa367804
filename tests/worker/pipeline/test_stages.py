"""One image before and after the engine: read, decoded, finished, written; each failure with its kind."""

import errno
import hashlib
import io
import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cameras import MAKE, ORIENTATION, PROFILE, exif, photo
from PIL import Image
from samples import job_spec
from tiffs import tiff
from users import as_nobody
from worker.plain_engine import CLASSIFIER, DETECTOR, write_image

from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.engines.spec import ModelSpec
from trtjob.errors import FailureKind, ImageError, StorageError
from trtjob.imaging.detections import Classification
from trtjob.imaging.draw import color_of
from trtjob.imaging.metadata import Metadata
from trtjob.jobs.records import Record
from trtjob.jobs.spec import Annotate
from trtjob.logs import JsonFormatter
from trtjob.storage import LocalStorage
from trtjob.storage.listing import Entry
from trtjob.storage.local import MAX_FILE_BYTES
from trtjob.worker.pipeline.copies import Prepared
from trtjob.worker.pipeline.failures import failure_record
from trtjob.worker.pipeline.stages import Stages
from trtjob.worker.pipeline.stopwatch import Stopwatch


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def read_file(path: Path) -> bytes:
    return LocalStorage(path.parent).fetch(Entry(path.name, 0, ""))


def failure(path: Path) -> tuple[FailureKind, str]:
    with pytest.raises(ImageError) as caught:
        read_file(path)
    return FailureKind(caught.value.kind), str(caught.value)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_file_is_read_whole(photos: Path) -> None:
    data = os.urandom(3_000_000)
    (photos / "a.jpg").write_bytes(data)
    assert read_file(photos / "a.jpg") == data


def test_a_link_is_followed(photos: Path) -> None:
    (photos / "a.jpg").write_bytes(b"here")
    (photos / "link.jpg").symlink_to(photos / "a.jpg")
    assert read_file(photos / "link.jpg") == b"here"


def test_a_file_that_is_gone_is_missing(photos: Path) -> None:
    (photos / "other.jpg").write_bytes(b"")
    assert failure(photos / "a.jpg") == (FailureKind.MISSING, "the file is not there any more")


def test_a_file_whose_folder_has_become_a_file_is_missing(photos: Path) -> None:
    (photos / "a").write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        LocalStorage(photos).fetch(Entry("a/b.jpg", 0, ""))
    assert caught.value.kind is FailureKind.MISSING


def test_a_folder_is_named_as_that(photos: Path) -> None:
    (photos / "folder.jpg").mkdir()
    assert failure(photos / "folder.jpg") == (FailureKind.READ, "it is a folder, not an image file")


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_without_waiting_for_its_other_end(photos: Path) -> None:
    os.mkfifo(photos / "pipe.jpg")
    assert failure(photos / "pipe.jpg") == (FailureKind.READ, "it is not a regular file, not an image file")


def test_a_socket_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        assert failure(photos / "socket.jpg")[0] is FailureKind.READ


def test_a_circle_of_links_cannot_be_read(photos: Path) -> None:
    (photos / "a.jpg").symlink_to(photos / "b.jpg")
    (photos / "b.jpg").symlink_to(photos / "a.jpg")
    kind, message = failure(photos / "a.jpg")
    assert kind is FailureKind.READ
    assert message == f"the file cannot be read: {os.strerror(errno.ELOOP)}"


def test_a_file_of_more_bytes_than_a_buffer_holds_is_too_large(photos: Path) -> None:
    with (photos / "large.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # a hole: it takes no space
    kind, message = failure(photos / "large.jpg")
    assert kind is FailureKind.TOO_LARGE
    assert "2,147,483,648 bytes" in message


def test_a_file_that_may_not_be_read_says_so(public_folder: Path) -> None:
    (public_folder / "secret.jpg").write_bytes(b"secret")
    (public_folder / "secret.jpg").chmod(0)
    with as_nobody():
        kind, message = failure(public_folder / "secret.jpg")
    assert (kind, message) == (FailureKind.READ, "the file cannot be read: Permission denied")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("name", ["folder.jpg", "pipe.jpg", "large.jpg", "fine.jpg", "gone.jpg"])
def test_no_descriptor_is_left_open_whatever_the_file_is(photos: Path, name: str) -> None:
    (photos / "folder.jpg").mkdir()
    os.mkfifo(photos / "pipe.jpg")
    (photos / "fine.jpg").write_bytes(b"fine")
    with (photos / "large.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)

    def try_it() -> None:
        try:
            read_file(photos / name)
        except ImageError:
            return

    try_it()
    before = open_descriptors()
    for _ in range(20):
        try_it()
    assert open_descriptors() < before + 10


# -- before the engine -------------------------------------------------------------------------------------------------


def stages(
    photos: Path, output: Path, annotate: Annotate = Annotate.ALL, model: ModelSpec = DETECTOR, **options: object
) -> Stages:
    spec = job_spec(photos, output)
    changed = spec.options.model_copy(update={"annotate": annotate, **options})
    return Stages(changed, model, LocalStorage(photos), LocalStorage(output), max_pixels=10_000, jpeg_quality=90)


def entry(key: str = "a.png") -> Entry:
    return Entry(key, 1, "etag")


def prepared(under_test: Stages, key: str = "a.png") -> tuple[Prepared, UInt8Array]:
    """Read and prepare an image. Returns what is kept of it, and the network's input."""
    tensor = np.empty((8, 8, 3), np.uint8)
    return under_test.prepare(entry(key), under_test.read(entry(key)), tensor), tensor


def test_an_image_is_prepared_for_the_network(photos: Path, output: Path) -> None:
    data = write_image(photos / "a.png", hw=(20, 40)).read_bytes()
    item, tensor = prepared(stages(photos, output))
    assert (item.sha256, item.hw) == (hashlib.sha256(data).hexdigest(), (20, 40))
    assert (tensor == 200).all()
    assert item.placement.scale == (5.0, 2.5)
    assert item.image is not None


def test_without_annotated_copies_the_pixels_are_not_kept(photos: Path, output: Path) -> None:
    write_image(photos / "a.png")
    assert prepared(stages(photos, output, Annotate.NONE))[0].image is None


def test_the_jobs_resize_mode_counts_not_the_models(photos: Path, output: Path) -> None:
    write_image(photos / "a.png", hw=(20, 40))
    _, tensor = prepared(stages(photos, output, resize="letterbox"))
    assert (tensor[0] == DETECTOR.pad_value).all()


def test_what_a_decoder_remarks_is_logged_with_the_images_name(
    photos: Path, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done, data = cv2.imencode(".jpg", np.full((40, 40, 3), 200, np.uint8))
    assert done
    (photos / "phone.jpg").write_bytes(data.tobytes()[:-2] + bytes(9) + data.tobytes()[-2:])
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("trtjob.imaging.decode")
    logger.addHandler(handler)
    try:
        prepared(stages(photos, output), "phone.jpg")
    finally:
        logger.removeHandler(handler)
    line = json.loads(lines.getvalue())
    assert (line["image"], line["msg"]) == ("phone.jpg", "a decoder's remark")
    assert "extraneous bytes" in line["remark"]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("hw", "kind"),
    [pytest.param(None, FailureKind.DECODE, id="broken"), pytest.param((200, 200), FailureKind.TOO_LARGE, id="large")],
)
def test_the_failure_of_a_file_that_was_read_names_its_sha256(
    photos: Path, output: Path, hw: tuple[int, int] | None, kind: FailureKind
) -> None:
    if hw:
        write_image(photos / "a.png", hw=hw)
    else:
        (photos / "a.png").write_bytes(b"rubbish")
    with pytest.raises(ImageError) as caught:
        prepared(stages(photos, output))
    assert caught.value.kind is kind
    assert caught.value.sha256 == hashlib.sha256((photos / "a.png").read_bytes()).hexdigest()


def test_the_failure_of_a_file_that_was_not_read_names_none(photos: Path, output: Path) -> None:
    (photos / "other.jpg").write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        prepared(stages(photos, output))
    assert caught.value.sha256 is None


def test_an_image_for_which_there_is_no_memory_is_its_own_failure(
    photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_args: object, **_options: object) -> None:
        raise cv2.error("Failed to allocate 31150080000 bytes")

    data = write_image(photos / "a.png").read_bytes()
    monkeypatch.setattr(cv2, "resize", out_of_memory)  # the fault is in the library, not in what is tested
    with pytest.raises(ImageError, match="cannot be resized: Failed to allocate") as caught:
        prepared(stages(photos, output))
    assert (caught.value.kind, caught.value.sha256) == (FailureKind.DECODE, hashlib.sha256(data).hexdigest())


# -- after it ----------------------------------------------------------------------------------------------------------


def answer(scores: tuple[float, float]) -> FloatArray:
    """Return what an engine says of an image with one object."""
    return np.array([[1, 1, 7, 7, max(scores), np.argmax(scores)]], np.float32)


SURE = answer((0.1, 0.9))


def finish(
    under_test: Stages, key: str = "a.png", scores: tuple[float, float] = (0.1, 0.9), hw: tuple[int, int] = (40, 40)
) -> Record:
    write_image(Path(under_test.source.place(key)), hw=hw)
    return under_test.finish(prepared(under_test, key)[0], answer(scores))


def copies(output: Path, folder: str = "") -> list[str]:
    return sorted(str(path.relative_to(output)) for path in (output / folder).rglob("*") if path.is_file())


def test_a_detectors_record_holds_its_detections(photos: Path, output: Path) -> None:
    record = finish(stages(photos, output))
    assert (record.image, record.width, record.height, record.classes) == ("a.png", 40, 40, None)
    assert record.detections is not None
    assert [(d.label, d.score, d.box) for d in record.detections] == [("bright", 0.9, (5.0, 5.0, 35.0, 35.0))]


def test_a_classifiers_record_holds_its_classes(photos: Path, output: Path) -> None:
    under_test = stages(photos, output, model=CLASSIFIER)
    write_image(photos / "a.png")
    record = under_test.finish(prepared(under_test)[0], np.array([0.2, 0.8], np.float32))
    assert record.detections is None
    assert record.classes is not None
    assert [c.label for c in record.classes] == ["bright", "dark"]


def certain(photos: Path, output: Path, scores: tuple[float, float], **options: Any) -> tuple[int, list[int]]:
    """How many classes the record has, and which are drawn."""
    under_test = stages(photos, output, model=CLASSIFIER, **options)
    write_image(photos / "a.png", hw=(90, 90))
    record = under_test.finish(prepared(under_test)[0], np.array(scores, np.float32))
    copy = cv2.imread(str(output / "annotated/a.png"))
    assert copy is not None
    assert record.classes is not None
    return len(record.classes), [number for number in (0, 1) if (copy == color_of(number)).all(2).sum() > 50]


def test_a_classifiers_picture_has_the_best_class_and_others_that_are_sure(photos: Path, output: Path) -> None:
    assert certain(photos, output, (0.2, 0.8)) == (2, [1])
    assert certain(photos, output, (0.3, 0.7)) == (2, [0, 1])
    assert certain(photos, output, (0.04, 0.02)) == (2, [0])
    assert certain(photos, output, (0.3, 0.7), hide_labels=True) == (2, [])


def test_a_multi_label_classifiers_record_holds_all_labels_that_count_and_no_others(photos: Path, output: Path) -> None:
    model = CLASSIFIER.model_copy(update={"multi_label": True})
    under_test = stages(photos, output, Annotate.HITS, model)
    write_image(photos / "a.png")
    record = under_test.finish(prepared(under_test)[0], np.array([0.01, 0.8], np.float32))
    assert (record.detections, record.classes) == (None, None)
    assert record.labels == (Classification("bright", 1, 0.8),)
    assert copies(output, "annotated") == ["annotated/a.png"]
    record = under_test.finish(prepared(under_test)[0], np.array([0.01, 0.02], np.float32))
    assert record.labels == ()


@pytest.mark.parametrize("polygons", [False, True])
def test_a_mask_has_its_outline_beside_it_where_that_is_asked_for(photos: Path, output: Path, polygons: bool) -> None:
    model = DETECTOR.model_copy(update={"prototypes": (1, 8, 8)})
    under_test = stages(photos, output, Annotate.NONE, model, polygons=polygons)
    write_image(photos / "a.png", hw=(8, 8))
    candidate, prototypes = np.array([1, 1, 7, 7, 0.9, 1, 1.0], np.float32), np.ones(64, np.float32)
    record = under_test.finish(prepared(under_test)[0], np.concatenate([candidate, prototypes]))
    assert record.detections is not None
    (found,) = record.detections
    assert found.mask is not None
    assert found.mask.area == 36
    assert found.polygons == (((1, 1, 1, 6, 6, 6, 6, 1),) if polygons else None)


def test_a_record_says_of_how_many_pages_the_first_was_looked_at(photos: Path, output: Path) -> None:
    under_test = stages(photos, output)
    (photos / "scan.tif").write_bytes(tiff(np.full((40, 40, 3), 200, np.uint8), pages=4))
    assert under_test.finish(prepared(under_test, "scan.tif")[0], SURE).pages == 4
    assert finish(stages(photos, output)).pages is None


def test_a_page_is_an_image_of_its_own_where_the_job_wants_all(photos: Path, output: Path) -> None:
    under_test = stages(photos, output, pages="all")
    data = tiff(np.full((40, 40, 3), 200, np.uint8), pages=4)
    (photos / "scan.tif").write_bytes(data)
    record = under_test.finish(prepared(under_test, "scan.tif#3")[0], SURE)
    assert (record.image, record.pages, record.sha256) == ("scan.tif#3", None, hashlib.sha256(data).hexdigest())
    assert copies(output, "annotated") == ["annotated/scan.tif#3.jpg"]
    with pytest.raises(ImageError, match="has no page 5"):
        prepared(under_test, "scan.tif#5")
    assert finish(under_test).pages is None


def test_pages_that_were_not_planned_are_not_left_out_in_silence(photos: Path, output: Path) -> None:
    (photos / "scan.tif").write_bytes(tiff(np.full((40, 40, 3), 200, np.uint8), pages=4))
    with pytest.raises(ImageError, match="has 4 pages, which were not seen") as caught:
        prepared(stages(photos, output, pages="all"), "scan.tif")
    assert caught.value.kind is FailureKind.READ


def test_a_name_with_a_number_is_a_files_where_the_first_page_is_the_image(photos: Path, output: Path) -> None:
    write_image(photos / "c.png").rename(photos / "c.png#3")
    assert prepared(stages(photos, output), "c.png#3")[0].entry.key == "c.png#3"


def test_a_damaged_image_is_read_where_the_job_allows_it_and_its_record_says_so(photos: Path, output: Path) -> None:
    done, data = cv2.imencode(".jpg", np.full((40, 40, 3), 200, np.uint8))
    assert done
    (photos / "a.jpg").write_bytes(data.tobytes()[:-2])
    with pytest.raises(ImageError, match=r"is cut off or damaged\. --truncated ok takes"):
        prepared(stages(photos, output), "a.jpg")
    under_test = stages(photos, output, truncated="ok")
    record = under_test.finish(prepared(under_test, "a.jpg")[0], SURE)
    assert (record.width, record.damage, record.is_cut_off) == (40, "the file ends before the image does", True)
    (photos / "a.jpg").write_bytes(data.tobytes())
    assert not under_test.finish(prepared(under_test, "a.jpg")[0], SURE).is_cut_off


def test_a_record_has_what_the_camera_knows_where_the_job_wants_it(photos: Path, output: Path) -> None:
    (photos / "a.jpg").write_bytes(photo("JPEG"))
    for wanted, make in ((True, "Maker"), (False, None)):
        under_test = stages(photos, output, metadata=wanted)
        metadata = under_test.finish(prepared(under_test, "a.jpg")[0], SURE).metadata
        assert (metadata.make if metadata else None) == make


def test_a_file_that_the_gpu_decodes_says_what_it_knows_too(photos: Path, output: Path) -> None:
    (photos / "a.jpg").write_bytes(photo("JPEG", exif(first={MAKE: "Maker"})))
    under_test = stages(photos, output, metadata=True, decode="gpu")
    tensor, room = np.empty((8, 8, 3), np.uint8), np.empty(1 << 16, np.uint8)
    item = under_test.prepare(entry("a.jpg"), under_test.read(entry("a.jpg")), tensor, room)
    assert item.file is not None
    record = under_test.finish(item, SURE)
    assert record.metadata == Metadata(make="Maker")
    with Image.open(output / "annotated" / "a.jpg") as copy:
        assert copy.getexif()[MAKE] == "Maker"


def test_an_annotated_copy_keeps_what_its_original_says_and_stands_upright(photos: Path, output: Path) -> None:
    (photos / "a.jpg").write_bytes(photo("JPEG"))
    under_test = stages(photos, output)
    record = under_test.finish(prepared(under_test, "a.jpg")[0], SURE)
    with Image.open(output / "annotated" / "a.jpg") as copy:
        assert copy.size == (record.width, record.height) == (40, 60)
        assert (copy.getexif()[MAKE], copy.getexif()[ORIENTATION]) == ("Maker", 1)
        assert copy.info["icc_profile"] == PROFILE


def test_only_the_jobs_classes_are_recorded(photos: Path, output: Path) -> None:
    assert finish(stages(photos, output, class_ids=(0,))).detections == ()


@pytest.mark.parametrize(
    ("annotate", "score", "is_written"),
    [
        pytest.param(Annotate.ALL, 0.9, True, id="all-with-a-hit"),
        pytest.param(Annotate.ALL, 0.01, True, id="all-without"),
        pytest.param(Annotate.HITS, 0.9, True, id="hits-with-a-hit"),
        pytest.param(Annotate.HITS, 0.01, False, id="hits-without"),
        pytest.param(Annotate.HITS, 0.1, False, id="hits-with-one-that-is-stored-but-not-shown"),
        pytest.param(Annotate.NONE, 0.9, False, id="none"),
    ],
)
def test_the_images_asked_for_get_a_copy(
    photos: Path, output: Path, annotate: Annotate, score: float, is_written: bool
) -> None:
    finish(stages(photos, output, annotate), scores=(0.0, score))
    assert copies(output, "annotated") == (["annotated/a.png"] if is_written else [])


@pytest.mark.parametrize(
    ("annotate", "thumbnails", "score", "is_made"),
    [
        pytest.param(Annotate.ALL, None, 0.01, True, id="those-with-a-copy"),
        pytest.param(Annotate.HITS, None, 0.01, False, id="none-where-there-is-no-copy"),
        pytest.param(Annotate.NONE, Annotate.ALL, 0.01, True, id="all"),
        pytest.param(Annotate.NONE, Annotate.HITS, 0.9, True, id="hits-with-a-hit"),
        pytest.param(Annotate.ALL, Annotate.HITS, 0.1, False, id="hits-without"),
        pytest.param(Annotate.ALL, Annotate.NONE, 0.9, False, id="none"),
    ],
)
def test_the_images_asked_for_get_a_thumbnail(
    photos: Path, output: Path, annotate: Annotate, thumbnails: Annotate | None, score: float, is_made: bool
) -> None:
    finish(stages(photos, output, annotate, thumbnails=thumbnails), "sub/a.png", scores=(0.0, score))
    assert copies(output, "thumbnails") == (["thumbnails/sub/a.png.jpg"] if is_made else [])


def test_a_thumbnail_has_the_size_asked_for_and_nothing_is_drawn_on_it(photos: Path, output: Path) -> None:
    finish(stages(photos, output, thumbnail_px=64), hw=(50, 100))
    image = cv2.imread(str(output / "thumbnails" / "a.png.jpg"))
    assert image is not None
    assert image.shape == (32, 64, 3)
    assert (abs(image.astype(int) - 200) < 3).all()


@pytest.mark.parametrize("annotate", [Annotate.ALL, Annotate.NONE])
def test_what_the_gpu_decodes_has_a_thumbnail_too(photos: Path, output: Path, annotate: Annotate) -> None:
    under_test = stages(photos, output, annotate, thumbnails=Annotate.ALL, thumbnail_px=64, decode="gpu")
    data = cv2.imencode(".jpg", np.full((80, 100, 3), 200, np.uint8))[1].tobytes()
    room = np.empty(10_000, np.uint8)
    item = under_test.prepare(entry("a.jpg"), data, np.empty((8, 8, 3), np.uint8), room)
    assert item.file is not None
    under_test.finish(item, SURE)
    image = cv2.imread(str(output / "thumbnails" / "a.jpg.jpg"))
    assert image is not None
    assert image.shape == (51, 64, 3)
    assert (abs(image.astype(int) - 200) < 3).all()  # nothing is drawn on it


def test_hits_of_a_classifier_are_all_images(photos: Path, output: Path) -> None:
    under_test = stages(photos, output, Annotate.HITS, CLASSIFIER)
    write_image(photos / "a.png")
    under_test.finish(prepared(under_test)[0], np.array([0.2, 0.8], np.float32))
    assert copies(output, "annotated") == ["annotated/a.png"]


@pytest.mark.parametrize("key", ["sub/deeper/a.png", "a.JPG", "b.tiff", "c.webp", "latin\udce9.png", "new\nline.bmp"])
def test_a_copy_has_its_images_place_name_and_kind(photos: Path, output: Path, key: str) -> None:
    finish(stages(photos, output), key)
    assert copies(output, "annotated") == [f"annotated/{key}"]
    image = cv2.imdecode(np.fromfile(output / "annotated" / key, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (40, 40, 3)
    assert (image != 200).any()


def test_an_images_pixels_are_let_go_once_they_are_written(photos: Path, output: Path) -> None:
    under_test = stages(photos, output)
    write_image(photos / "a.png")
    item, _ = prepared(under_test)
    under_test.finish(item, SURE)
    assert item.image is None


def test_a_copy_that_its_kind_cannot_hold_is_the_images_own_failure(photos: Path, output: Path) -> None:
    spec = job_spec(photos, output)
    changed = spec.options.model_copy(update={"annotate": Annotate.ALL})
    under_test = Stages(
        changed, DETECTOR, LocalStorage(photos), LocalStorage(output), max_pixels=10**8, jpeg_quality=90
    )
    # Its bytes are a PNG's, so it could be read.
    (photos / "a.webp").write_bytes(write_image(photos / "wide.png", hw=(2, 17_000)).read_bytes())
    item, _ = prepared(under_test, "a.webp")
    with pytest.raises(ImageError) as caught:
        under_test.finish(item, SURE)
    assert caught.value.kind is FailureKind.WRITE


@pytest.mark.parametrize(
    ("annotate", "key", "what"),
    [
        pytest.param(Annotate.ALL, "annotated/a.png", "annotated image", id="annotated"),
        pytest.param(Annotate.NONE, "thumbnails/a.png.jpg", "thumbnail", id="thumbnail"),
    ],
)
def test_a_copy_that_cannot_be_written_is_the_images_own_failure(
    photos: Path, output: Path, annotate: Annotate, key: str, what: str
) -> None:
    (output / key).mkdir(parents=True)
    with pytest.raises(ImageError, match=f"cannot write the {what}: Is a directory") as caught:
        finish(stages(photos, output, annotate, thumbnails=Annotate.ALL))
    assert caught.value.kind is FailureKind.WRITE


def test_a_place_that_cannot_be_written_is_everybodys_failure(photos: Path, output: Path) -> None:
    (output / "annotated").write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match="cannot write"):
        finish(stages(photos, output))


def test_an_image_that_cannot_be_drawn_on_is_its_own_failure(photos: Path, output: Path) -> None:
    under_test = stages(photos, output)
    write_image(photos / "a.png")
    item, _ = prepared(under_test)
    assert item.image is not None
    item.image.flags.writeable = False  # OpenCV refuses it
    with pytest.raises(ImageError, match="cannot draw on the image") as caught:
        under_test.finish(item, SURE)
    assert caught.value.kind is FailureKind.DRAW


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_a_failure_record_holds_kind_message_and_sha256() -> None:
    record = failure_record("a.png", ImageError(FailureKind.DECODE, "not an image", "ab" * 32))
    assert record.error is not None
    assert (record.image, record.sha256) == ("a.png", "ab" * 32)
    assert (record.error.kind, record.error.message, record.error.attempts) == (FailureKind.DECODE, "not an image", 1)


def test_a_stopwatch_counts_what_failed_too() -> None:
    watch = Stopwatch()

    def fail() -> None:
        with watch.stage("read"):
            start = time.perf_counter()
            while time.perf_counter() - start < 0.01:
                pass
            raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            fail()
    assert 0.02 <= watch.busy_s()["read"] < 1


def test_every_stage_is_on_the_watch(photos: Path, output: Path) -> None:
    under_test = stages(photos, output)
    watch = under_test.watch
    assert isinstance(watch, Stopwatch)
    finish(under_test)
    assert set(watch.busy_s()) == {"read", "decode", "resize", "thumbnail", "nms", "draw", "encode", "write"}
