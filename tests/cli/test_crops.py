import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from epochs import found, job_spec, write_records
from terminal import Outcome

from trtjob.imaging.encode import encode_image
from trtjob.imaging.masks import Mask
from trtjob.jobs.folder import JOB, RESULTS, JobFolder
from trtjob.jobs.spec import Source

Command = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """The folder of a job over a photo that is there, with a mask, and one that is not."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(encode_image(np.zeros((100, 200, 3), np.uint8), ".png"))
    spec = job_spec(tmp_path / "out").model_copy(update={"source": Source(kind="folder", root=str(photos))})
    folder = JobFolder.of(spec)
    folder.storage.make_root()
    folder.storage.create(JOB, spec.model_dump_json().encode())
    record = found("a.png", (1, 0.9, (10.0, 20.0, 60.0, 80.0)))
    assert record.detections is not None
    masked = replace(record.detections[0], mask=Mask.encode(np.ones((100, 200), bool)))
    sha256 = hashlib.sha256((photos / "a.png").read_bytes()).hexdigest()
    records = [replace(record, sha256=sha256, detections=(masked,)), replace(record, image="b.png")]
    write_records(Path(folder.uri) / RESULTS, records)
    return folder


def test_it_says_what_was_made_ignored_and_left(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    outcome = trtjob("crops", folder.uri, "-o", tmp_path / "crops", "--margin", "0.1")
    assert outcome.code == 1
    assert outcome.out == f"{tmp_path / 'crops/crops.csv'}\n"
    assert "1 crop of 1 image" in outcome.err
    assert "crops are of boxes: masks are ignored" in outcome.err
    assert "left: b.png: the file is not there any more" in outcome.err
    assert (tmp_path / "crops/dog/a.png-1.jpg").is_file()


def test_json_names_everything(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    document = json.loads(trtjob("crops", folder.uri, "-o", tmp_path / "crops", "--json").out)
    assert document == {
        "job_id": "photos-1a2b3c4d",
        "crops": 1,
        "images": 1,
        "left": [{"image": "b.png", "why": "the file is not there any more"}],
        "ignored": ["masks"],
        "table": str(tmp_path / "crops/crops.csv"),
    }


@pytest.mark.parametrize(
    "words", ["-o s3://bucket/crops", "-o gs://bucket/crops", "-o crops --margin -1", "-o crops --margin 11"]
)
def test_what_cannot_be_meant_is_refused(trtjob: Command, folder: JobFolder, words: str) -> None:
    assert trtjob("crops", folder.uri, *words.split()).code == 2
