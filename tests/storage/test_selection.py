"""What is an image of the user's, and what was asked for: the same in a folder and in a bucket."""

import os
import re
import tracemalloc
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from s3_server import S3Server
from samples import touch

from trtjob.storage import listing, open_storage
from trtjob.storage.chosen import Chosen
from trtjob.storage.listing import Images
from trtjob.storage.selection import Rules, Selection

# As cameras, Macs, Windows and the makers of network disks leave them.
JUNK = {
    "._IMG_1.jpg": "AppleDouble",
    "2026/._IMG_2.jpg": "AppleDouble",
    ".DS_Store": ".DS_Store",
    "2026/@eaDir/IMG_2.jpg/SYNOPHOTO_THUMB_M.jpg": "@eaDir",
    "2026/@eaDir/IMG_2.jpg/SYNOPHOTO_THUMB_XL.jpg": "@eaDir",
    ".@__thumb/s100IMG_1.jpg": "thumbnails",
    ".thumbnails/normal/ab12.png": "thumbnails",
    ".Trash-1000/files/old.jpg": "trash",
    ".Trashes/501/old.jpg": "trash",
    "$RECYCLE.BIN/S-1-5/$R1.jpg": "trash",
    "#recycle/old.jpg": "trash",
    "#snapshot/daily/IMG_1.jpg": "snapshots",
    ".snapshot/daily/IMG_1.jpg": "snapshots",
    "2026/.AppleDouble/IMG_2.jpg": "AppleDouble",
    "__MACOSX/2026/._IMG_2.jpg": "__MACOSX",
    "2026/Thumbs.db": "Thumbs.db",
    "desktop.ini": "desktop.ini",
    "System Volume Information/x.jpg": "system",
    ".picasa.jpg": "hidden",
    ".git/objects/a.png": "hidden",
    ".git/notes.txt": "hidden",
}
IMAGES = ["2026/IMG_2.jpg", "2026/raw/IMG_3.png", "IMG_1.jpg", "album.jpg/a.jpg", "thumbnails/a.jpg"]
OTHERS = {"2026/video.MP4": ".mp4", "notes.txt": ".txt"}


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, and a bucket, with all of these."""
    names = [*IMAGES, *JUNK, *OTHERS]
    if request.param == "folder":
        return str(touch(tmp_path / "photos", *names))
    s3: S3Server = request.getfixturevalue("s3")
    bucket = s3.new_bucket()
    for name in names:
        s3.client().put_object(Bucket=bucket, Key=f"p/{name}", Body=b"x")
    return f"s3://{bucket}/p"


def counts(*names: str) -> dict[str, int]:
    kinds = [({**JUNK, **OTHERS} | dict.fromkeys(IMAGES, "excluded"))[name] for name in names]
    return {kind: kinds.count(kind) for kind in kinds}


def listed(images: Images) -> list[str]:
    return [entry.key for entry in images]


def test_what_systems_put_beside_images_is_counted_by_its_kind(place: str) -> None:
    images = open_storage(place).images()
    assert listed(images) == IMAGES
    assert images.ignored == counts(*JUNK, *OTHERS)


def test_hidden_ones_are_taken_when_asked_for_and_what_is_never_an_image_is_not(place: str) -> None:
    images = open_storage(place).images(Rules(Selection(hidden=True)))
    assert listed(images) == sorted([*IMAGES, ".picasa.jpg", ".git/objects/a.png"])
    assert images.ignored == counts(*(name for name, kind in JUNK.items() if kind != "hidden"), *OTHERS) | {".txt": 2}


def test_what_is_excluded_is_counted_too(place: str) -> None:
    images = open_storage(place).images(Rules(Selection(exclude=("raw", "IMG_1.*", "album*"))))
    assert listed(images) == ["2026/IMG_2.jpg", "thumbnails/a.jpg"]
    assert images.ignored == counts(*JUNK, *OTHERS) | {"excluded": 3}


def test_only_what_is_included_is_taken(place: str) -> None:
    images = open_storage(place).images(Rules(Selection(include=("2026/**/*.png", "thumbnails/"))))
    assert listed(images) == ["2026/raw/IMG_3.png", "thumbnails/a.jpg"]
    assert images.ignored == counts(*JUNK, *OTHERS) | {"excluded": 3}


def test_folders_below_are_not_looked_into(place: str) -> None:
    images = open_storage(place).images(Rules(Selection(recursive=False)))
    assert listed(images) == ["IMG_1.jpg"]
    assert images.ignored == counts(*(name for name in [*JUNK, *OTHERS] if "/" not in name))


def test_a_pattern_is_for_all_keys_and_folders_beside_its_way_are_not_looked_into(place: str) -> None:
    rules = Rules(Selection(exclude=("IMG_3*",)), patterns=("2026/**/*.[jp][pn]g", "x*/y.jpg"))
    images = open_storage(place).images(rules)
    assert listed(images) == ["2026/IMG_2.jpg"]
    assert images.ignored["excluded"] == 2


@pytest.mark.slow
def test_of_a_bucket_only_what_begins_like_the_patterns_is_listed(proxy: FaultProxy, s3: S3Server) -> None:
    bucket = s3.new_bucket()
    for key in ("p/cam1/a.jpg", "p/cam2/b.jpg", "p/dog/c.jpg"):
        s3.client().put_object(Bucket=bucket, Key=key, Body=b"x")
    images = open_storage(f"s3://{bucket}/p").images(Rules(patterns=("/cam1*/*", "/cam[2]/*")))
    assert listed(images) == ["cam1/a.jpg", "cam2/b.jpg"]
    assert proxy.requests
    assert all(re.search(rb"prefix=p%2Fcam[& ]", line) for line in proxy.requests)


def test_what_was_changed_before_a_date_is_older(tmp_path: Path) -> None:
    touch(tmp_path, "new.jpg", "old.jpg")
    os.utime(tmp_path / "old.jpg", (1_000_000, 1_000_000))
    os.utime(tmp_path / "new.jpg", (2_000_000, 2_000_000))
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    for since_s, keys, older in ((1_000_000.5, ["gone.jpg", "new.jpg"], 1), (1_000_000.0, None, 0)):
        images = open_storage(tmp_path).images(Rules(Selection(since_s=since_s)))
        assert listed(images) == (keys or ["gone.jpg", "new.jpg", "old.jpg"])
        assert images.ignored["older"] == older


@pytest.mark.slow
def test_objects_are_as_old_as_their_bucket_says(bucket: str, s3: S3Server) -> None:
    s3.client().put_object(Bucket=bucket, Key="a.jpg", Body=b"x")
    when = s3.client().head_object(Bucket=bucket, Key="a.jpg")["LastModified"].timestamp()
    storage = open_storage(f"s3://{bucket}")
    assert listed(storage.images(Rules(Selection(since_s=when - 1)))) == ["a.jpg"]
    images = storage.images(Rules(Selection(since_s=when + 2)))
    assert listed(images) == []
    assert images.ignored == {"older": 1}
    assert abs(storage.entry("a.jpg").modified_s - when) < 1


# -- some of all -------------------------------------------------------------------------------------------------------


def chosen(folder: Path, **wanted: int) -> list[str]:
    return listed(Chosen(open_storage(folder).images(), Selection.model_validate(wanted)))


def test_a_limit_takes_the_first(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.jpg" for number in range(9)))
    assert chosen(tmp_path, limit=3) == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(chosen(tmp_path, limit=30)) == 9


def test_a_sample_is_the_same_each_time_and_another_with_another_seed(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number:03d}.jpg" for number in range(200)))
    first = chosen(tmp_path, sample=20)
    assert first == sorted(set(first)) == chosen(tmp_path, sample=20, seed=0)
    assert len(first) == 20
    assert first != chosen(tmp_path, sample=20, seed=1)
    assert len(chosen(tmp_path, sample=300)) == 200


def test_a_sample_keeps_nearly_all_of_its_images_when_some_are_added(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number:03d}.jpg" for number in range(200)))
    before = chosen(tmp_path, sample=20)
    touch(tmp_path, "2000.jpg", "2001.jpg")
    assert len({*before} - {*chosen(tmp_path, sample=20)}) <= 2


def test_every_image_is_sampled_as_often_as_the_others(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.jpg" for number in range(10)))
    taken = [key for seed in range(200) for key in chosen(tmp_path, sample=5, seed=seed)]
    assert all(70 < taken.count(f"{number}.jpg") < 130 for number in range(10))


@pytest.mark.slow
def test_ten_thousand_of_each_kind_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample is what is kept; what is passed over, and what is not chosen, is not."""
    monkeypatch.setattr(listing, "RUN", 5000)
    kinds = ("._{}.jpg", "@eaDir/{}.jpg", "{}.mp4", "{}.jpg")
    for kind in kinds:
        (tmp_path / kind).parent.mkdir(exist_ok=True)
        for number in range(10_000):
            (tmp_path / kind.format(number)).touch()
    images = Chosen(open_storage(tmp_path).images(), Selection(sample=10))
    tracemalloc.start()
    try:
        assert len(listed(images)) == 10
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert images.ignored.total() == (len(kinds) - 1) * 10_000
    assert peak_bytes < 4_000_000  # RUN names and a block of each file of names; 40,000 entries are over 8 MB
