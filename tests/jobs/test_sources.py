"""Where a job reads and writes: what a user may name, and what is refused."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import touch
from users import as_nobody

from trtjob.errors import ConfigError, ImageError
from trtjob.jobs.image_list import ImageList
from trtjob.jobs.source_images import chosen_images, open_source
from trtjob.jobs.sources import check_output, names_of, source_from
from trtjob.jobs.spec import Source
from trtjob.storage.selection import Selection
from trtjob.storage.uri import bucket_uri

# -- the source --------------------------------------------------------------------------------------------------------


def test_a_folder_is_listed_by_the_workers(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg")
    assert source_from(tmp_path / "photos") == (Source(kind="folder", root=str(tmp_path / "photos")), [])


def test_a_folder_is_known_by_the_place_that_its_links_lead_to(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg")
    (tmp_path / "link").symlink_to("photos")
    assert source_from(tmp_path / "link") == source_from(tmp_path / "photos")


def test_one_file_is_a_list_of_one(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg")
    source, keys = source_from(tmp_path / "photos" / "a.jpg")
    assert (source.kind, source.root, keys) == ("list", str(tmp_path / "photos"), ["a.jpg"])


def source_of(lines: Iterable[str], folder: Path, root: str = "") -> tuple[Source, list[str]]:
    return source_from(ImageList(tuple(lines), folder), root=root)


def test_what_an_image_is_called_does_not_depend_on_what_else_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/1.jpg", "a/c/2.jpg")
    first, second = f"{tmp_path}/a/b/1.jpg", "a/c/2.jpg"
    for lines, names in (
        ([first], ["a/b/1.jpg"]),
        ([second], ["a/c/2.jpg"]),
        ([first, second], ["a/b/1.jpg", "a/c/2.jpg"]),
    ):
        assert source_of(lines, tmp_path) == (Source(kind="list", root=str(tmp_path)), names)


def test_a_root_says_from_where_images_get_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "photos/a/1.jpg", "lists/x.txt")
    monkeypatch.chdir(tmp_path)
    for root in (f"{tmp_path}/photos", "photos", "./photos/"):
        for line in (f"{tmp_path}/photos/a/1.jpg", "a/1.jpg", "photos/a/1.jpg"):
            source, keys = source_of([line], tmp_path / "lists", root)
            assert (source.root, keys) == (str(tmp_path / "photos"), ["a/1.jpg"])


def test_an_image_outside_the_root_is_refused_with_the_root_that_fits(tmp_path: Path) -> None:
    touch(tmp_path, "my photos/a/1.jpg", "lists/x.txt")
    lines = [f"{tmp_path}/my photos/a/1.jpg", f"{tmp_path}/my photos/b/2.jpg"]
    with pytest.raises(ConfigError, match=rf"1.jpg' is not below '{tmp_path}/lists'.*--root '{tmp_path}/my photos'$"):
        source_of(lines, tmp_path / "lists")


@pytest.mark.parametrize("line", [".", "..", "a/..", "a/../.."])
def test_the_folder_itself_or_one_above_it_is_no_image_of_a_list(tmp_path: Path, line: str) -> None:
    touch(tmp_path, "photos/a/1.jpg")
    with pytest.raises(ConfigError, match=rf"is not below '{tmp_path}/photos'"):
        source_of(["a/1.jpg", line], tmp_path / "photos")


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--root 'nowhere': there is no such folder"):
        source_of(["a.jpg"], tmp_path, "nowhere")
    touch(tmp_path, "a.jpg")
    with pytest.raises(ConfigError, match="--root is for lists of images"):
        source_from(tmp_path, root=str(tmp_path))


def test_a_line_is_looked_for_beside_the_list_and_then_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Darknet's data/train.txt has `data/obj/1.jpg`, as seen from above."""
    touch(tmp_path, "data/obj/1.jpg", "data/2.jpg")
    monkeypatch.chdir(tmp_path)
    assert source_of(["data/obj/1.jpg", "2.jpg", "3.jpg"], tmp_path / "data")[1] == ["2.jpg", "3.jpg", "obj/1.jpg"]


def test_a_list_and_its_images_may_be_known_by_different_links(tmp_path: Path) -> None:
    touch(tmp_path, "real/a/1.jpg")
    (tmp_path / "link").symlink_to("real")
    assert source_of([f"{tmp_path}/real/a/1.jpg"], tmp_path / "link")[1] == ["a/1.jpg"]


def test_a_list_that_windows_has_written_names_its_files(tmp_path: Path) -> None:
    touch(tmp_path, "cam1/x/1.jpg", "odd\\name.jpg")
    lines = [r"cam1\x\1.jpg", r"odd\name.jpg", r"cam1\gone.jpg"]
    assert source_of(lines, tmp_path)[1] == ["cam1/x/1.jpg", r"cam1\gone.jpg", r"odd\name.jpg"]


def test_a_list_of_which_nothing_is_wanted_is_refused(tmp_path: Path) -> None:
    listed = ImageList(("a.jpg", "b/c.jpg"), touch(tmp_path, "a.jpg", "b/c.jpg"))
    with pytest.raises(ConfigError, match=r"none of the 2 images that are named matches --include and --exclude"):
        source_from(listed, selection=Selection(include=("*.png",)))
    assert source_from(listed, selection=Selection(exclude=("b",)))[1] == ["a.jpg", "b/c.jpg"]


def test_folders_whose_names_begin_alike_are_not_one(tmp_path: Path) -> None:
    lines = [f"{tmp_path}/photo/1.jpg", f"{tmp_path}/photos/1.jpg"]
    assert source_of(lines, tmp_path)[1] == ["photo/1.jpg", "photos/1.jpg"]
    with pytest.raises(ConfigError, match="is not below"):
        source_of(lines, touch(tmp_path, "photo/1.jpg") / "photo")


@pytest.mark.parametrize(
    "again",
    [
        pytest.param("{root}/a/1.jpg", id="twice"),
        pytest.param("a/1.jpg", id="relative"),
        pytest.param("./a//1.jpg", id="dots"),
        pytest.param("b/../a/1.jpg", id="up and down"),
        pytest.param("~/../a/1.jpg", id="from home"),
    ],
)
def test_one_file_named_in_two_ways_is_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg")
    monkeypatch.chdir(tmp_path)  # and conftest puts `~` into tmp_path/user
    lines = [f"{tmp_path}/a/1.jpg", f"{tmp_path}/a/2.jpg", again.format(root=tmp_path)]
    assert source_of(lines, tmp_path)[1] == ["a/1.jpg", "a/2.jpg"]


def test_a_tilde_stands_for_home_only_before_a_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, keys = source_of(["~scan.jpg", "./~/a.jpg", "~/b.jpg"], tmp_path)
    assert keys == ["user/b.jpg", "~/a.jpg", "~scan.jpg"]


def test_a_link_in_a_list_keeps_the_name_under_which_the_user_knows_it(tmp_path: Path) -> None:
    touch(tmp_path, "real.jpg")
    (tmp_path / "known.jpg").symlink_to("real.jpg")
    assert source_from(tmp_path / "known.jpg")[1] == ["known.jpg"]


def test_the_order_of_the_lines_does_not_matter(tmp_path: Path) -> None:
    lines = [f"{tmp_path}/{name}" for name in ("a-b.jpg", "a/b.jpg", "é.jpg", "𝄞.jpg", "\uffee.jpg")]
    assert source_of(lines, tmp_path) == source_of(reversed(lines), tmp_path)


def test_a_list_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one path on each line"):
        source_of([], tmp_path)


def test_a_list_that_is_parted_by_zero_bytes_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"zero byte.*one path on each line"):
        source_of(["/photos/a.jpg\0/photos/b.jpg\0"], tmp_path)


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such folder or file: '.*/nowhere'"):
        source_from(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "x/" * 3000 + "a.jpg", "x" * 300 + ".txt", "a\0.jpg"])
def test_a_source_whose_name_no_file_can_have_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no such folder or file"):
        source_from(tmp_path / name)


def test_a_pattern_may_be_longer_than_a_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    source, keys = source_from(tmp_path / f"[{'a' * 300}].jpg")
    assert images_of(source, keys) == ["a.jpg"]


def test_a_list_may_name_what_no_file_can_be_called(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    assert source_of(["a.jpg", "x" * 300], tmp_path)[1] == ["a.jpg", "x" * 300]


def test_a_source_that_may_not_be_looked_at_is_named(public_folder: Path) -> None:
    touch(public_folder / "closed", "a.jpg").chmod(0)
    with as_nobody(), pytest.raises(ConfigError, match=r"cannot read '.*/closed/a\.jpg': Permission denied"):
        source_from(public_folder / "closed" / "a.jpg")
    with as_nobody():
        assert source_of(["closed/a.jpg"], public_folder)[1] == ["closed/a.jpg"]


def test_a_folder_without_images_says_which_files_are_images(tmp_path: Path) -> None:
    touch(tmp_path / "docs", "read.me")
    with pytest.raises(ConfigError, match=r"no image in .*jpeg"):
        source_from(tmp_path / "docs")


def test_a_folder_without_images_says_what_it_saw(tmp_path: Path) -> None:
    photos = touch(tmp_path / "photos", "a.nef", "b/c.NEF", "clip.mp4", ".d.jpg", "._a.nef")
    with pytest.raises(
        ConfigError, match=r"below it, but 2 \.nef, 1 .*1 \.mp4.*\. --hidden takes hidden ones\. .*'trtjob\[video\]'\."
    ):
        source_from(photos)
    with pytest.raises(ConfigError, match=r"below it, but 1 excluded, 1 \.txt\. Files"):
        source_from(touch(tmp_path / "x", "a.jpg", "b.txt"), selection=Selection(exclude=("a.*",)))


def test_a_selection_belongs_to_the_source(tmp_path: Path) -> None:
    some = Selection(hidden=True, limit=3)
    assert source_from(touch(tmp_path / "photos", ".a.jpg"), selection=some)[0].selection == some
    assert source_from(tmp_path / "photos" / ".a.jpg", selection=some)[0].selection == some


def test_a_folder_that_may_not_be_listed_is_named(public_folder: Path) -> None:
    touch(public_folder / "closed", "a.jpg").chmod(0)
    with as_nobody(), pytest.raises(ConfigError, match=r"cannot list the folder .*Permission denied"):
        source_from(public_folder / "closed")


def test_a_source_whose_path_is_no_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Below it any name goes; the folder itself is written into documents that are UTF-8."""
    folder = touch(tmp_path / "caf\udce9", "a.jpg", "b.jpg")
    for named in (folder, folder / "a.jpg", ImageList(("a.jpg", "b.jpg"), folder)):
        with pytest.raises(ConfigError, match=r"UTF-8.*Rename"):
            source_from(named)


# -- patterns ----------------------------------------------------------------------------------------------------------


def test_a_pattern_is_the_folder_above_it_of_which_only_what_matches_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "cam1/a.jpg", "cam2/x/b.jpg", "cam2/c.png", "dog/d.jpg")
    monkeypatch.chdir(tmp_path)
    expected = Source(kind="folder", root=str(tmp_path), patterns=("/cam*/**/*.jpg",))
    for named in ("cam*/**/*.jpg", "./cam*/**/*.jpg", f"{tmp_path}/cam*/**/*.jpg"):
        assert source_from(named) == (expected, [])
    assert images_of(expected) == ["cam1/a.jpg", "cam2/x/b.jpg"]
    assert images_of(source_from("cam[2-9]")[0]) == ["cam2/c.png", "cam2/x/b.jpg"]
    assert images_of(source_from("cam2/*")[0]) == ["c.png", "x/b.jpg"]
    assert images_of(source_from("~/../dog/?.jpg")[0]) == ["d.jpg"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].jpg", "a1.jpg", "[x]/b.jpg")
    assert source_from(tmp_path / "a[1].jpg")[1] == ["a[1].jpg"]
    assert source_from(tmp_path / "[x]")[0].root == str(tmp_path / "[x]")


def test_a_pattern_that_matches_no_image_says_what_it_saw(tmp_path: Path) -> None:
    touch(tmp_path, "cam1/a.jpg", "cam1/b.nef")
    with pytest.raises(ConfigError, match=r"no image matches '.*/\*/\*\.nef', but 1 (\.nef|excluded), 1 "):
        source_from(tmp_path / "*" / "*.nef")
    with pytest.raises(ConfigError, match=r"the pattern '/\*/../a' has an empty part"):
        source_from(f"{tmp_path}/*/../a")


def test_the_output_of_a_pattern_lies_where_it_matches_nothing(tmp_path: Path) -> None:
    source = Source(kind="folder", root=str(tmp_path), patterns=("/cam*/*.jpg", "/dog/**"))
    assert check_output(str(tmp_path / "out"), source) == str(tmp_path / "out")
    for output in (tmp_path, tmp_path / "cam1", tmp_path / "dog" / "out"):
        with pytest.raises(ConfigError, match="outputs would become inputs"):
            check_output(str(output), source)


def images_of(source: Source, keys: Iterable[str] = ()) -> list[str]:
    return [entry.key for entry in chosen_images(source, keys, open_source(source))]


# -- several sources ---------------------------------------------------------------------------------------------------


def test_images_of_several_places_are_called_by_their_place_and_their_path_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "here/a.jpg", "here/cam1/b.jpg", "here/other.jpg", "photos/x/c.jpg", "photos/d.jpg", "lists/e.jpg")
    monkeypatch.chdir(tmp_path / "here")
    listed = ImageList(("e.jpg", "gone.jpg"), tmp_path / "lists")
    source, keys = source_from("a.jpg", tmp_path / "photos", "cam*/*.jpg", listed)
    assert keys == ["here/a.jpg", "lists/e.jpg", "lists/gone.jpg"]
    assert (source.kind, source.root, source.shown) == (
        "both",
        "",
        f"{tmp_path}/here, {tmp_path}/lists, {tmp_path}/photos",
    )
    found = ["here/a.jpg", "here/cam1/b.jpg", "lists/e.jpg", "lists/gone.jpg", "photos/d.jpg", "photos/x/c.jpg"]
    assert images_of(source, keys) == found
    assert source_from(listed, "cam*/*.jpg", tmp_path / "photos", "a.jpg") == (source, keys)
    storage = open_source(source)
    for key in found:
        entry = storage.entry(key)
        if entry.etag:
            assert Path(storage.place(key)).read_bytes() == storage.fetch(entry)
    with pytest.raises(ImageError, match="not there"):
        storage.fetch(storage.entry("lists/gone.jpg"))
    assert storage.place("photos/x/c.jpg") == f"{tmp_path}/photos/x/c.jpg"


def test_what_lies_in_one_place_stays_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "cam1/c.jpg")
    monkeypatch.chdir(tmp_path)
    assert source_from("a.jpg", "b.jpg", "a.jpg") == (Source(kind="list", root=str(tmp_path)), ["a.jpg", "b.jpg"])
    assert source_from(tmp_path, tmp_path, "cam*/c.jpg") == (Source(kind="folder", root=str(tmp_path)), [])
    source, keys = source_from("a.jpg", "cam*", "*b.jpg", "cam*")
    assert (source.kind, source.patterns, keys) == ("both", ("/*b.jpg", "/cam*"), ["a.jpg"])
    assert source.root == str(tmp_path)


def test_an_image_that_is_named_and_found_is_one(tmp_path: Path) -> None:
    source, keys = source_from(touch(tmp_path / "photos", "a.jpg", "b.jpg"), tmp_path / "photos" / "a.jpg")
    assert images_of(source, keys) == ["a.jpg", "b.jpg"]


def test_places_of_one_name_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    touch(tmp_path, "site1/DCIM/a.jpg", "site2/DCIM/a.jpg")
    source, keys = source_from(tmp_path / "site1" / "DCIM", tmp_path / "site2" / "DCIM")
    assert images_of(source, keys) == ["site1/DCIM/a.jpg", "site2/DCIM/a.jpg"]


@pytest.mark.slow
@settings(max_examples=300)
@given(roots=st.sets(st.lists(st.sampled_from("abc"), max_size=4).map(lambda parts: "/" + "/".join(parts)), min_size=2))
def test_no_place_has_the_name_of_another_or_of_a_folder_in_it(roots: set[str]) -> None:
    names = names_of(sorted(roots))
    assert not [(a, b) for a in names for b in names if a is not b and f"{b}/".startswith(f"{a}/")]


@pytest.mark.parametrize(
    ("roots", "names"),
    [
        pytest.param(["/", "/a"], ["root", "a"], id="the root"),
        pytest.param(["/p", "s3://p"], ["p", "p-2"], id="one name everywhere"),
        pytest.param(["/p", "/p-2", "s3://p"], ["p", "p-2", "p-3"], id="a number that is taken"),
        pytest.param(["/x", "/y/x/a", "/z/a"], ["x", "y/x/a", "z/a"], id="a name in another"),
        pytest.param(["/a/x", "/b/x", "/c/y"], ["a/x", "b/x", "y"], id="one that is told by its own"),
    ],
)
def test_names_of_places(roots: list[str], names: list[str]) -> None:
    assert names_of(roots) == names


def test_a_selection_is_for_the_path_below_each_place(tmp_path: Path) -> None:
    touch(tmp_path, "x/raw/a.jpg", "x/b.jpg", "y/raw/c.jpg", "raw/d.jpg", "raw/raw/e.jpg")
    chosen = Selection(exclude=("raw",))
    source, keys = source_from(*(tmp_path / name for name in ("x", "raw")), tmp_path / "y/raw/c.jpg", selection=chosen)
    images = chosen_images(source, keys, open_source(source))
    # The last one lies in `y/raw`, and is only `c.jpg` there.
    above = f"{tmp_path.name}/raw"
    assert [entry.key for entry in images] == sorted(["x/b.jpg", f"{above}/d.jpg", "y/raw/c.jpg"])
    assert images.ignored == {"excluded": 2}


def test_a_limit_is_for_all_places_together(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "x/b.jpg", "y/c.jpg", "y/d.jpg")
    assert images_of(source_from(tmp_path / "x", tmp_path / "y", selection=Selection(limit=3))[0])[2:] == ["y/c.jpg"]


def test_what_is_wrong_with_one_of_several_sources_is_said_before_the_job_begins(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "y/b.txt")
    with pytest.raises(ConfigError, match=r"no such folder or file: .*nowhere"):
        source_from(tmp_path / "x", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no image in '.*/y'"):
        source_from(tmp_path / "x", tmp_path / "y")
    source, _ = source_from(tmp_path / "x", touch(tmp_path / "z", "c.jpg"))
    with pytest.raises(ConfigError, match=rf"lies in the source '{tmp_path}/z'"):
        check_output(str(tmp_path / "z" / "out"), source)


def test_places_in_their_thousands_are_for_a_list(tmp_path: Path) -> None:
    images = [touch(tmp_path, f"{number}/a.jpg") / f"{number}/a.jpg" for number in range(1001)]
    with pytest.raises(ConfigError, match=r"1,001 places, more than 1,000\. Name a folder above them, a pattern"):
        source_from(*images)


# -- the output --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["gs://bucket/out", "AZ://container/out", "https://host/out", "file:///out"])
def test_an_output_is_a_folder_or_in_a_bucket_of_s3(output: str) -> None:
    with pytest.raises(ConfigError, match=r"outputs are written into folders and s3:// prefixes"):
        check_output(output, Source(kind="folder", root="/photos"))


def test_an_output_in_the_source_is_refused(tmp_path: Path) -> None:
    source = Source(kind="folder", root=str(tmp_path / "photos"))
    for inside in ("photos", "photos/out", "photos/a/../out"):
        with pytest.raises(ConfigError, match="outputs would become inputs"):
            check_output(str(tmp_path / inside), source)


def test_an_output_that_a_link_leads_into_the_source_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg")
    (tmp_path / "out").symlink_to("photos")
    with pytest.raises(ConfigError, match="outputs would become inputs"):
        check_output(str(tmp_path / "out" / "new"), Source(kind="folder", root=str(tmp_path / "photos")))


def test_an_output_without_a_name_is_not_the_current_folder() -> None:
    with pytest.raises(ConfigError, match=r"--output is empty.*Name a folder"):
        check_output("", Source(kind="folder", root="/photos"))


def test_an_output_beside_the_source_is_fine(tmp_path: Path) -> None:
    source = Source(kind="folder", root=str(tmp_path / "photos"))
    assert check_output(str(tmp_path / "photos-out"), source) == str(tmp_path / "photos-out")


def test_a_list_may_have_its_output_beside_its_files(tmp_path: Path) -> None:
    assert check_output(str(tmp_path / "out"), Source(kind="list", root=str(tmp_path))) == str(tmp_path / "out")


def test_a_relative_output_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_output("out", Source(kind="folder", root="/photos")) == str(tmp_path / "out")
    assert check_output("~/out", Source(kind="folder", root="/photos")) == str(tmp_path / "user" / "out")
    assert check_output("~out", Source(kind="folder", root="/photos")) == str(tmp_path / "~out")


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "out")
    with pytest.raises(ConfigError, match="is a file"):
        check_output(str(tmp_path / "out"), Source(kind="folder", root="/photos"))


def test_an_output_and_a_root_that_may_not_be_looked_at_are_named(public_folder: Path) -> None:
    photos = touch(public_folder / "photos", "a.jpg")
    touch(public_folder / "closed", "a.jpg").chmod(0)
    with as_nobody():
        with pytest.raises(ConfigError, match=r"cannot read '.*/closed/out': Permission denied"):
            check_output(f"{public_folder}/closed/out", Source(kind="folder", root=str(photos)))
        with pytest.raises(ConfigError, match=r"cannot read '.*/closed/in': Permission denied"):
            source_of(["a.jpg"], photos, root=f"{public_folder}/closed/in")


def test_an_output_whose_path_is_no_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"UTF-8.*--output"):
        check_output(str(tmp_path / "caf\udce9"), Source(kind="folder", root="/photos"))


# -- buckets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "clean"),
    [
        pytest.param("s3://bucket", "s3://bucket", id="a bucket"),
        pytest.param("s3://bucket/", "s3://bucket", id="with a slash"),
        pytest.param("S3://bucket/a/b//", "s3://bucket/a/b", id="slashes at the end"),
        pytest.param("s3://bucket/a b/ü", "s3://bucket/a b/ü", id="any name"),
    ],
)
def test_an_address_in_a_bucket_has_one_form(uri: str, clean: str) -> None:
    assert bucket_uri(uri, "SOURCE") == clean


@pytest.mark.parametrize("uri", ["s3://", "s3:///a", "s3://b/../c", "s3://b/./c", "s3://b//c", "s3://b/a\0"])
def test_what_is_no_address_is_refused_with_an_example(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"Example: s3://bucket/photos"):
        bucket_uri(uri, "SOURCE")


def test_objects_of_a_list_are_called_as_in_their_bucket_or_below_a_root() -> None:
    uris = ["s3://bucket/a/1.jpg", "s3://bucket/a/b/2.jpg", "s3://bucket/a/1.jpg"]
    assert source_of(uris, Path("/")) == (Source(kind="list", root="s3://bucket"), ["a/1.jpg", "a/b/2.jpg"])
    assert source_of(uris[:1], Path("/"))[1] == ["a/1.jpg"]
    assert source_of(uris, Path("/"), "s3://bucket/a/") == (
        Source(kind="list", root="s3://bucket/a"),
        ["1.jpg", "b/2.jpg"],
    )
    with pytest.raises(ConfigError, match=r"'s3://bucket/a/1.jpg' is not below 's3://bucket/a/b'"):
        source_of(uris, Path("/"), "s3://bucket/a/b")


def test_a_list_of_several_buckets_servers_and_files_is_several_places(tmp_path: Path) -> None:
    lines = ["s3://one/1.jpg", "s3://two/a/2.jpg", "https://host/b/3.jpg", "4.jpg", "s3://one/a/5.jpg"]
    source, keys = source_of(lines, touch(tmp_path / "listed", "4.jpg"))
    assert source.roots == (f"{tmp_path}/listed", "https://host", "s3://one", "s3://two")
    assert keys == ["host/b/3.jpg", "listed/4.jpg", "one/1.jpg", "one/a/5.jpg", "two/a/2.jpg"]
    with pytest.raises(
        ConfigError, match=r"--root is for addresses or for files, and the list has both, such as '4.jpg'"
    ):
        source_of(lines, tmp_path, "s3://one")


# -- web addresses -----------------------------------------------------------------------------------------------------


def test_an_image_at_a_web_address_is_a_source() -> None:
    assert source_from("https://Host:8080/a/b%20c.jpg?x=1#top") == (
        Source(kind="list", root="https://host:8080/a"),
        ["b%20c.jpg?x=1"],
    )
    assert source_from("http://host/a.jpg?x=b/c.jpg") == (Source(kind="list", root="http://host"), ["a.jpg?x=b/c.jpg"])


def test_images_of_a_list_are_called_as_on_their_server_or_below_a_root() -> None:
    lines = ["https://host/a/1.jpg", "https://HOST/a/b/2.jpg"]
    assert source_of(lines, Path("/")) == (Source(kind="list", root="https://host"), ["a/1.jpg", "a/b/2.jpg"])
    assert source_of(lines, Path("/"), "https://host/a/")[1] == ["1.jpg", "b/2.jpg"]
    with pytest.raises(ConfigError, match=r"'https://host/a/1.jpg' is not below 'https://host/a/b'"):
        source_of(lines, Path("/"), "https://host/a/b")


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https://host",
        "https://host/",
        "https://host/a//b.jpg",
        "https://host/../b.jpg",
        "http://u:p@host/a.jpg",
        "https://host:0/a.jpg",
        "https://ho st/a.jpg",
        "https://host/a.jpg?x=//y",
    ],
)
def test_what_is_no_web_address_of_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"Example: https://host/photos/a.jpg"):
        source_from(url)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (
            "oss://bucket/photos",
            r"oss:// is not read: its own S3 interface is, with AWS_ENDPOINT_URL.*Sources are",
        ),
        ("abfss://c@account.dfs/photos", r"abfss:// is not read: write az://CONTAINER/PATH"),
        ("ftp://host/a.jpg", r"ftp:// is not read.*wget"),
        ("rtsp://camera/1", r"rtsp:// is not read.*ffmpeg"),
        ("odd://x", r"'odd://x': odd:// is not read\. Sources are folders"),
        ("clip.MP4", r"'.*clip.MP4' is a video\. .*pip install 'trtjob\[video\]'"),
        ("clip.wmv", r"'.*clip.wmv' is a video of a kind that is not read. Save its frames first: ffmpeg"),
        ("photos.zip", r"'.*photos.zip' is an archive. Unpack it first"),
        ("scan.pdf", r"'.*scan.pdf' is a document. Save its pages as images"),
        ("https://host/clip.mp4?x=1", r"'clip.mp4' is a video"),
        ("https://host/list.csv", r"is a list: fetch it first"),
    ],
)
def test_what_is_not_read_is_said_with_what_to_do(tmp_path: Path, named: str, told: str) -> None:
    touch(tmp_path, "clip.MP4", "clip.wmv", "photos.zip", "scan.pdf")
    with pytest.raises(ConfigError, match=told):
        source_from(named if "://" in named else tmp_path / named)


def test_a_file_address_is_a_path(tmp_path: Path) -> None:
    touch(tmp_path, "my photos/a.jpg")
    assert source_from(f"file://{tmp_path}/my%20photos") == source_from(tmp_path / "my photos")
    assert source_of([f"file://localhost{tmp_path}/my%20photos/a.jpg"], tmp_path)[1] == ["my photos/a.jpg"]


@pytest.mark.parametrize("output", ["s3://b/photos", "s3://b/photos/", "s3://b/photos/out"])
def test_an_output_in_the_source_is_refused_in_a_bucket_too(output: str) -> None:
    with pytest.raises(ConfigError, match="outputs would become inputs"):
        check_output(output, Source(kind="folder", root="s3://b/photos"))


def test_an_output_beside_the_source_is_fine_in_a_bucket() -> None:
    assert check_output("s3://b/photos-out/", Source(kind="folder", root="s3://b/photos")) == "s3://b/photos-out"
