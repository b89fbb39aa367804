"""Every image below a folder, once, in one order; and what is no image is counted."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import touch
from users import as_nobody

from trtjob.atomic import unfinished_name
from trtjob.storage import LocalStorage, listing
from trtjob.storage.listing import Entry, Listing
from trtjob.storage.selection import Rules, Selection

ODD_NAME = os.fsdecode(b"caf\xe9.jpg")  # Latin-1, as old cameras and zip files leave it


def keys(folder: Path) -> list[str]:
    return [entry.key for entry in Listing(folder)]


def test_images_are_known_by_their_suffix_whatever_its_case(tmp_path: Path) -> None:
    names = ["a.jpg", "b.JPG", "c.Jpeg", "d.jpe", "e.png", "f.webp", "g.bmp", "h.tif", "i.tiff"]
    touch(tmp_path, *names)
    assert keys(tmp_path) == names


def test_what_is_no_image_is_counted_by_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.txt", "sub/c.TXT", "sub/README", "jpg")
    listed = Listing(tmp_path)
    assert [entry.key for entry in listed] == ["a.jpg"]
    assert listed.ignored == {".txt": 2, "no suffix": 2}


def test_a_folder_of_more_names_than_are_sorted_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "RUN", 10)
    names = [f"{number * 37 % 101:03d}.jpg" for number in range(101)] + ["new\nline.jpg", ODD_NAME, "ü.jpg"]
    touch(tmp_path, *names, "05/a.jpg", "050/b.jpg", "notes.txt")
    listed = Listing(tmp_path)
    assert [entry.key for entry in listed] == sorted([*names, "05/a.jpg", "050/b.jpg"])
    assert listed.ignored == {".txt": 1}


@pytest.mark.parametrize("count", [9, 10, 11, 20])
def test_a_folder_of_about_as_many_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(listing, "RUN", 10)
    names = [f"{number}.jpg" for number in range(count)]
    touch(tmp_path, *names)
    assert keys(tmp_path) == sorted(names)


def test_the_order_is_that_of_the_whole_keys(tmp_path: Path) -> None:
    """`-` and `.` sort before `/`, so a folder comes after files that begin with its name."""
    expected = ["a-b.jpg", "a.jpg", "a/b.jpg", "a/b/c.jpg", "a0.jpg", "aé.jpg", "a𝄞.jpg"]
    touch(tmp_path, *reversed(expected))
    assert keys(tmp_path) == expected == sorted(expected)


_parts = st.lists(
    st.text("ab-.0é", min_size=1, max_size=3).filter(lambda name: name.strip(".")), min_size=1, max_size=3
)


@pytest.mark.slow
@settings(max_examples=50)
@given(paths=st.sets(_parts.map(lambda parts: "/".join(f"{part}x" for part in parts) + ".jpg"), max_size=12))
def test_any_tree_is_listed_whole_and_in_the_order_of_its_keys(
    paths: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    try:
        touch(folder, *paths)
        assert [entry.key for entry in Listing(folder, Rules(Selection(hidden=True)))] == sorted(paths)
    finally:
        shutil.rmtree(folder)


def test_a_name_that_is_no_utf8_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, ODD_NAME, "z.jpg")
    found = list(Listing(tmp_path))
    assert [os.fsencode(entry.key) for entry in found] == [b"caf\xe9.jpg", b"z.jpg"]
    assert all(entry.size_bytes for entry in found)


def test_links_to_images_and_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.jpg", "photos/b.jpg")
    (tmp_path / "photos" / "link.jpg").symlink_to("../elsewhere/a.jpg")
    (tmp_path / "photos" / "more").symlink_to("../elsewhere")
    assert keys(tmp_path / "photos") == ["b.jpg", "link.jpg", "more/a.jpg"]


def test_a_link_to_a_folder_above_ends_there(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/b/2.jpg")
    (tmp_path / "a" / "b" / "up").symlink_to("..")
    (tmp_path / "a" / "b" / "self").symlink_to(".")
    (tmp_path / "top").symlink_to(tmp_path)
    assert keys(tmp_path) == ["a/1.jpg", "a/b/2.jpg"]


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "to-b").symlink_to("../b")
    (tmp_path / "b" / "to-a").symlink_to("../a")
    assert keys(tmp_path) == ["a/1.jpg", "a/to-b/2.jpg", "b/2.jpg", "b/to-a/1.jpg"]


def test_a_link_that_leads_nowhere_stays_to_be_reported(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    assert list(Listing(tmp_path)) == [Entry("circle.jpg", 0, ""), Entry("gone.jpg", 0, "")]


def test_a_folder_that_is_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "album.jpg/1.jpg", "album.jpg/notes.txt")
    (tmp_path / "empty.jpg").mkdir()
    listed = Listing(tmp_path)
    assert [entry.key for entry in listed] == ["album.jpg/1.jpg"]
    assert listed.ignored == {".txt": 1}


def test_a_folder_that_may_not_be_listed_is_reported(public_folder: Path) -> None:
    touch(public_folder, "a.jpg", "closed/b.jpg", "z.jpg")
    (public_folder / "closed").chmod(0)
    with as_nobody():
        assert keys(public_folder) == ["a.jpg", "closed/", "z.jpg"]


def test_images_are_found_however_deep_they_lie(tmp_path: Path) -> None:
    half = "/".join("d" for _ in range(300))
    deep = touch(tmp_path, f"{half}/b.jpg", f"{half}/{half}/a.jpg", "z.jpg") / half / half
    (deep / "up").symlink_to("../..")
    assert keys(tmp_path) == [f"{half}/b.jpg", f"{half}/{half}/a.jpg", "z.jpg"]
    (deep / unfinished_name()).touch()
    LocalStorage(tmp_path).remove_unfinished()
    assert [path.name for path in deep.iterdir() if path.is_file()] == ["a.jpg"]


def test_what_is_not_taken_is_counted_however_deep_it_lies(tmp_path: Path) -> None:
    deep = ".trash/" + "/".join("d" for _ in range(400))
    touch(tmp_path, "a.jpg", ".trash/1.jpg", f"{deep}/2.jpg", f"{deep}/3.jpg")
    (tmp_path / ".trash" / "up").symlink_to("..")
    listed = Listing(tmp_path)
    assert [entry.key for entry in listed] == ["a.jpg"]
    assert listed.ignored == {"trash": 4}


def test_what_is_not_taken_may_be_closed(public_folder: Path) -> None:
    touch(public_folder, "a.jpg", ".Trash-0/b.jpg").joinpath(".Trash-0").chmod(0)
    with as_nobody():
        listed = Listing(public_folder)
        assert [entry.key for entry in listed] == ["a.jpg"]
    assert not listed.ignored.keys()


def test_a_folder_that_goes_away_while_it_is_listed_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b/1.jpg", "c.jpg")
    entries = iter(Listing(tmp_path))
    assert next(entries).key == "a.jpg"
    shutil.rmtree(tmp_path / "b")
    assert list(entries) == [Entry("b/", 0, ""), Entry("c.jpg", 5, LocalStorage(tmp_path).entry("c.jpg").etag)]


def test_a_source_that_is_not_there_is_reported(tmp_path: Path) -> None:
    assert list(Listing(tmp_path / "gone")) == [Entry(".", 0, "")]


def test_an_entry_changes_when_its_file_does(tmp_path: Path) -> None:
    path = touch(tmp_path, "a.jpg") / "a.jpg"
    (before,) = Listing(tmp_path)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    (touched,) = Listing(tmp_path)
    assert (before.size_bytes, touched.size_bytes) == (5, 5)
    assert before.etag != touched.etag


def test_a_named_file_that_is_not_there_stays_to_be_reported(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    here, gone = map(LocalStorage(tmp_path).entry, ["a.jpg", "gone.jpg"])
    assert here == next(iter(Listing(tmp_path)))
    assert gone == Entry("gone.jpg", 0, "")
