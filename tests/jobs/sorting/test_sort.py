"""Images in folders by what was found on them, and back where they were, whatever happens in between."""

import errno
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from epochs import failed, found, job_spec, write_records
from s3_server import S3Server
from users import as_nobody
from web_server import web_server

from trtjob.atomic import unfinished_name
from trtjob.errors import ConfigError
from trtjob.jobs.folder import RESULTS, JobFolder
from trtjob.jobs.records import Record
from trtjob.jobs.sorting import By, How, SortedImages, sort_images, undo_sort
from trtjob.jobs.spec import JobSpec, Source

BOX = (1.0, 2.0, 30.0, 40.0)
SEEN = (
    found("cam1/IMG_1.jpg", (1, 0.9, BOX)),
    found("cam2/IMG_1.jpg", (1, 0.9, BOX), (0, 0.8, BOX)),
    found("cam2/IMG_2.jpg"),
    failed("cam2/broken.jpg"),
)
PLACES = {
    "cam1/IMG_1.jpg": "dog/cam1/IMG_1.jpg",
    "cam2/IMG_1.jpg": "cat+dog/cam2/IMG_1.jpg",
    "cam2/IMG_2.jpg": "empty/cam2/IMG_2.jpg",
    "cam2/broken.jpg": "failed/cam2/broken.jpg",
}
LIST = "sort-photos-1a2b3c4d.jsonl"
HOWS = [pytest.param(how, id=how.value) for how in How]


class Photos:
    """A job over four photos, and a folder to sort them into."""

    def __init__(self, folder: Path, into: Path | None = None) -> None:
        self.photos = folder / "photos"
        self.into = into or folder / "sorted"
        self.spec = job_spec(folder / "out").model_copy(update={"source": Source(kind="folder", root=str(self.photos))})
        self.folder = JobFolder.of(self.spec)
        self.folder.storage.make_root()
        self.see(*SEEN)
        for record in SEEN:
            path = self.photos / record.image
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(record.image.encode() * 100)
            os.utime(path, (1_700_000_000, 1_700_000_000))

    def see(self, *records: Record) -> None:
        write_records(Path(self.folder.uri) / RESULTS, records)

    def sort(self, how: How, by: By = By.CLASS, spec: JobSpec | None = None) -> SortedImages:
        return sort_images(self.folder, spec or self.spec, self.into, by=by, how=how, conf=0.25)

    def undo(self) -> tuple[int, list[tuple[str, str]]]:
        return undo_sort(self.into, self.spec.job_id)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LIST
    }


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return Photos(tmp_path)


@pytest.fixture
def before(photos: Photos) -> dict[str, bytes]:
    return tree(photos.photos)


@pytest.mark.parametrize("how", HOWS)
def test_each_image_is_in_the_folder_of_its_class(photos: Photos, before: dict[str, bytes], how: How) -> None:
    done = photos.sort(how)
    assert done.folders == {"dog": 1, "cat+dog": 1, "empty": 1, "failed": 1}
    assert not done.left
    assert tree(photos.into) == {PLACES[key]: data for key, data in before.items()}
    assert tree(photos.photos) == ({} if how is How.MOVE else before)


def test_classes_in_each_folder_of_the_source_are_counted_there(photos: Photos) -> None:
    counted = {"cam1/dog": 1, "cam2/cat+dog": 1, "cam2/empty": 1, "cam2/failed": 1}
    assert photos.sort(How.COPY, By.FOLDER).folders == counted


@pytest.mark.parametrize("how", HOWS)
def test_what_was_sorted_is_taken_back_and_leaves_no_trace(photos: Photos, before: dict[str, bytes], how: How) -> None:
    photos.sort(how)
    assert photos.undo() == (4, [])
    assert tree(photos.photos) == before
    assert list(photos.into.iterdir()) == []


@pytest.mark.parametrize("how", HOWS)
def test_the_same_again_changes_nothing(photos: Photos, how: How) -> None:
    photos.sort(how)
    sorted_once, listed = tree(photos.into), (photos.into / LIST).read_bytes()
    assert photos.sort(how).folders.total() == 4
    assert tree(photos.into) == sorted_once
    assert (photos.into / LIST).read_bytes() == listed


def test_what_would_go_elsewhere_now_is_named_and_not_counted(photos: Photos) -> None:
    photos.sort(How.MOVE)
    photos.see(found("cam1/IMG_1.jpg", (0, 0.9, BOX)), *SEEN[1:])  # as another --conf or a retry would have it
    done = photos.sort(How.MOVE)
    why = "it lies in dog/cam1 from before, and would go to cat/cam1 now: take that sort back first"
    assert done.left == [("cam1/IMG_1.jpg", why)]
    assert done.folders == {"cat+dog": 1, "empty": 1, "failed": 1}


def test_copies_keep_their_time(photos: Photos) -> None:
    photos.sort(How.COPY)
    assert (photos.into / PLACES["cam1/IMG_1.jpg"]).stat().st_mtime == 1_700_000_000


def test_links_take_no_space(photos: Photos) -> None:
    photos.sort(How.LINK)
    assert (photos.into / PLACES["cam1/IMG_1.jpg"]).samefile(photos.photos / "cam1/IMG_1.jpg")


@pytest.mark.parametrize("how", HOWS)
def test_what_lies_in_the_folder_already_is_never_overwritten(
    photos: Photos, before: dict[str, bytes], how: How
) -> None:
    own = photos.into / PLACES["cam1/IMG_1.jpg"]
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    own.with_name("IMG_1 (2).jpg").write_bytes(b"mine, too")
    assert not photos.sort(how).left
    assert own.read_bytes() == b"mine"
    assert own.with_name("IMG_1 (3).jpg").read_bytes() == before["cam1/IMG_1.jpg"]
    assert photos.undo() == (4, [])
    assert tree(photos.into) == {"dog/cam1/IMG_1.jpg": b"mine", "dog/cam1/IMG_1 (2).jpg": b"mine, too"}
    assert tree(photos.photos) == before


def test_a_card_with_the_same_names_is_sorted_beside_the_first(tmp_path: Path) -> None:
    one, other = Photos(tmp_path / "one"), Photos(tmp_path / "other", tmp_path / "one" / "sorted")
    other.spec = other.spec.model_copy(update={"job_id": "photos-5e6f7a8b"})
    one.sort(How.MOVE)
    other.sort(How.MOVE)
    assert (one.into / "dog/cam1/IMG_1 (2).jpg").is_file()
    assert other.undo() == (4, [])
    assert one.undo() == (4, [])


def test_an_image_that_is_gone_is_left_and_named(photos: Photos) -> None:
    (photos.photos / "cam2/broken.jpg").unlink()
    done = photos.sort(How.MOVE)
    assert done.left == [("cam2/broken.jpg", "No such file or directory")]
    assert done.folders.total() == 3


def test_a_link_to_an_image_is_not_moved(photos: Photos, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.jpg"
    elsewhere.write_bytes(b"x")
    (photos.photos / "cam2/IMG_2.jpg").unlink()
    (photos.photos / "cam2/IMG_2.jpg").symlink_to(elsewhere)
    assert [image for image, _ in photos.sort(How.MOVE).left] == ["cam2/IMG_2.jpg"]
    assert elsewhere.is_file()


def test_a_link_in_the_folder_leads_nothing_out_of_it(photos: Photos, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    photos.into.mkdir()
    (photos.into / "dog").symlink_to(outside)
    [(image, why)] = photos.sort(How.MOVE).left
    assert image == "cam1/IMG_1.jpg"
    assert "leads out of" in why
    assert tree(outside) == {}
    assert (photos.photos / image).is_file()


def test_a_file_in_the_way_of_a_folder_leaves_its_images(photos: Photos) -> None:
    photos.into.mkdir()
    (photos.into / "dog").write_bytes(b"mine")
    assert [image for image, _ in photos.sort(How.MOVE).left] == ["cam1/IMG_1.jpg"]
    assert (photos.into / "dog").read_bytes() == b"mine"


def test_nobody_is_made_a_fool_of_by_a_name_with_a_way_up(photos: Photos) -> None:
    photos.see(found("../../etc/passwd.jpg"))
    with pytest.raises(Exception, match="leaves the folder"):
        photos.sort(How.MOVE)


def test_an_image_that_was_changed_since_is_left(photos: Photos) -> None:
    photos.sort(How.COPY)
    copy = photos.into / PLACES["cam1/IMG_1.jpg"]
    copy.write_bytes(b"with my notes")
    taken_back, [(image, why)] = photos.undo()
    assert (taken_back, image) == (3, "cam1/IMG_1.jpg")
    assert "was changed" in why
    assert copy.read_bytes() == b"with my notes"
    copy.unlink()
    assert photos.undo() == (1, [])


def test_a_place_that_somebody_took_keeps_its_new_file(photos: Photos) -> None:
    photos.sort(How.MOVE)
    (photos.photos / "cam1/IMG_1.jpg").write_bytes(b"new")
    taken_back, [(image, why)] = photos.undo()
    assert (taken_back, image) == (3, "cam1/IMG_1.jpg")
    assert "another file lies at its old place" in why
    assert (photos.into / PLACES[image]).is_file()


def test_the_last_link_to_an_image_is_left(photos: Photos) -> None:
    photos.sort(How.LINK)
    (photos.photos / "cam1/IMG_1.jpg").unlink()
    assert [image for image, _ in photos.undo()[1]] == ["cam1/IMG_1.jpg"]
    assert (photos.into / PLACES["cam1/IMG_1.jpg"]).is_file()


def test_what_was_sorted_in_one_way_is_not_sorted_in_another_over_it(photos: Photos) -> None:
    photos.sort(How.COPY)
    with pytest.raises(ConfigError, match=r"sorted into .* by class with --copy"):
        photos.sort(How.MOVE)
    with pytest.raises(ConfigError, match="--undo"):
        photos.sort(How.COPY, By.FOLDER)


def test_there_is_nothing_to_take_back_where_nothing_was_sorted(photos: Photos) -> None:
    with pytest.raises(ConfigError, match="nothing to undo"):
        photos.undo()


def test_images_of_a_list_are_sorted_beside_it(photos: Photos) -> None:
    photos.into = photos.photos / "sorted"
    listed = photos.spec.source.model_copy(update={"kind": "list"})
    assert not photos.sort(How.COPY, spec=photos.spec.model_copy(update={"source": listed})).left


def test_places_that_cannot_be_meant_are_refused(photos: Photos) -> None:
    photos.into = photos.photos / "sorted"
    with pytest.raises(ConfigError, match="lies in the source"):
        photos.sort(How.COPY)
    photos.into = Path(photos.folder.uri) / "sorted"
    with pytest.raises(ConfigError, match="job's own folder"):
        photos.sort(How.COPY)
    bucket = photos.spec.model_copy(update={"source": Source(kind="folder", root="s3://bucket/photos")})
    photos.into = photos.photos.parent / "sorted"
    with pytest.raises(ConfigError, match="use --copy"):
        photos.sort(How.MOVE, spec=bucket)
    classifier = photos.spec.model_copy(update={"model": photos.spec.model.model_copy(update={"task": "classify"})})
    with pytest.raises(ConfigError, match="--by empty is for detectors"):
        photos.sort(How.COPY, By.EMPTY, classifier)


def test_images_are_sorted_where_they_are_by_moving_them(photos: Photos, before: dict[str, bytes]) -> None:
    photos.into = photos.photos
    assert not photos.sort(How.MOVE).left
    assert tree(photos.photos) == {PLACES[key]: data for key, data in before.items()}
    assert photos.undo() == (4, [])
    assert tree(photos.photos) == before


# -- other file systems ------------------------------------------------------------------------------------------------


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the file system be as that of a camera's card, which has no links."""

    def no_link(*_args: object, **_options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)


@pytest.mark.parametrize("how", HOWS)
def test_a_file_system_without_links_is_sorted_too(
    photos: Photos, before: dict[str, bytes], how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch)
    own = photos.into / PLACES["cam1/IMG_1.jpg"]
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    assert not photos.sort(how).left
    assert own.read_bytes() == b"mine"
    assert photos.undo() == (4, [])
    assert tree(photos.photos) == before


def test_a_source_that_is_read_only_is_named(
    photos: Photos, before: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path, **_options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ConfigError, match=r"photos/cam1/IMG_1\.jpg' cannot be moved: .* Use --copy or --link"):
        photos.sort(How.MOVE)
    assert tree(photos.photos) == before


@pytest.fixture
def other_disk(tmp_path: Path) -> Path:
    """A folder on another file system."""
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    folder = shared_memory / f"trtjob-{os.getpid()}-{tmp_path.name}"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("how", HOWS)
def test_images_go_to_another_disk_and_back(tmp_path: Path, other_disk: Path, how: How) -> None:
    try:
        photos = Photos(tmp_path, other_disk / "sorted")
        before = tree(photos.photos)
        assert not photos.sort(how).left
        assert tree(photos.into) == {PLACES[key]: data for key, data in before.items()}
        assert photos.undo() == (4, [])
        assert tree(photos.photos) == before
    finally:
        shutil.rmtree(other_disk)


def test_a_copy_that_differs_keeps_what_it_was_made_of(
    tmp_path: Path, other_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad_disk(source: Path, target: Path) -> None:
        target.write_bytes(b"x" * source.stat().st_size)

    try:
        photos = Photos(tmp_path, other_disk / "sorted")
        before = tree(photos.photos)
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "copyfile", bad_disk)
            with pytest.raises(Exception, match="cannot write"):
                photos.sort(How.MOVE)
        assert tree(photos.photos) == before
    finally:
        shutil.rmtree(other_disk)


def test_images_of_a_web_server_are_copied(photos: Photos) -> None:
    with web_server() as server:
        server.put("/cam1/IMG_1.jpg", b"from afar")
        source = Source(kind="list", root=f"{server.url}")
        photos.see(found("cam1/IMG_1.jpg", (1, 0.9, BOX)), found("cam1/gone.jpg"))
        spec = photos.spec.model_copy(update={"source": source})

        def sort() -> SortedImages:
            return sort_images(photos.folder, spec, photos.into, how=How.COPY, conf=0.25, allow_local=True)

        assert [image for image, _ in sort().left] == ["cam1/gone.jpg"]
        assert tree(photos.into) == {"dog/cam1/IMG_1.jpg": b"from afar"}
        assert sort().folders == {"dog": 1}
    assert server.heard.count("GET /cam1/IMG_1.jpg") == 1
    assert photos.undo() == (1, [])
    assert tree(photos.into) == {}


@pytest.mark.slow
def test_a_video_in_a_bucket_is_copied_whole(photos: Photos, s3: S3Server, bucket: str) -> None:
    photos.see(found("v.mp4#t=0.000", (1, 0.9, BOX)))
    frames = photos.spec.options.model_copy(update={"frames": "fps=1"})
    source = Source(kind="folder", root=f"s3://{bucket}")
    spec = photos.spec.model_copy(update={"source": source, "options": frames})
    gone = photos.sort(How.COPY, spec=spec)
    assert [name for name, _ in gone.left] == ["v.mp4"]
    assert tree(photos.into) == {}
    s3.client().put_object(Bucket=bucket, Key="v.mp4", Body=b"a film")
    done = photos.sort(How.COPY, spec=spec)
    assert (done.folders, done.left) == ({"dog": 1}, [])
    assert tree(photos.into) == {"dog/v.mp4": b"a film"}


def test_what_others_are_writing_below_the_folder_stays(photos: Photos) -> None:
    others = [
        photos.into / folder / unfinished_name() for folder in (".", "results/photos-2b3c4d5e/shards", "dog/cam1/deep")
    ]
    photos.sort(How.COPY)
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert not photos.sort(How.COPY).left
    assert photos.undo() == (4, [])
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("then", [lambda photos: photos.sort(How.COPY), Photos.undo], ids=["sort", "undo"])
def test_what_a_killed_sort_was_writing_is_removed(photos: Photos, then: Callable[[Photos], object]) -> None:
    photos.sort(How.COPY)
    part = (photos.into / PLACES["cam2/broken.jpg"]).with_name(unfinished_name())
    part.touch()
    then(photos)
    assert not part.exists()


def test_a_folder_of_the_system_beside_the_sorted_ones_may_be_closed(public_folder: Path) -> None:
    photos = Photos(public_folder)
    before = tree(photos.photos)
    (photos.into / "lost+found").mkdir(parents=True)
    (photos.into / "lost+found").chmod(0)
    for folder in (photos.into, photos.photos, *photos.photos.iterdir()):
        folder.chmod(0o777)
    with as_nobody():
        assert not photos.sort(How.MOVE).left
        assert not photos.sort(How.MOVE).left
        assert photos.undo() == (4, [])
    assert tree(photos.photos) == before


# -- killed ------------------------------------------------------------------------------------------------------------

_TOUCHES = frozenset({"open", "os.link", "os.remove", "os.rename", "os.mkdir", "os.symlink", "os.rmdir", "os.utime"})


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do some work in a process of its own that is gone at a step. Returns whether it came that far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, of which none is used in it
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    steps = 0

    def count(event: str, _arguments: object) -> None:
        nonlocal steps
        steps += event in _TOUCHES
        if steps == step:
            os._exit(9)

    sys.addaudithook(count)
    try:
        work()
    finally:
        os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "links"),
    [
        pytest.param(How.COPY, True, id="copy"),
        pytest.param(How.LINK, True, id="link"),
        pytest.param(How.MOVE, True, id="move"),
        pytest.param(How.MOVE, False, id="move-without-links"),
    ],
)
def test_a_sort_that_is_killed_at_any_step_loses_nothing_and_goes_on(
    tmp_path: Path, how: How, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        without_links(monkeypatch)
    photos = Photos(tmp_path)
    before = tree(photos.photos)
    step, came_so_far = 1, True
    while came_so_far:
        came_so_far = killed_at(step, lambda: photos.sort(how))
        there = {*tree(photos.photos).values(), *tree(photos.into).values()} if photos.into.is_dir() else None
        assert there is None or there >= set(before.values())
        if step % 2:
            assert not photos.sort(how).left
            assert tree(photos.into) == {PLACES[key]: data for key, data in before.items()}
        if (photos.into / LIST).is_file() and (photos.into / LIST).stat().st_size:
            killed_at(step % 40 + 1, photos.undo)
            if (photos.into / LIST).is_file():
                assert photos.undo()[1] == []
        assert tree(photos.photos) == before
        assert not photos.into.is_dir() or tree(photos.into) == {}
        step += 17 if how is How.COPY else 7
    assert step > 20
