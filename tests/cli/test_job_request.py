"""From what a user typed to a job's specification."""

import io
import json
import logging
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from converters.darknet.networks import write_model
from terminal import Outcome

from trtjob.api.job_locations import expect_decoders, find_locations
from trtjob.api.job_request import JobRequest
from trtjob.api.job_spec import job_from
from trtjob.errors import ConfigError, MissingDependencyError, TrtjobError

Command = Callable[..., Outcome]


@pytest.fixture
def plan(trtjob: Command, scenes: Path, digits: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return what `submit --dry-run` would hand in."""

    def dry_run(*options: str) -> dict[str, Any]:
        command = ["submit", scenes, "--model", digits, "-o", tmp_path / "out", "--dry-run"]
        outcome = trtjob(*command, *options)
        assert outcome.code == 0, outcome.err
        document: dict[str, Any] = json.loads(outcome.out)
        return document

    return dry_run


def test_a_dry_run_counts_the_images_and_writes_nothing(
    plan: Callable[..., dict[str, Any]], scenes: Path, tmp_path: Path
) -> None:
    assert plan()["images"] == len(list(scenes.rglob("*.jpg")))
    assert not (tmp_path / "out").exists()


def test_without_options_the_model_decides(plan: Callable[..., dict[str, Any]]) -> None:
    job = plan()
    assert job["options"]["class_ids"] is None
    assert job["options"]["annotate"] == "all"
    assert job["options"]["conf"] > job["options"]["min_score"]
    assert job["model"]["name"] == "digits"


def test_options_go_over_what_the_model_says(plan: Callable[..., dict[str, Any]]) -> None:
    words = "--conf 0.5 --min-score 0.3 --iou 0.6 --classes 3,7 --annotate hits --resize letterbox --shard-size 9"
    job = plan(*words.split(), "--max-failures", "2.5%", "--thumbnails", "all", "--thumbnail-size", "128")
    assert job["options"] == {
        "conf": 0.5,
        "min_score": 0.3,
        "iou": 0.6,
        "class_ids": [3, 7],
        "annotate": "hits",
        "resize": "letterbox",
        "truncated": "refuse",
        "pages": "first",
        "frames": "fps=1" if find_spec("av") else None,
        "depth": "auto",
        "metadata": False,
        "polygons": False,
        "agnostic_nms": False,
        "max_det": None,
        "hide_labels": False,
        "hide_scores": False,
        "line_width": None,
        "font_size": None,
        "annotate_video": False,
        "decode": "cpu",
        "thumbnails": "all",
        "thumbnail_px": 128,
        "shard_size": 9,
        "max_failures": "2.5%",
    }


def test_how_boxes_are_chosen_and_drawn_is_part_of_the_job(plan: Callable[..., dict[str, Any]]) -> None:
    words = "--agnostic-nms --max-det 300 --hide-scores --line-width 3 --font-size 20"
    job = plan(*words.split())
    wanted = {"agnostic_nms": True, "max_det": 300, "hide_scores": True, "line_width": 3, "font_size": 20}
    assert job["options"] == job["options"] | wanted
    assert job["job_id"] != plan()["job_id"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--max-det 0", "--max-det"),
        ("--line-width 101", "--line-width"),
        ("--font-size 5", "--font-size"),
        ("--hide-labels --annotate none", "--hide-labels is for annotated copies"),
        ("--line-width 3 --annotate none", "--line-width is for annotated copies"),
        ("--hide-labels --font-size 20", "--font-size is for what --hide-labels leaves out"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    trtjob: Command, scenes: Path, digits: Path, words: str, said: str
) -> None:
    outcome = trtjob("submit", scenes, "--model", digits, "--dry-run", *words.split())
    assert outcome.code == 2
    assert said in outcome.err


def test_a_low_conf_lowers_what_is_stored_too(plan: Callable[..., dict[str, Any]]) -> None:
    assert plan("--conf", "0.001")["options"]["min_score"] == 0.001


def test_outlines_of_a_model_without_masks_are_refused(trtjob: Command, scenes: Path, digits: Path) -> None:
    outcome = trtjob("submit", scenes, "--model", digits, "--dry-run", "--polygons")
    assert outcome.code == 2
    assert "--polygons: digits gives no masks" in outcome.err


@pytest.mark.parametrize("value", ["many", "-1", "101%"])
def test_max_failures_that_is_no_number_and_no_share_is_refused(
    trtjob: Command, scenes: Path, digits: Path, value: str
) -> None:
    outcome = trtjob("submit", scenes, "--model", digits, "--dry-run", "--max-failures", value)
    assert outcome.code == 2
    assert f"--max-failures '{value}': expected a number of images" in outcome.err


def test_what_is_taken_of_a_source_is_part_of_the_job(plan: Callable[..., dict[str, Any]]) -> None:
    words = "--include *.jpg --exclude a --exclude b/ --since 2020-01-01T00:00+00:00 --sample 2 --seed 7"
    job = plan(*words.split(), "--hidden")
    assert job["source"]["selection"] == {
        "hidden": True,
        "recursive": True,
        "videos": bool(find_spec("av")),
        "include": ["*.jpg"],
        "exclude": ["a", "b/"],
        "since_s": 1_577_836_800.0,
        "limit": None,
        "sample": 2,
        "seed": 7,
    }
    assert job["images"] == 2
    assert job["job_id"] != plan()["job_id"]


@pytest.mark.parametrize(
    ("words", "frames"),
    [
        ("", "fps=1"),
        ("--fps 1.0", "fps=1"),
        ("--fps 29.97", "fps=29.97"),
        ("--every 5", "every=5"),
        ("--keyframes", "keyframes"),
    ],
)
def test_which_frames_are_looked_at_is_part_of_the_job(
    plan: Callable[..., dict[str, Any]], words: str, frames: str
) -> None:
    pytest.importorskip("av")
    job = plan(*words.split())
    assert job["options"]["frames"] == frames
    assert (job["job_id"] == plan()["job_id"]) is (frames == "fps=1")


def test_without_what_reads_videos_they_are_not_taken(
    plan: Callable[..., dict[str, Any]], scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()

    def job(source: Path, **given: Any) -> Any:
        return find_locations(JobRequest([str(source)], "model", str(tmp_path / "out"), **given))

    assert not job(scenes).source.selection.videos
    for source, given in ((tmp_path / "clips", {}), (tmp_path / "clips" / "a.mp4", {}), (scenes, {"fps": 2.0})):
        with pytest.raises(TrtjobError, match=r"pip install 'trtjob\[video\]'"):
            job(source, **given)


def test_a_video_of_a_list_is_said_to_need_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").touch()
    (tmp_path / "list.txt").write_text("a.mp4\n")
    locations = find_locations(JobRequest([str(tmp_path / "list.txt")], "model", str(tmp_path / "out")))
    with pytest.raises(MissingDependencyError, match=r"'av' is not installed.*trtjob\[video\]"):
        expect_decoders(locations)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param({"since": "yesterday"}, r"--since 'yesterday' is no date. Examples: 2026-11-01", id="since"),
        pytest.param({"exclude": ["a//b"]}, r"--exclude 'a//b': the pattern 'a//b' has an empty part", id="exclude"),
        pytest.param({"limit": 3, "sample": 3}, r"--limit and --sample both say how many", id="limit and sample"),
        pytest.param({"seed": 3}, r"--seed is for --sample", id="seed"),
        pytest.param({"fps": 2.0, "keyframes": True}, r"--fps, --every and --keyframes all say which", id="frames"),
    ],
)
def test_a_selection_that_cannot_be_meant_is_refused(
    scenes: Path, tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        find_locations(JobRequest([str(scenes)], "model", str(tmp_path / "out"), **given))


def test_an_upload_needs_a_bucket(trtjob: Command, scenes: Path, digits: Path, tmp_path: Path) -> None:
    outcome = trtjob("submit", scenes, "--model", digits, "-o", tmp_path / "out", "--upload")
    assert outcome.code == 2
    assert "--upload puts the images beside the outputs" in outcome.err


def test_a_list_names_its_images(tmp_path: Path, scenes: Path) -> None:
    chosen = sorted(scenes.rglob("*.jpg"))[:2]
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in chosen:
        shutil.copy(path, photos)
    (tmp_path / "list.txt").write_text("\n".join(str(photos / path.name) for path in chosen) + "\n\n")
    locations = find_locations(JobRequest([str(tmp_path / "list.txt")], "model", str(tmp_path / "out")))
    assert locations.keys == sorted(f"photos/{path.name}" for path in chosen)
    assert locations.source.root == str(tmp_path)
    request = JobRequest([str(tmp_path / "list.txt")], "model", str(tmp_path / "out"), root=str(photos))
    assert find_locations(request).keys == sorted(path.name for path in chosen)


def test_a_dash_reads_the_list_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a/one.jpg\na/b/latin\xe9.jpg\n")))
    locations = find_locations(JobRequest(["-"], "model", str(tmp_path / "out")))
    assert (locations.source.root, locations.keys) == (str(tmp_path), ["a/b/latin\udce9.jpg", "a/one.jpg"])


def test_one_image_is_a_source(tmp_path: Path, scenes: Path) -> None:
    image = min(scenes.rglob("*.jpg"))
    assert find_locations(JobRequest([str(image)], "model", str(tmp_path))).keys == [image.name]


def test_a_source_without_a_name_is_not_the_current_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SOURCE is empty"):
        find_locations(JobRequest([""], "model", str(tmp_path / "out")))


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(ConfigError, match="names no image"):
        find_locations(JobRequest([str(tmp_path / "list.txt")], "model", str(tmp_path / "out")))


def test_an_output_in_the_source_is_refused(scenes: Path) -> None:
    with pytest.raises(ConfigError, match="lies in the source"):
        find_locations(JobRequest([str(scenes)], "model", str(scenes / "out")))


def test_what_may_be_wrong_with_a_model_is_said_each_time_it_is_used(
    tmp_path: Path, scenes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = write_model(tmp_path)
    (tmp_path / "net.names").write_text("cat\ndog\ncow\n")
    request = JobRequest([str(scenes)], str(weights), str(tmp_path / "out"))
    for _ in range(2):
        caplog.clear()
        spec = job_from(request, find_locations(request), tmp_path / "models", lambda _model: None)
        assert spec.model.labels == ("class_0", "class_1")
        (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
        assert record.getMessage().startswith("model net: 'net.names' beside the model has 3 names")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conf": "high"}, "--conf 'high': expected a number"),
        ({"annotate": True}, "--annotate True: expected all, hits, none"),
        ({"thumbnails": "some"}, "--thumbnails 'some': expected all, hits, none"),
        ({"fps": "fast"}, "--fps 'fast': expected a number"),
        ({"fps": 0}, "--fps 0: expected 0.001 to 1000"),
        ({"every": 0}, "--every 0: expected a whole number from 1 to 100,000,000"),
        ({"thumbnail_size": 5}, "--thumbnail-size 5: expected 64 or more"),
        ({"cfg": 5}, "--cfg 5: expected a path"),
        ({"cfg": ""}, "--cfg is empty. Name a file, or leave it out"),
        ({"labels": ""}, "--labels is empty. Name a file or names, or leave it out"),
        ({"labels": 5}, "--labels 5: expected a file or names"),
        ({"labels": []}, "--labels is an empty list. Name the classes, or leave it out"),
        ({"classes": 5}, "--classes 5: expected names of classes"),
        ({"include": 5}, "--include 5: expected a pattern, or several"),
        ({"source": 5}, "source 5: expected a path, or several"),
        ({"anonymous": "maybe"}, "--anonymous 'maybe': expected true or false"),
        (
            {"since": 5},
            "--since '5' is no date. Examples: 2026-11-01, 2026-11-01T18:30, 2026-11-01T18:30+01:00",
        ),
        ({"every": True}, "--every True: expected a whole number from 1 to 100,000,000"),
        ({"cfg": "a\0.cfg"}, r"--cfg 'a\x00.cfg': expected a path"),
        ({"labels": "a\0.names"}, r"--labels 'a\x00.names': expected a path"),
        ({"output": "s3://bucket/\0"}, r"--output 's3://bucket/\x00': expected a path"),
        ({"model": "a\0.onnx"}, r"--model 'a\x00.onnx': expected a path"),
        ({"output": None}, "--output None: expected a path"),
        ({"model": None}, "--model None: expected a path"),
    ],
)
def test_what_a_caller_in_python_gives_is_checked(
    scenes: Path, digits: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    request = JobRequest(**{"source": scenes, "model": digits, "output": tmp_path / "out", **options})
    with pytest.raises(ConfigError) as caught:
        job_from(request, find_locations(request), tmp_path / "models", lambda _model: None)
    assert str(caught.value) == message


def test_what_belongs_to_a_model_may_lie_below_the_users_home(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = write_model(tmp_path)
    (tmp_path / "net.cfg").rename(tmp_path / "other.cfg")
    (tmp_path / "two.names").write_text("cat\ndog\n")
    request = JobRequest(scenes, weights, tmp_path / "out", cfg="~/other.cfg", labels="~/two.names")
    spec = job_from(request, find_locations(request), tmp_path / "models", lambda _model: None)
    assert spec.model.labels == ("cat", "dog")


def test_one_pattern_is_one_and_not_its_letters(scenes: Path, digits: Path, tmp_path: Path) -> None:
    locations = find_locations(JobRequest(scenes, digits, tmp_path / "out", include="*.jpg", exclude="night/*"))
    assert locations.source.selection.include == ("*.jpg",)
    assert locations.source.selection.exclude == ("night/*",)


def test_a_column_may_be_a_number(scenes: Path, digits: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    image = next(scenes.rglob("*.jpg"))
    table.write_text(f"camera,seen\nnorth,{image}\n")
    request = JobRequest(table, digits, tmp_path / "out", column=2, root=scenes)
    assert find_locations(request).keys == [image.relative_to(scenes).as_posix()]


def test_classes_may_be_numbers(scenes: Path, digits: Path, tmp_path: Path) -> None:
    request = JobRequest(scenes, digits, tmp_path / "out", classes=[3, "7"])  # type: ignore[list-item]
    spec = job_from(request, find_locations(request), tmp_path / "models", lambda _model: None)
    assert spec.options.class_ids == (3, 7)
