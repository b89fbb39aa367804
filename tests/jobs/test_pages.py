"""Pages as images of their own: planned each for itself, sorted among all images, and each once."""

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from epochs import failed, found, write_records
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from samples import job_spec, made
from tiffs import tiff

from trtjob.jobs.folder import RESULTS, JobFolder, PlanEpoch
from trtjob.jobs.pages import MOST_PAGES, Pages, file_and_page, names_page, page_entry
from trtjob.jobs.plan import plan_epoch, planned_entries
from trtjob.jobs.source_images import Named
from trtjob.jobs.spec import JobSpec
from trtjob.storage import LocalStorage

PIXELS = np.full((8, 8, 3), 200, np.uint8)


def scan(folder: Path, name: str, pages: int) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiff(PIXELS, pages=pages))
    return path


def keys(folder: Path) -> list[str]:
    storage = LocalStorage(folder)
    return [entry.key for entry in Pages(storage.images(), storage)]


@pytest.mark.parametrize(
    ("key", "file", "page"),
    [
        pytest.param("a.tif#12", "a.tif", 12, id="page"),
        pytest.param("a.tif", "a.tif", 1, id="file"),
        pytest.param("a#2.jpg", "a#2.jpg", 1, id="a-hash-inside"),
        pytest.param("a.tif#0", "a.tif#0", 1, id="no-page"),
        pytest.param("a.tif#01", "a.tif#01", 1, id="not-as-we-write-it"),
        pytest.param("a\n#3", "a\n", 3, id="any-name"),
    ],
)
def test_a_key_names_a_file_and_its_page(key: str, file: str, page: int) -> None:
    assert file_and_page(key) == (file, page)
    assert names_page(key) is (file != key)


def test_each_page_is_an_image_and_a_file_of_one_is_itself(tmp_path: Path) -> None:
    scan(tmp_path, "a.tif", 3)
    scan(tmp_path, "b.tif", 1)
    (tmp_path / "c.jpg").write_bytes(b"not read to plan it")
    assert keys(tmp_path) == ["a.tif#1", "a.tif#2", "a.tif#3", "b.tif", "c.jpg"]


def test_a_file_whose_name_says_nothing_may_have_pages(tmp_path: Path) -> None:
    scan(tmp_path, "IMG_1", 2)
    scan(tmp_path, "a.tif_large", 1)
    assert keys(tmp_path) == ["IMG_1#1", "IMG_1#2", "a.tif_large"]


def test_pages_of_all_kinds_are_counted(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (40 * number, 0, 0)) for number in range(3)]
    for suffix in ("gif", "webp", "png", "avif"):
        file = io.BytesIO()
        frames[0].save(file, suffix.upper(), save_all=True, append_images=frames[1:])
        (tmp_path / f"a.{suffix}").write_bytes(file.getvalue())
    assert len(keys(tmp_path)) == 12


def test_pages_are_sorted_among_all_images(tmp_path: Path) -> None:
    names = ("a.tif", "a.tif !.jpg", "a.tif!.tif", "a.tif#.tif", "a.tif$.jpg", "a.tif.jpg", "b.jpg", "a.tif/x.tif")
    for name in names[:-1]:
        scan(tmp_path, name, 12)
    found = keys(tmp_path)
    assert found == sorted(found)
    assert len(found) == len(set(found)) == 3 * 12 + 4


NAMES = st.sampled_from(["a", "a!", "a#", "a$", "a#1", "b"])


@given(st.dictionaries(NAMES, st.integers(1, 12)))
def test_any_files_come_sorted_and_once(files: dict[str, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, pages in files.items():
            scan(Path(folder), f"{name}.tif", pages)
        found = keys(Path(folder))
    assert found == sorted(set(found))
    assert len(found) == sum(files.values())


def test_a_page_that_is_named_beside_its_file_is_there_once(tmp_path: Path) -> None:
    scan(tmp_path, "a.tif", 3)
    storage = LocalStorage(tmp_path)
    named = Named(storage, ["a.tif", "a.tif#2"])
    assert [entry.key for entry in Pages(named, storage)] == ["a.tif#1", "a.tif#2", "a.tif#3"]


def test_more_pages_than_can_be_are_one_image(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    data = file.getvalue()
    at = data.index(b"acTL") + 4
    (tmp_path / "a.png").write_bytes(data[:at] + (MOST_PAGES + 1).to_bytes(4, "big") + data[at + 4 :])
    assert keys(tmp_path) == ["a.png"]


def test_a_file_that_cannot_be_read_is_one_image(tmp_path: Path) -> None:
    (tmp_path / "gone.tif").symlink_to(tmp_path / "nowhere")
    assert keys(tmp_path) == ["gone.tif"]


def test_a_page_changes_with_its_file(tmp_path: Path) -> None:
    path, storage = scan(tmp_path, "a.tif", 2), LocalStorage(tmp_path)
    before = page_entry(storage, "a.tif#2")
    assert (before.key, before.size_bytes) == ("a.tif#2", path.stat().st_size)
    path.write_bytes(path.read_bytes() + b"\0")
    assert page_entry(storage, "a.tif#2").etag != before.etag


# -- in a plan ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path: Path) -> tuple[JobFolder, JobSpec, Path]:
    photos = tmp_path / "photos"
    scan(photos, "a.tif", 5)
    scan(photos, "b/c.tif", 2)
    spec = job_spec(photos, tmp_path / "out", shard_size=2)
    spec = spec.model_copy(update={"options": spec.options.model_copy(update={"pages": "all"})})
    (tmp_path / "out").mkdir()
    return made(JobFolder.of(spec)), spec, photos


def planned(job: tuple[JobFolder, JobSpec, Path], epoch: int = 0) -> PlanEpoch:
    folder, spec, photos = job
    reason = "submit" if epoch == 0 else "update"
    return plan_epoch(
        folder, spec, LocalStorage(photos), epoch=epoch, reason=reason, on_shards=lambda _numbers, _images: None
    )


def test_a_plan_has_each_page_once_whatever_the_shards(job: tuple[JobFolder, JobSpec, Path]) -> None:
    epoch = planned(job)
    assert (epoch.listed, epoch.images, epoch.shards) == (7, 7, 4)
    names = [entry.key for entry in planned_entries(job[0], [epoch])]
    assert names == [*(f"a.tif#{page}" for page in range(1, 6)), "b/c.tif#1", "b/c.tif#2"]


def test_the_same_command_plans_the_pages_of_a_file_that_changed(job: tuple[JobFolder, JobSpec, Path]) -> None:
    first = planned(job)
    assert planned(job, 1).images == 0
    scan(job[2], "b/c.tif", 3)
    third = planned(job, 2)
    assert [entry.key for entry in planned_entries(job[0], [third])] == ["b/c.tif#1", "b/c.tif#2", "b/c.tif#3"]
    assert third.listed == 8
    assert first.epoch == 0


def test_a_page_that_failed_is_tried_again_for_itself(job: tuple[JobFolder, JobSpec, Path]) -> None:
    folder, spec, photos = job
    planned(job)
    write_records(Path(folder.uri) / RESULTS, [found("a.tif#1"), failed("a.tif#2")])
    again = plan_epoch(
        folder, spec, LocalStorage(photos), epoch=1, reason="retry", on_shards=lambda _numbers, _images: None
    )
    (entry,) = planned_entries(folder, [again])
    assert (entry.key, entry.size_bytes) == ("a.tif#2", (photos / "a.tif").stat().st_size)
    assert entry.etag
