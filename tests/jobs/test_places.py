"""Where a job reads and writes: what a user may name, and what is refused."""

from pathlib import Path

import pytest
from samples import touch
from users import as_nobody

from trtjob.errors import ConfigError
from trtjob.jobs.models import Source
from trtjob.jobs.places import check_output, s3_uri, source_from

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


def test_a_list_is_rooted_where_its_files_part(tmp_path: Path) -> None:
    lines = [f"{tmp_path}/a/b/1.jpg", f"{tmp_path}/a/c/d/2.jpg", f"{tmp_path}/a/c/3.jpg"]
    source, keys = source_from(lines)
    assert (source.root, keys) == (str(tmp_path / "a"), ["b/1.jpg", "c/3.jpg", "c/d/2.jpg"])


def test_a_list_of_files_of_one_folder_and_of_one_below_is_rooted_at_the_upper(tmp_path: Path) -> None:
    source, keys = source_from([f"{tmp_path}/a/1.jpg", f"{tmp_path}/a/b/2.jpg"])
    assert (source.root, keys) == (str(tmp_path / "a"), ["1.jpg", "b/2.jpg"])


def test_folders_whose_names_begin_alike_are_not_one(tmp_path: Path) -> None:
    source, keys = source_from([f"{tmp_path}/photo/1.jpg", f"{tmp_path}/photos/1.jpg"])
    assert (source.root, keys) == (str(tmp_path), ["photo/1.jpg", "photos/1.jpg"])


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
    source, keys = source_from([f"{tmp_path}/a/1.jpg", f"{tmp_path}/a/2.jpg", again.format(root=tmp_path)])
    assert (source.root, keys) == (str(tmp_path / "a"), ["1.jpg", "2.jpg"])


def test_a_line_may_begin_or_end_with_a_space_as_file_names_do(tmp_path: Path) -> None:
    _, keys = source_from([f"{tmp_path}/a .jpg ", f"{tmp_path}/b.jpg"])
    assert keys == ["a .jpg ", "b.jpg"]


def test_a_tilde_stands_for_home_only_before_a_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, keys = source_from(["~scan.jpg", "./~/a.jpg", "~/b.jpg"])
    assert keys == ["user/b.jpg", "~/a.jpg", "~scan.jpg"]


def test_a_link_in_a_list_keeps_the_name_under_which_the_user_knows_it(tmp_path: Path) -> None:
    touch(tmp_path, "real.jpg")
    (tmp_path / "known.jpg").symlink_to("real.jpg")
    assert source_from(tmp_path / "known.jpg")[1] == ["known.jpg"]


def test_the_order_of_the_lines_does_not_matter(tmp_path: Path) -> None:
    lines = [f"{tmp_path}/{name}" for name in ("a-b.jpg", "a/b.jpg", "é.jpg", "𝄞.jpg", "\uffee.jpg")]
    assert source_from(lines) == source_from(reversed(lines))


def test_a_list_of_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="one path on each line"):
        source_from(["", "  \n"])


def test_a_list_that_is_parted_by_zero_bytes_says_so() -> None:
    with pytest.raises(ConfigError, match=r"zero byte.*one path on each line"):
        source_from(["/photos/a.jpg\0/photos/b.jpg\0"])


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such folder or file: '.*/nowhere'"):
        source_from(tmp_path / "nowhere")


def test_a_folder_without_images_says_which_files_are_images(tmp_path: Path) -> None:
    touch(tmp_path / "docs", "read.me")
    with pytest.raises(ConfigError, match=r"no image in .*jpeg"):
        source_from(tmp_path / "docs")


def test_a_folder_that_may_not_be_listed_is_named(public_folder: Path) -> None:
    touch(public_folder / "closed", "a.jpg").chmod(0)
    with as_nobody(), pytest.raises(ConfigError, match=r"cannot list the folder .*Permission denied"):
        source_from(public_folder / "closed")


def test_a_source_whose_path_is_no_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Below it any name goes; the folder itself is written into documents that are UTF-8."""
    folder = touch(tmp_path / "caf\udce9", "a.jpg", "b.jpg")
    for paths in (folder, [str(folder / "a.jpg"), str(folder / "b.jpg")]):
        with pytest.raises(ConfigError, match=r"UTF-8.*Rename"):
            source_from(paths)


# -- the output --------------------------------------------------------------------------------------------------------


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
    assert s3_uri(uri, "SOURCE") == clean


@pytest.mark.parametrize("uri", ["s3://", "s3:///a", "s3://b/../c", "s3://b/./c", "s3://b//c", "s3://b/a\0"])
def test_what_is_no_address_is_refused_with_an_example(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"Example: s3://bucket/photos"):
        s3_uri(uri, "SOURCE")


def test_a_list_of_objects_is_rooted_where_they_part() -> None:
    source, keys = source_from(["s3://bucket/a/1.jpg", "s3://bucket/b/2.jpg", "s3://bucket/a/1.jpg"])
    assert (source.kind, source.root, keys) == ("list", "s3://bucket", ["a/1.jpg", "b/2.jpg"])


def test_a_list_stays_in_one_bucket() -> None:
    with pytest.raises(ConfigError, match="several buckets: one, two"):
        source_from(["s3://one/1.jpg", "s3://two/2.jpg"])


def test_a_list_is_of_objects_or_of_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both s3:// addresses and files"):
        source_from(["s3://one/1.jpg", str(tmp_path / "2.jpg")])


@pytest.mark.parametrize("output", ["s3://b/photos", "s3://b/photos/", "s3://b/photos/out"])
def test_an_output_in_the_source_is_refused_in_a_bucket_too(output: str) -> None:
    with pytest.raises(ConfigError, match="outputs would become inputs"):
        check_output(output, Source(kind="folder", root="s3://b/photos"))


def test_an_output_beside_the_source_is_fine_in_a_bucket() -> None:
    assert check_output("s3://b/photos-out/", Source(kind="folder", root="s3://b/photos")) == "s3://b/photos-out"
