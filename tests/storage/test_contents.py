"""Of a file whose name does not say what it is, what it begins with does: the same in a folder and in a bucket."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_proxy import FaultProxy, answer
from s3_server import S3Server
from samples import touch
from users import as_nobody

from trtjob.errors import StorageError
from trtjob.jobs import list_files, places
from trtjob.storage import listing, open_storage
from trtjob.storage.listing import Images, Listing, is_unknown
from trtjob.storage.other_suffixes import OTHER_SUFFIXES
from trtjob.storage.selection import Rules, Selection

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
FILES = {
    ".hidden": PNG,
    "._IMG_2": PNG,
    "IMG_1": PNG,
    "IMG_1.jpg": b"",
    "IMG_1.jpg_large": PNG,
    "README": b"BMP files are read, too",
    "a.nef": b"II*\0" + bytes(100),
    "a.thm": PNG,
    "a.txt": PNG,
    "cache/0a1b2c": PNG,
    "empty": b"",
    "z.xyz": b"XYZ",
}
TAKEN = ["IMG_1", "IMG_1.jpg", "IMG_1.jpg_large", "cache/0a1b2c"]
IGNORED = {".nef": 1, ".thm": 1, ".txt": 1, ".xyz": 1, "AppleDouble": 1, "hidden": 1, "no suffix": 2}


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, and a bucket, with these files."""
    if request.param == "folder":
        fill(tmp_path / "photos")
        return str(tmp_path / "photos")
    s3: S3Server = request.getfixturevalue("s3")
    bucket = s3.new_bucket()
    for name, data in FILES.items():
        s3.client().put_object(Bucket=bucket, Key=f"p/{name}", Body=data)
    return f"s3://{bucket}/p"


def fill(folder: Path) -> None:
    for name, data in FILES.items():
        touch(folder, name).joinpath(name).write_bytes(data)


def listed(images: Images) -> list[str]:
    return [entry.key for entry in images]


def test_what_begins_as_an_image_is_one_and_the_rest_is_counted_by_its_suffix(place: str) -> None:
    storage = open_storage(place)
    images = storage.images()
    found = list(images)
    assert [entry.key for entry in found] == TAKEN
    assert images.ignored == IGNORED
    assert found == [storage.entry(key) for key in TAKEN]


def test_what_is_not_wanted_is_not_looked_at(place: str) -> None:
    images = open_storage(place).images(Rules(Selection(exclude=("IMG_1", "README"))))
    assert listed(images) == TAKEN[1:]
    assert images.ignored == IGNORED | {"no suffix": 1, "excluded": 2}
    assert listed(open_storage(place).images(Rules(patterns=("/IMG_?",)))) == ["IMG_1"]
    assert listed(open_storage(place).images(Rules(Selection(since_s=4e9)))) == []


def test_every_kind_that_is_known_by_its_name_is_known() -> None:
    named = places.KNOWN_SUFFIXES | list_files.LIST_SUFFIXES
    assert not [suffix for suffix in named if is_unknown(f"a{suffix}")]
    assert OTHER_SUFFIXES.isdisjoint(listing.IMAGE_SUFFIXES | listing.VIDEO_SUFFIXES)


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(os.mkfifo, id="a pipe without a writer"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), id="a device"),
        pytest.param(lambda path: path.symlink_to("nowhere"), id="a link to nothing"),
        pytest.param(lambda path: path.symlink_to("odd"), id="a circle"),
        pytest.param(lambda path: path.symlink_to("../elsewhere"), id="a link out of the source"),
    ],
)
def test_what_is_no_file_of_the_source_is_no_image_and_never_waited_for(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    (tmp_path / "elsewhere").write_bytes(PNG)
    (tmp_path / "photos").mkdir()
    make(tmp_path / "photos" / "odd")
    images = Listing(tmp_path / "photos")
    assert listed(images) == []
    assert images.ignored == {"no suffix": 1}


def test_a_link_to_a_file_of_the_source_is_an_image_as_that_is(tmp_path: Path) -> None:
    touch(tmp_path, "a/blob").joinpath("a/blob").write_bytes(PNG)
    (tmp_path / "link").symlink_to("a/blob")
    assert listed(Listing(tmp_path)) == ["a/blob", "link"]


def test_what_may_not_be_read_is_counted(public_folder: Path) -> None:
    touch(public_folder, "IMG_1").joinpath("IMG_1").write_bytes(PNG)
    (public_folder / "IMG_1").chmod(0)
    with as_nobody():
        images = Listing(public_folder)
        assert listed(images) == []
    assert images.ignored == {"no suffix": 1}


def test_a_file_that_its_name_tells_of_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def noted(path: str) -> object:
        opened.append(path)
        raise OSError

    monkeypatch.setattr(listing, "open_file", noted)
    fill(tmp_path)
    assert listed(Listing(tmp_path)) == ["IMG_1.jpg"]
    unknown = ["IMG_1", "IMG_1.jpg_large", "README", "cache/0a1b2c", "empty", "z.xyz"]
    assert opened == [f"{tmp_path}/{name}" for name in unknown]


# -- buckets -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def unknown(s3: S3Server, proxy: FaultProxy) -> str:
    """A bucket of ten objects whose names say nothing, between others; requests go through the proxy."""
    bucket = s3.new_bucket()
    for number in range(10):
        s3.client().put_object(Bucket=bucket, Key=f"{number:02d}", Body=PNG if number % 2 else b"text")
        s3.client().put_object(Bucket=bucket, Key=f"{number:02d}.txt", Body=b"")
    proxy.requests.clear()
    return f"s3://{bucket}"


ODD = [f"{number:02d}" for number in range(1, 10, 2)]


def test_each_object_of_an_unknown_name_costs_one_request(unknown: str, proxy: FaultProxy) -> None:
    assert listed(open_storage(unknown).images()) == ODD
    assert sum(b"list-type=2" in line for line in proxy.requests) == 1
    assert len(proxy.requests) == 11


@pytest.mark.slow
def test_a_store_that_fails_is_asked_again(unknown: str, proxy: FaultProxy) -> None:
    proxy.say(answer(503, "SlowDown"), only="/05", times=2)
    assert listed(open_storage(unknown).images()) == ODD


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState"])
def test_an_object_that_may_not_be_read_is_counted(unknown: str, proxy: FaultProxy, code: str) -> None:
    proxy.say(answer(403, code), only="/05")
    images = open_storage(unknown).images()
    assert listed(images) == [key for key in ODD if key != "05"]
    assert images.ignored == {".txt": 10, "no suffix": 6}


def test_credentials_that_run_out_are_said(unknown: str, proxy: FaultProxy) -> None:
    proxy.say(answer(400, "ExpiredToken"), only="/05")
    with pytest.raises(StorageError, match="run out"):
        listed(open_storage(unknown).images())
