"""What a job is, and when two commands mean the same job."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from samples import MODEL, job_spec, options

from trtjob.errors import ConfigError
from trtjob.jobs.plan import source_list
from trtjob.jobs.spec import Annotate, JobSpec, ModelRef, Options, Part, Source, class_ids_from, job_id_of
from trtjob.storage.selection import Selection

SOURCE = Source(kind="folder", root="/home/ann/Summer Photos")


def selecting(**wanted: Any) -> Source:
    return SOURCE.model_copy(update={"selection": Selection.model_validate(wanted)})


def job_id(
    *,
    source: Source = SOURCE,
    listed: bytes = b"",
    model: ModelRef = MODEL,
    order: Options | None = None,
    output: str = "/out",
) -> str:
    return job_id_of(source, listed, model, order or options(), output)


def with_option(**changed: Any) -> Options:
    return options().model_copy(update=changed)


def test_the_same_command_gives_the_same_job() -> None:
    # Written down, because a job's id must not change with a new version: its folder could not be continued.
    assert job_id() == "summer-photos-eda90a9f"


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        pytest.param(["sub/astronaut.png"], "astronaut-png", id="one image"),
        pytest.param(["a.png", "b.png"], "summer-photos", id="several"),
    ],
)
def test_a_job_over_one_image_is_called_after_it(keys: list[str], name: str) -> None:
    listed = source_list(keys)
    assert job_id(source=Source(kind="list", root=SOURCE.root), listed=listed).rpartition("-")[0] == name


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"source": Source(kind="folder", root="/home/bob/Summer Photos")}, id="source"),
        pytest.param({"source": Source(kind="list", root=SOURCE.root)}, id="kind of source"),
        pytest.param({"source": selecting(exclude=("raw",))}, id="exclude"),
        pytest.param({"source": selecting(sample=9, seed=1)}, id="sample"),
        pytest.param({"listed": b'{"key": "a.jpg"}\n'}, id="list"),
        pytest.param({"model": MODEL.model_copy(update={"sha256": "cd" * 32})}, id="model"),
        pytest.param({"output": "/elsewhere"}, id="output"),
        pytest.param({"order": with_option(conf=0.3)}, id="conf"),
        pytest.param({"order": with_option(min_score=0.06)}, id="min_score"),
        pytest.param({"order": with_option(iou=0.5)}, id="iou"),
        pytest.param({"order": with_option(class_ids=(1,))}, id="classes"),
        pytest.param({"order": with_option(annotate=Annotate.ALL)}, id="annotate"),
        pytest.param({"order": with_option(resize="letterbox")}, id="resize"),
        pytest.param({"order": with_option(agnostic_nms=True)}, id="agnostic NMS"),
        pytest.param({"order": with_option(max_det=300)}, id="detections at the most"),
        pytest.param({"order": with_option(hide_labels=True)}, id="no labels"),
        pytest.param({"order": with_option(hide_scores=True)}, id="no scores"),
        pytest.param({"order": with_option(line_width=2)}, id="line width"),
        pytest.param({"order": with_option(font_size=20)}, id="font size"),
    ],
)
def test_what_changes_the_outputs_is_another_job(changed: dict[str, Any]) -> None:
    assert job_id(**changed) != job_id()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"order": options(shard_size=7)}, id="shard size"),
        pytest.param({"order": options(max_failures="5%")}, id="failures allowed"),
        pytest.param({"model": MODEL.model_copy(update={"name": "other"})}, id="model's name"),
        pytest.param({"model": MODEL.model_copy(update={"path": "/moved/tiny.onnx"})}, id="model's path"),
    ],
)
def test_what_does_not_change_the_outputs_is_the_same_job(changed: dict[str, Any]) -> None:
    assert job_id(**changed) == job_id()


@given(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=255).filter(
        lambda name: name not in (".", "..")
    )
)
def test_every_folder_name_gives_a_valid_id(name: str) -> None:
    made = job_id(source=Source(kind="folder", root=f"/{name}"))
    assert job_spec(job_id=made).job_id == made


def test_a_folder_without_a_latin_letter_still_gives_an_id() -> None:
    assert job_id(source=Source(kind="folder", root="/фото")).startswith("job-")


@pytest.mark.parametrize("name", ["", "-a", "UPPER", "a/b", "..", "a b", "a" * 81])
def test_a_job_id_that_is_no_safe_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        job_spec(job_id=name)


def test_a_job_survives_its_way_through_json() -> None:
    spec = job_spec(max_failures="2.5%")
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_field_of_a_newer_version_is_refused_and_not_lost() -> None:
    with pytest.raises(ValidationError, match="new_field"):
        JobSpec.model_validate({**job_spec().model_dump(), "new_field": 1})


@pytest.mark.parametrize(
    ("limit", "images", "allowed"),
    [
        pytest.param(None, 100, None, id="any number"),
        pytest.param("0", 100, 0, id="none"),
        pytest.param("10", 3, 10, id="number"),
        pytest.param("2.5%", 1000, 25, id="share"),
        pytest.param("1%", 99, 0, id="share of few"),
        pytest.param("100%", 7, 7, id="all"),
    ],
)
def test_failures_are_allowed_as_a_number_or_a_share(limit: str | None, images: int, allowed: int | None) -> None:
    assert options(max_failures=limit).failures_allowed(images) == allowed


@pytest.mark.parametrize("limit", ["", "-1", "1.5", "101%", "5 %", "ten", "%"])
def test_a_wrong_limit_of_failures_is_refused(limit: str) -> None:
    with pytest.raises(ValidationError, match="expected a number"):
        options(max_failures=limit)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        pytest.param("dog", (1,), id="name"),
        pytest.param("1, cat", (0, 1), id="number and name"),
        pytest.param("dog,dog,1", (1,), id="repeated"),
        pytest.param("dog,,", (1,), id="empty parts"),
    ],
)
def test_classes_are_named_or_numbered(names: str, ids: tuple[int, ...]) -> None:
    assert class_ids_from(names, ("cat", "dog")) == ids


@pytest.mark.parametrize("names", ["horse", "2", "-1", "²", "dog,horse"])
def test_a_class_that_the_model_does_not_know_is_named_with_those_it_has(names: str) -> None:
    with pytest.raises(ConfigError, match="cat, dog"):
        class_ids_from(names, ("cat", "dog"))


def test_no_class_at_all_is_an_error_with_an_example() -> None:
    with pytest.raises(ConfigError, match="--classes dog,cat"):
        class_ids_from(" , ", ("cat", "dog"))


def test_a_class_whose_name_is_a_number_is_found_by_its_name() -> None:
    assert class_ids_from("7", ("5", "7", "9")) == (1,)


@pytest.mark.parametrize(
    "place",
    [
        "",
        "photos",
        "../photos",
        "/data/../etc",
        "/data/./photos",
        "/data/..",
        "/data\0/photos",
        "/" + "x" * 5000,
        "s3://",
        "s3:///photos",
        "s3://bucket/../other",
        "file:///etc",
        "http://host/../photos",
        "https://user:secret@host/photos",
    ],
)
@pytest.mark.parametrize("field", ["output", "source", "path", "uri"])
def test_a_job_with_a_way_up_or_nowhere_in_its_places_is_no_job(place: str, field: str) -> None:
    fields = job_spec().model_dump(mode="json")
    match field:
        case "output":
            fields["output"] = place
        case "source":
            fields["source"]["root"] = place
        case _:
            fields["model"][field] = place
    if (field, place) == ("uri", ""):  # there is none
        JobSpec.model_validate(fields)
        return
    with pytest.raises(ValidationError):
        JobSpec.model_validate(fields)


def test_a_web_address_is_a_place_of_images_alone() -> None:
    fields = job_spec("https://host/photos").model_dump(mode="json")
    assert JobSpec.model_validate(fields).source.root == "https://host/photos"
    wrong = [{"output": "https://host/out"}, {"model": fields["model"] | {"uri": "https://host/a.onnx"}}]
    for changed in wrong:
        with pytest.raises(ValidationError):
            JobSpec.model_validate(fields | changed)


def test_an_image_is_from_the_place_whose_whole_name_its_key_begins_with() -> None:
    roots = {"cam1": "https://host/photos", "cam10": "/photos"}
    source = Source(kind="folder", root="", parts=tuple(Part(name=n, root=r, is_listed=True) for n, r in roots.items()))
    assert [source.is_on_web(key) for key in ("cam1/a.jpg", "cam10/a.jpg", "cam2/a.jpg")] == [True, False, False]
    found = source.part_of("cam10/day/a.jpg")
    assert found is not None
    assert (found[0].name, found[1]) == ("cam10", "day/a.jpg")


def test_a_source_is_one_place_or_several() -> None:
    part = {"name": "x", "root": "/x", "is_listed": True}
    assert Source.model_validate({"kind": "folder", "root": "", "parts": [part]}).roots == ("/x",)
    for fields in ({"root": ""}, {"root": "/x", "parts": [part]}):
        with pytest.raises(ValidationError, match="either a root or several parts"):
            Source.model_validate({"kind": "folder", **fields})


@pytest.mark.parametrize("place", ["/", "/data", "/data/a..b/..c", "//data", "s3://bucket", "s3://bucket/photos"])
def test_absolute_paths_and_buckets_are_places(place: str) -> None:
    assert JobSpec.model_validate(job_spec(place, place).model_dump(mode="json")).output == place


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ("a, b", (0,)),
        ("a,b", (0,)),
        ("a", (1,)),
        ("a, b, c", (0, 3)),
        ("c,a,b,2", (0, 2, 3)),
        ("b", (2,)),
        (" a , b ,a", (0, 1)),
        (",c,,", (3,)),
    ],
)
def test_a_name_may_hold_commas(names: str, ids: tuple[int, ...]) -> None:
    assert class_ids_from(names, ("a, b", "a", "b", "c")) == ids
