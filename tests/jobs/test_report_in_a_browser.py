"""The report as people meet it: in a real Chromium, opened from the disk."""

import itertools
import json
import re
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import Tab, browser, find_axe, find_chromium
from epochs import LABELS, failed, found, job_spec
from report_page import report
from report_truth import coco
from s3_server import PUBLIC, S3Server
from samples import made

from trtjob.errors import FailureKind
from trtjob.imaging.detections import Classification, Detection, RotatedBox
from trtjob.imaging.masks import Mask
from trtjob.jobs.finish import report_again
from trtjob.jobs.folder import JOB, JobFolder, thumbnail_key
from trtjob.jobs.records import Record
from trtjob.jobs.report import Report
from trtjob.jobs.report.chunk import MAX_IMAGES
from trtjob.jobs.report.evaluation import Evaluation
from trtjob.jobs.report.other_job import OtherJob
from trtjob.jobs.report.overlap import xywh
from trtjob.jobs.report.signed import signed_originals
from trtjob.jobs.report.truth import TrueObject, open_labels
from trtjob.jobs.spec import Annotate, JobSpec, Source
from trtjob.storage import open_storage

pytestmark = pytest.mark.slow

BOX = (10.0, 20.0, 110.0, 70.0)
HOSTILE = "<img src=x onerror=document.title='broken'>"
NAMES = [f"{HOSTILE}.png", 'quote"#%?.png', "line\nbreak.png", "\udcff.png", "猫 😀.png"]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """One browser for the tests of this file: each opens its page anew."""
    path = find_chromium()
    if path is None:
        pytest.skip("there is no Chromium on this machine's PATH: the report was not tried in a browser")
    with tempfile.TemporaryDirectory(prefix="trtjob-chromium-") as profile, browser(path, Path(profile)) as tab:
        tab.downloads_to(tmp_path_factory.mktemp("downloads"))
        yield tab


@pytest.fixture
def tab(chromium: Tab) -> Tab:
    chromium.look(1440, 900)
    chromium.forget()
    return chromium


def with_images(root: Path, names: list[str], wrong: tuple[str, ...] = ()) -> None:
    image = cv2.imencode(".png", np.full((100, 200, 3), 200, np.uint8))[1].tobytes()
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image" if name in wrong else image)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of twelve images in two folders, of which two failed, without annotated copies."""
    root = tmp_path_factory.mktemp("job") / "photos"
    records = [
        found("day/1.png", (0, 0.9, BOX), (1, 0.4, BOX), (1, 0.1234, BOX)),
        found("day/2.png", (1, 0.8, BOX)),
        found("day/3.png", (1, 0.2, BOX)),
        found("day/4.png", (0, 0.3, BOX), (0, 0.28, BOX), (0, 0.27, BOX)),
        found("day/5.png"),
        failed("day/6.png", message=HOSTILE),
        failed("night/7.png", FailureKind.MISSING, "no such file"),
        *(found(f"night/{name}", (2, 0.5, BOX)) for name in NAMES),
    ]
    with_images(root, [record.image for record in records])
    return page_of(local_spec(root), records)


def local_spec(root: Path, **changes: Any) -> JobSpec:
    spec = job_spec(root.parent / "out", annotate=Annotate.NONE)
    return spec.model_copy(update={"source": Source(kind="folder", root=str(root)), **changes})


def page_of(spec: JobSpec, records: list[Record]) -> Path:
    return Path(report(spec, records).uri, "report.html")


def written(spec: JobSpec, records: Iterable[Record]) -> Path:
    """Write the page of these records alone, of which none failed."""
    folder = made(JobFolder.of(spec))
    page, images = Report(folder, spec), 0
    for images, record in enumerate(records, start=1):  # noqa: B007 - how many there were
        page.add(record)
    summary = dict.fromkeys(("images", "failed", "elapsed_s"), 0) | {"images": images, "incomplete": ""}
    page.write(summary | {name: {} for name in ("failures", "ignored", "devices", "busy_s")})
    return Path(folder.uri, "report.html")


def shown(tab: Tab) -> list[str]:
    names: list[str] = tab.evaluate("[...document.querySelectorAll('.card .name')].map(node => node.textContent)")
    return [name.rpartition("/")[2] for name in names]


def tabs(tab: Tab) -> dict[str, int]:
    texts: list[str] = tab.evaluate("[...document.querySelectorAll('#tabs button')].map(node => node.textContent)")
    return {name: int(count.replace(",", "")) for name, _, count in (text.rpartition(" ") for text in texts)}


def counts(tab: Tab, of: str) -> dict[str, int]:
    rows: list[list[str]] = tab.evaluate(
        f"[...document.querySelectorAll('#{of} li')].map(row => ["
        "(row.querySelector('label > span:not(.swatch)') ?? row.querySelector('.choice > span')).textContent,"
        " row.querySelector('b').textContent])"
    )
    return {name: int(count) for name, count in rows}


def click(tab: Tab, selector: str) -> None:
    tab.evaluate(f"document.querySelector({json.dumps(selector)}).click()")
    tab.settle()


def give(tab: Tab, selector: str, value: object, event: str = "input") -> None:
    """Enter a value as a person does."""
    tab.evaluate(
        f"(() => {{ const field = document.querySelector({json.dumps(selector)}); field.value = {json.dumps(value)};"
        f" field.dispatchEvent(new Event('{event}', {{bubbles: true}})); }})()"
    )
    tab.settle()


# -- what is shown at first --------------------------------------------------------------------------------------------


def test_the_images_with_detections_are_shown_first(tab: Tab, page: Path) -> None:
    tab.open(page)
    assert tabs(tab) == {"With detections": 8, "Empty": 2, "Nearly": 1, "Failed": 2, "All": 12}
    assert shown(tab)[:3] == ["1.png", "2.png", "4.png"]
    assert counts(tab, "classes") == {"traffic light": 5, "cat": 4, "dog": 2}
    assert counts(tab, "folders") == {"day": 3, "night": 5}
    assert counts(tab, "kinds") == {"decode": 1, "missing": 1}
    assert tab.errors == []


def test_the_page_says_what_the_job_was_and_leads_to_its_files(tab: Tab, page: Path) -> None:
    tab.open(page)
    text = tab.evaluate("document.getElementById('job').textContent")
    for word in (
        "photos-1a2b3c4d",
        "pets",
        "ab" * 32,
        "conf)0.25",
        "iou)0.45",
        "trtjob export photos-1a2b3c4d --format",
    ):
        assert word in text
    links = tab.evaluate("[...document.querySelectorAll('#job a')].map(link => link.getAttribute('href'))")
    assert links == ["results.jsonl", "errors.jsonl", "summary.json", "job.json"]


def test_nothing_is_asked_of_a_network(tab: Tab, page: Path) -> None:
    tab.open(page)
    tab.wait_for("[...document.querySelectorAll('.card img')].every(image => image.complete)")
    assert len(tab.requests) >= 10
    assert [address for address in tab.requests if not address.startswith(("file:", "about:"))] == []


def test_originals_are_shown_with_boxes_over_them(tab: Tab, page: Path) -> None:
    tab.open(page)
    tab.wait_for("[...document.querySelectorAll('.card img')].every(image => image.complete)")
    assert tab.evaluate("[...document.querySelectorAll('.card img')].map(image => image.naturalWidth)") == [200] * 8
    boxes = tab.evaluate(
        "[...document.querySelector('.card svg').querySelectorAll('.over')].map(box => "
        "['x', 'y', 'width', 'height'].map(name => +box.getAttribute(name)))"
    )
    assert boxes == [[10, 20, 100, 50]] * 2


def test_hostile_names_labels_and_messages_stay_text(tab: Tab, tmp_path: Path) -> None:
    spec = local_spec(tmp_path / "photos")
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"labels": (HOSTILE, HOSTILE, HOSTILE)})})
    with_images(tmp_path / "photos", NAMES)
    path = page_of(spec, [*(found(name, (0, 0.9, BOX)) for name in NAMES), failed(f"{HOSTILE}/b.jpg", message=HOSTILE)])
    tab.open(path, "#tab=all&image=1")
    tab.wait_for("document.getElementById('viewer').open")
    tab.wait_for("[...document.querySelectorAll('.card img')].every(image => image.complete)")
    assert sorted(shown(tab)) == sorted([*NAMES[:3], "\ufffd.png", NAMES[4], "b.jpg"])
    assert tab.evaluate("document.querySelectorAll('[onerror]').length") == 0
    assert tab.evaluate("document.title") == "photos-1a2b3c4d: " + str(tmp_path / "photos")
    # Every name leads to its file.
    assert tab.evaluate("[...document.querySelectorAll('.card img')].map(image => image.naturalWidth)") == [200] * 5


def test_where_the_original_is_away_the_annotated_copy_is_shown_without_other_boxes(tab: Tab, tmp_path: Path) -> None:
    spec = local_spec(tmp_path / "away").model_copy(update={"options": job_spec(tmp_path).options})
    path = page_of(spec, [found("a.png", (0, 0.9, BOX))])
    with_images(path.parent / "annotated", ["a.png"])
    tab.open(path)
    tab.wait_for("document.querySelector('.picture.drawn img')?.naturalWidth === 200")
    assert tab.evaluate("getComputedStyle(document.querySelector('.picture svg')).display") == "none"


def with_thumbnails(spec: JobSpec) -> JobSpec:
    return spec.model_copy(update={"options": spec.options.model_copy(update={"thumbnails": Annotate.ALL})})


def test_thumbnails_are_shown_with_the_boxes_of_their_images(tab: Tab, tmp_path: Path) -> None:
    names = ["day/a.png", *NAMES, f"{'n' * 240}猫.png"]
    path = page_of(with_thumbnails(local_spec(tmp_path / "photos")), [found(name, (0, 0.9, BOX)) for name in names])
    for name in names:
        thumbnail = path.parent / thumbnail_key(name)
        thumbnail.parent.mkdir(parents=True, exist_ok=True)
        thumbnail.write_bytes(cv2.imencode(".jpg", np.full((50, 100, 3), 200, np.uint8))[1].tobytes())
    tab.open(path)
    tab.wait_for("[...document.querySelectorAll('.card img')].every(image => image.complete)")
    assert tab.evaluate("[...document.querySelectorAll('.card img')].map(image => image.naturalWidth)") == [100] * 7
    assert tab.evaluate("document.querySelector('.card svg').getAttribute('viewBox')") == "0 0 200 100"


def test_where_a_thumbnail_is_away_the_original_is_shown_and_enlarged_it_always_is(tab: Tab, tmp_path: Path) -> None:
    with_images(tmp_path / "photos", ["a.png", "b.png"])
    spec = with_thumbnails(local_spec(tmp_path / "photos"))
    path = page_of(spec, [found(name, (0, 0.9, BOX)) for name in ("a.png", "b.png")])
    with_images(path.parent, ["thumbnails/a.png.jpg"])
    tab.open(path, "#image=1")
    tab.wait_for("[...document.querySelectorAll('.card img')].every(image => image.naturalWidth === 200)")
    sources = "[...document.querySelectorAll('{} img')].map(image => image.src.split('/').slice(-2).join('/'))"
    assert tab.evaluate(sources.format(".card")) == ["thumbnails/a.png.jpg", "photos/b.png"]
    assert tab.evaluate(sources.format("#layer")) == ["photos/a.png"]


def test_a_page_in_a_public_bucket_shows_what_lies_in_the_bucket(tab: Tab, s3: S3Server) -> None:
    with suppress(s3.client().exceptions.BucketAlreadyExists, s3.client().exceptions.BucketAlreadyOwnedByYou):
        s3.client().create_bucket(Bucket=PUBLIC)
    root = f"s3://{PUBLIC}/{secrets.token_hex(4)}"
    spec = job_spec(Path("/")).model_copy(
        update={"source": Source(kind="folder", root=f"{root}/my photos"), "output": f"{root}/out"}
    )
    image = cv2.imencode(".png", np.full((100, 200, 3), 200, np.uint8))[1].tobytes()
    open_storage(f"{root}/my photos").put("day/a.png", image)
    report(spec, [found("day/a.png", (0, 0.9, BOX))])
    tab.call("Page.navigate", url=f"{s3.endpoint}/{spec.uri.removeprefix('s3://')}/report.html")
    tab.wait_for("document.querySelector('.card img')?.naturalWidth === 200")
    assert tab.errors == []


def test_originals_in_a_private_bucket_are_shown_by_signed_addresses(tab: Tab, tmp_path: Path, s3: S3Server) -> None:
    root = f"s3://{s3.new_bucket()}/my photos"
    image = cv2.imencode(".png", np.full((100, 200, 3), 200, np.uint8))[1].tobytes()
    open_storage(root).put("day/a.png", image)
    spec = local_spec(tmp_path).model_copy(update={"source": Source(kind="folder", root=root)})
    folder = JobFolder.of(spec)
    path = page_of(spec, [found("day/a.png", (0, 0.9, BOX))])
    report_again(folder, spec, address_of=signed_originals(spec, timedelta(hours=1)))
    tab.open(path)
    tab.wait_for("document.querySelector('.card img')?.naturalWidth === 200")
    assert tab.errors == []
    asked = {request.partition("?")[0] for request in tab.requests if not request.startswith(("file:", "about:"))}
    prefix = f"{s3.endpoint}/{root.removeprefix('s3://').replace(' ', '%20')}"
    assert f"{prefix}/day/a.png" in asked
    assert all(address.startswith(prefix) for address in asked)


def test_an_image_that_no_browser_shows_is_said(tab: Tab, tmp_path: Path) -> None:
    with_images(tmp_path / "photos", ["a.png"], wrong=("a.png",))
    tab.open(page_of(local_spec(tmp_path / "photos"), [found("a.png", (0, 0.9, BOX))]))
    tab.wait_for("document.querySelector('.picture .none') !== null")


# -- filters -----------------------------------------------------------------------------------------------------------


def test_the_slider_filters_anew(tab: Tab, page: Path) -> None:
    tab.open(page)
    give(tab, "#score", 60)
    assert shown(tab) == ["1.png", "2.png"]
    assert counts(tab, "classes") == {"traffic light": 0, "cat": 1, "dog": 1}
    give(tab, "#score", 5)
    assert tabs(tab)["With detections"] == 9


def test_a_score_counts_to_its_last_decimal(tab: Tab, page: Path) -> None:
    tab.open(page)
    give(tab, "#score-number", "0.1234", "change")
    assert counts(tab, "classes")["dog"] == 4
    give(tab, "#score-number", "0.1235", "change")
    assert counts(tab, "classes")["dog"] == 3


def test_classes_are_switched_off_and_on(tab: Tab, page: Path) -> None:
    tab.open(page)
    click(tab, "#class-none")
    assert tabs(tab)["With detections"] == 0
    click(tab, "#classes li:nth-child(3) input")
    assert shown(tab) == ["1.png", "2.png"]
    click(tab, "#class-all")
    assert tabs(tab)["With detections"] == 8
    click(tab, "#classes li:nth-child(2) .only")
    assert shown(tab) == ["1.png", "4.png"]


def test_a_folder_and_a_kind_of_failure_are_chosen(tab: Tab, page: Path) -> None:
    tab.open(page)
    click(tab, "#folders li:nth-child(1) button")
    assert tabs(tab) == {"With detections": 3, "Empty": 2, "Nearly": 1, "Failed": 1, "All": 6}
    click(tab, "#reset")
    click(tab, "#kinds li:nth-child(2) button")
    assert shown(tab) == ["7.png"]


@pytest.mark.parametrize(
    ("number", "names"),
    [
        pytest.param(2, ["3.png", "5.png"], id="empty"),
        pytest.param(3, ["3.png"], id="nearly"),
        pytest.param(4, ["6.png", "7.png"], id="failed"),
    ],
)
def test_a_tab_shows_its_images(tab: Tab, page: Path, number: int, names: list[str]) -> None:
    tab.open(page)
    click(tab, f"#tabs button:nth-child({number})")
    assert shown(tab) == names


def test_names_and_folders_are_searched(tab: Tab, page: Path) -> None:
    tab.open(page)
    give(tab, "#search", "DAY/")
    assert shown(tab) == ["1.png", "2.png", "4.png"]
    give(tab, "#search", "猫")
    assert shown(tab) == [NAMES[4]]


@pytest.mark.parametrize(
    ("order", "names"),
    [
        pytest.param("best", ["1.png", "2.png"], id="best score"),
        pytest.param("near", ["4.png"], id="nearest to the threshold"),
        pytest.param("most", ["4.png", "1.png", "2.png"], id="most objects"),
    ],
)
def test_images_are_sorted(tab: Tab, page: Path, order: str, names: list[str]) -> None:
    tab.open(page)
    give(tab, "#sort", order, "change")
    assert shown(tab)[: len(names)] == names


def test_a_random_order_is_kept_by_the_address(tab: Tab, page: Path) -> None:
    tab.open(page)
    give(tab, "#sort", "random", "change")
    before, address = shown(tab), tab.evaluate("location.hash")
    assert sorted(before) != before
    tab.open(page, address)
    assert shown(tab) == before


def test_the_address_restores_what_is_shown(tab: Tab, page: Path) -> None:
    tab.open(page)
    give(tab, "#score", 30)
    click(tab, "#classes li:nth-child(2) .only")
    click(tab, "#folders li:nth-child(1) button")
    give(tab, "#sort", "best", "change")
    address = tab.evaluate("location.hash")
    assert address == "#score=0.3&class=cat&folder=day&sort=best"
    before = (shown(tab), tabs(tab), counts(tab, "classes"))
    tab.open(page, address)
    assert (shown(tab), tabs(tab), counts(tab, "classes")) == before


def test_an_address_of_nonsense_shows_the_first_view(tab: Tab, page: Path) -> None:
    tab.open(page, "#score=x&tab=constructor&sort=__proto__&page=-4&image=99&kind=toString&seed=1e99")
    assert len(shown(tab)) == 8
    assert tab.errors == []


# -- one image ---------------------------------------------------------------------------------------------------------


def focus_first(tab: Tab) -> None:
    tab.evaluate("document.querySelector('.open').focus()")


def viewer_name(tab: Tab) -> str:
    name: str = tab.evaluate(
        "document.getElementById('viewer').open ? document.getElementById('viewer-name').textContent : ''"
    )
    return name


def press(tab: Tab, key: str, name: str) -> None:
    tab.key(key)
    tab.wait(lambda: viewer_name(tab) == name, f"{key} shows {name!r}")


def test_the_keyboard_alone_leads_through_the_images(tab: Tab, page: Path) -> None:
    tab.open(page)
    focus_first(tab)
    tab.key("ArrowRight")
    press(tab, "Enter", "day/2.png")
    press(tab, "ArrowRight", "day/4.png")
    press(tab, "ArrowLeft", "day/2.png")
    assert tab.evaluate("location.hash") == "#image=2"
    press(tab, "Escape", "")
    tab.wait_for("location.hash === ''")
    assert tab.evaluate("document.activeElement.dataset.image") == "1"


def test_the_slash_leads_to_the_search(tab: Tab, page: Path) -> None:
    tab.open(page)
    tab.key("/")
    assert tab.evaluate("document.activeElement.id") == "search"
    assert tab.evaluate("document.activeElement.value") == ""


def test_an_enlarged_image_has_its_objects_and_hides_labels_and_low_scores(tab: Tab, page: Path) -> None:
    tab.open(page, "#image=1")
    tab.wait(lambda: viewer_name(tab) == "day/1.png", "the image of the address")
    rows = "[...document.querySelectorAll('#viewer tbody tr')].map(row => row.children[1].textContent)"
    assert tab.evaluate(rows) == ["0.9000", "0.4000", "0.1234"]
    drawn = "document.querySelectorAll('#layer .over').length"
    assert tab.evaluate(drawn) == 2
    tab.key("l")
    assert tab.evaluate(drawn) == 3
    assert tab.evaluate("document.querySelector('.tags').hidden") is False
    tab.key("h")
    assert tab.evaluate("document.querySelector('.tags').hidden") is True


def test_labels_lie_at_their_boxes(tab: Tab, page: Path) -> None:
    tab.open(page, "#image=1")
    tab.wait(lambda: viewer_name(tab) == "day/1.png", "the image of the address")
    corners = "[...document.querySelectorAll({})].map(node => [node.getBoundingClientRect().left, {}])"
    bottoms = tab.evaluate(corners.format("'.tag'", "node.getBoundingClientRect().bottom"))
    tops = tab.evaluate(corners.format("'#layer .over'", "node.getBoundingClientRect().top"))
    assert np.allclose(bottoms, tops, atol=3)


def test_an_image_without_a_hit_shows_what_it_nearly_had(tab: Tab, page: Path) -> None:
    tab.open(page, "#tab=nearly")
    assert tab.evaluate("document.querySelector('.card .chip.is-low').textContent") == "dog 0.20"
    assert tab.evaluate("document.querySelectorAll('.card svg .low').length") == 1
    assert tab.evaluate("document.querySelector('.open').getAttribute('aria-label')") == "day/3.png: nearly 1 dog"


def test_outlines_rotated_boxes_and_keypoints_are_drawn(tab: Tab, tmp_path: Path) -> None:
    spec = local_spec(tmp_path / "photos")
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"skeleton": ((0, 1), (1, 2))})})
    corners = ((1.0, 2.0), (30.0, 2.0), (30.0, 40.0), (1.0, 40.0))
    keypoints = ((5.0, 6.0, 0.9), (15.0, 16.0, 0.8), (25.0, 26.0, 0.1))  # the last one is hidden
    detections = (
        Detection("dog", 1, 0.9, BOX, keypoints=keypoints),
        Detection("dog", 1, 0.8, BOX, rotated=RotatedBox(corners, 0.0)),
        Detection("dog", 1, 0.7, BOX, polygons=((1, 2, 3, 2, 3, 4), (11, 12, 13, 12, 13, 14))),
    )
    tab.open(written(spec, [Record("a.png", None, 200, 100, detections)]))
    drawn = tab.evaluate("[...document.querySelectorAll('.card .over')].map(node => node.outerHTML)")
    assert [re.sub(r" (class|stroke|data-object|xmlns)=\"[^\"]*\"", "", node) for node in drawn] == [
        '<rect x="10" y="20" width="100" height="50"></rect>',
        '<line x1="5" y1="6" x2="15" y2="16"></line>',
        '<line x1="5" y1="6" x2="5" y2="6" data-keypoint="0"></line>',
        '<line x1="15" y1="16" x2="15" y2="16" data-keypoint="1"></line>',
        '<polygon points="1,2 30,2 30,40 1,40"></polygon>',
        '<polygon points="1,2 3,2 3,4"></polygon>',
        '<polygon points="11,12 13,12 13,14"></polygon>',
    ]


def test_masks_are_painted_where_they_are(tab: Tab, tmp_path: Path) -> None:
    pixels = np.zeros((100, 200), bool)
    pixels[20:70, 10:110] = True
    pixels[30:40, 30:40] = False  # a hole
    detections = (Detection("dog", 1, 0.9, BOX, mask=Mask.encode(pixels)),)
    tab.open(written(local_spec(tmp_path / "photos"), [Record("a.png", None, 200, 100, detections)]))
    alphas = tab.evaluate(
        "(() => { const canvas = document.querySelector('.card canvas');"
        " const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
        " return [...data].filter((_, at) => at % 4 === 3); })()"
    )
    assert np.array_equal(np.array(alphas).reshape(100, 200) == 255, pixels)


def test_a_large_mask_is_painted_smaller_on_a_card(tab: Tab, tmp_path: Path) -> None:
    pixels = np.zeros((1200, 2400), bool)
    pixels[:600, 800:1600] = True
    detections = (Detection("dog", 1, 0.9, BOX, mask=Mask.encode(pixels)),)
    tab.open(written(local_spec(tmp_path / "photos"), [Record("a.png", None, 2400, 1200, detections)]))
    painted = tab.evaluate(
        "(() => { const canvas = document.querySelector('.card canvas'), {width, height} = canvas;"
        " const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;"
        " return [width, height, [...data].filter((alpha, at) => at % 4 === 3 && alpha).length]; })()"
    )
    assert painted == [300, 150, 100 * 75]


def links_of(tab: Tab) -> list[list[str]]:
    found: list[list[str]] = tab.evaluate(
        "[...document.querySelectorAll('#viewer-facts a')].map(link => [link.textContent, link.getAttribute('href')])"
    )
    return found


def test_a_frame_is_shown_of_its_copy_and_leads_to_its_place_in_the_video(tab: Tab, tmp_path: Path) -> None:
    spec = local_spec(tmp_path / "photos")
    spec = spec.model_copy(
        update={
            "options": spec.options.model_copy(
                update={"frames": "fps=1", "annotate": Annotate.ALL, "annotate_video": True}
            )
        }
    )
    record = replace(found("day/c#1.mp4#t=12.040", (0, 0.9, BOX)), frame=301, time_s=12.04)
    path = page_of(spec, [record])
    with_images(path.parent, ["annotated/day/c#1.mp4#t=12.040.jpg"])
    tab.open(path, "#image=1")
    tab.wait_for("[...document.querySelectorAll('.picture img')].every(image => image.naturalWidth === 200)")
    assert shown(tab) == ["c#1.mp4#t=12.040"]
    assert links_of(tab) == [
        ["Open the annotated copy", "annotated/day/c%231.mp4%23t%3D12.040.jpg"],
        ["Open the video", "../../photos/day/c%231.mp4#t=12.040"],
        ["Open the annotated video", "annotated/day/c%231.mp4#t=12.040"],
    ]
    assert "Frame 301 of the video, at 12.040 s." in tab.evaluate("document.getElementById('viewer-facts').textContent")


def test_a_time_line_shows_where_in_a_video_something_was_found_and_leads_there(tab: Tab, tmp_path: Path) -> None:
    spec = local_spec(tmp_path / "photos")
    spec = spec.model_copy(update={"options": spec.options.model_copy(update={"frames": "fps=1"})})
    names = [f"day/c.mp4#t={second}.000" for second in range(6)]
    records: list[Record] = [
        found(name, *([(1, 0.8, BOX)] if number in (2, 3) else [])) for number, name in enumerate(names)
    ]
    records[5] = failed(names[5])
    path = page_of(spec, [found("a.png", (0, 0.9, BOX)), *records, found("day/d.mp4#t=0.000", (0, 0.9, BOX))])
    tab.open(path, "#image=4")
    bars = "[...document.querySelectorAll('#timeline-bars rect:not(.now)')]"
    tab.wait_for(f"{bars}.length === 6")
    assert tab.evaluate(f"{bars}.map(bar => +bar.getAttribute('height'))") == [0, 0, 80, 80, 0, 100]
    assert tab.evaluate(f"{bars}.map(bar => bar.getAttribute('class'))") == [*[""] * 5, "failed"]
    assert tab.evaluate("document.getElementById('moment-text').textContent") == "2 s"
    box = "document.getElementById('timeline-bars').getBoundingClientRect()"
    tab.evaluate(
        "document.getElementById('timeline-bars').dispatchEvent(new MouseEvent('click', "
        f"{{clientX: {box}.left + {box}.width * 0.58}}))"
    )
    tab.wait_for("document.getElementById('viewer-name').textContent === 'day/c.mp4#t=3.000'")
    tab.wait_for("document.getElementById('moment-text').textContent === '3 s'")
    tab.evaluate(
        "(moment => { moment.value = 0; moment.dispatchEvent(new Event('input')); })(document.getElementById('moment'))"
    )
    tab.wait_for("document.getElementById('viewer-name').textContent === 'day/c.mp4#t=0.000'")
    assert "something was found in 2 of 6 parts" in tab.evaluate(
        "document.getElementById('timeline-bars').getAttribute('aria-label')"
    )
    tab.open(path, "#image=1")
    tab.wait_for("document.getElementById('viewer').open")
    assert tab.evaluate("document.getElementById('timeline').hidden")
    assert tab.errors == []


@pytest.mark.parametrize(
    ("root", "address"),
    [
        pytest.param("s3://private/photos", [], id="a bucket elsewhere"),
        pytest.param(
            "https://host/photos",
            [["https://host/photos/a b.png", "https://host/photos/a b.png"]],
            id="a web server, where a click may lead",
        ),
    ],
)
def test_an_original_that_there_is_no_way_to_has_its_address_said(
    tab: Tab, tmp_path: Path, root: str, address: list[list[str]]
) -> None:
    spec = local_spec(tmp_path).model_copy(update={"source": Source(kind="list", root=root)})
    tab.open(page_of(spec, [found("a b.png", (0, 0.9, BOX))]), "#image=1")
    tab.wait(lambda: viewer_name(tab) == "a b.png", "the image of the address")
    assert f"Original: {root}/a b.png" in tab.evaluate("document.getElementById('viewer-facts').textContent")
    assert links_of(tab) == address
    assert [request for request in tab.requests if not request.startswith(("file:", "about:"))] == []


def test_an_image_is_zoomed_and_fits_again(tab: Tab, page: Path) -> None:
    tab.open(page, "#image=1")
    tab.wait(lambda: viewer_name(tab) == "day/1.png", "the image of the address")
    scale = "new DOMMatrix(getComputedStyle(document.getElementById('layer')).transform).a"
    tab.key("+")
    assert tab.evaluate(scale) == 1.5
    tab.call("Input.dispatchMouseEvent", type="mouseWheel", x=400, y=400, deltaX=0, deltaY=-300)
    tab.wait_for(f"{scale} > 3")
    tab.key("0")
    assert tab.evaluate(scale) == 1


def test_marks_are_set_by_keys_kept_and_downloaded(tab: Tab, page: Path) -> None:
    tab.open(page)
    tab.evaluate("localStorage.clear()")
    tab.open(page)
    focus_first(tab)
    tab.key("w")
    tab.key("ArrowRight")
    press(tab, "Enter", "day/2.png")
    tab.key("r")
    press(tab, "ArrowRight", "day/4.png")
    tab.key("u")
    tab.key("c")
    press(tab, "Escape", "")
    tab.open(page)
    badges = "[...document.querySelectorAll('.badge')].map(node => node.textContent).filter(Boolean)"
    assert tab.evaluate(badges) == ["✗ wrong", "✓ right"]
    click(tab, "[data-download=marks-csv]")
    assert tab.downloaded("photos-1a2b3c4d-marks.csv") == "image,mark\nday/1.png,wrong\nday/2.png,right\n"
    click(tab, "[data-download=marks-json]")
    document = json.loads(tab.downloaded("photos-1a2b3c4d-marks.json"))
    assert document["model_sha256"] == "ab" * 32
    assert document["marks"] == [{"image": "day/1.png", "mark": "wrong"}, {"image": "day/2.png", "mark": "right"}]


def test_the_list_of_what_is_shown_is_downloaded(tab: Tab, page: Path) -> None:
    tab.open(page, "#class=cat&sort=best")
    tab.evaluate("localStorage.clear()")
    tab.open(page, "#class=cat&sort=best")
    click(tab, "[data-download=list]")
    text = tab.downloaded("photos-1a2b3c4d-list.csv")
    assert text == "image,best_score,objects,mark\nday/1.png,0.90,1,\nday/4.png,0.30,3,\n"


# -- classifiers, and many images --------------------------------------------------------------------------------------


def test_a_classifiers_images_are_filtered_by_their_best_class(tab: Tab, tmp_path: Path) -> None:
    spec = local_spec(tmp_path / "photos")
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"task": "classify"})})
    records = [
        Record("a.png", None, 200, 100, classes=(Classification("dog", 1, 0.6), Classification("cat", 0, 0.4))),
        Record("b.png", None, 200, 100, classes=(Classification("cat", 0, 0.2), Classification("dog", 1, 0.1))),
    ]
    tab.open(page_of(spec, records))
    assert counts(tab, "classes") == {"cat": 1, "dog": 1}
    assert tabs(tab)["At this score"] == 2
    give(tab, "#score", 30)
    assert shown(tab) == ["a.png"]
    click(tab, "#classes li:nth-child(1) .only")
    assert shown(tab) == []


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of so many images that it reads what it shows alone: of each hundred one has a cat."""
    spec = local_spec(tmp_path_factory.mktemp("many") / "photos")
    cat, dog = [(0, 0.9, BOX)], [(1, 0.2, BOX)]
    images = range(6 * MAX_IMAGES)
    return written(spec, [found(f"{number:06d}.jpg", *(cat if number % 100 == 99 else dog)) for number in images])


FIRST_VIEW_S, FIRST_VIEW_MB = 2.0, 300.0


def first_view_s(tab: Tab, page: Path) -> float:
    started = time.monotonic()
    tab.open(page)
    tab.wait_for("document.querySelectorAll('.card').length === 60")
    return time.monotonic() - started


def test_two_thousand_mixed_images_are_shown_in_time(tab: Tab, tmp_path: Path) -> None:
    def record(number: int) -> Record:
        if number < 12:
            return failed(f"{number:04d}.jpg")
        return found(f"{number:04d}.jpg", *([(1, 0.8, BOX)] * 3 if number % 4 == 0 else []))

    records = [record(number) for number in range(2000)]
    page = page_of(local_spec(tmp_path / "photos"), records)
    assert first_view_s(tab, page) < FIRST_VIEW_S
    assert tabs(tab) == {"With detections": 497, "Empty": 1491, "Nearly": 0, "Failed": 12, "All": 2000}
    assert tab.memory_mb() < FIRST_VIEW_MB


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_a_million_images_are_shown_in_time_and_memory(tab: Tab, tmp_path: Path) -> None:
    cat, dog = found("x", (0, 0.9, BOX), (1, 0.3, BOX)).detections, found("x", (1, 0.2, BOX)).detections
    names = (f"camera-{number // 10_000:02d}/{number:07d}.jpg" for number in range(1_000_000))
    kinds = (cat if number % 10 == 0 else dog for number in itertools.count())
    page = written(
        local_spec(tmp_path / "photos"),
        (Record(name, None, 200, 100, objects) for name, objects in zip(names, kinds, strict=False)),
    )
    assert first_view_s(tab, page) < FIRST_VIEW_S
    assert tabs(tab)["With detections"] == 100_000
    assert tab.memory_mb() < FIRST_VIEW_MB
    give(tab, "#score", 15)
    assert tabs(tab)["With detections"] == 1_000_000
    give(tab, "#search", "00077")
    give(tab, "#sort", "random", "change")
    click(tab, "#folders li:nth-child(1) button")
    assert tabs(tab)["With detections"] == sum("00077" in f"camera-00/{number:07d}" for number in range(10_000))
    assert len(shown(tab)) == 60


def data_requests(tab: Tab) -> list[str]:
    return [address.rpartition("/")[2].rpartition("-")[0] for address in tab.requests if "/report/d" in address]


def test_the_first_view_of_many_images_reads_what_it_shows_alone(tab: Tab, many: Path) -> None:
    tab.open(many)
    assert tabs(tab) == {"With detections": 300, "Empty": 29_700, "Nearly": 29_700, "Failed": 0, "All": 30_000}
    assert shown(tab)[:2] == ["000099.jpg", "000199.jpg"]
    assert sorted(data_requests(tab)) == ["data-0000", "data-0001", "details-0000", "details-0001"]


def test_pages_of_many_images_are_turned(tab: Tab, many: Path) -> None:
    tab.open(many, "#page=5&image=24100")
    tab.wait(lambda: viewer_name(tab) == "024099.jpg", "the image of the address")
    assert shown(tab)[0] == "024099.jpg"
    assert sorted(data_requests(tab)) == ["data-0004", "data-0005", "details-0004", "details-0005"]
    press(tab, "ArrowLeft", "023999.jpg")
    assert tab.evaluate("location.hash") == "#page=4&image=24000"


def test_a_filter_of_many_images_reads_all_data(tab: Tab, many: Path) -> None:
    tab.open(many, "#score=0.15")
    assert tabs(tab)["With detections"] == 30_000
    assert len(data_requests(tab)) == 7  # and the details of those that are shown
    give(tab, "#search", "029")
    assert tabs(tab)["With detections"] == sum("029" in f"{number:06d}" for number in range(30_000))


def test_data_that_is_away_is_said(tab: Tab, tmp_path: Path) -> None:
    path = page_of(local_spec(tmp_path / "photos"), [found("a.png", (0, 0.9, BOX))])
    (script,) = (path.parent / "report").glob("data-*")
    script.unlink()
    tab.call("Page.navigate", url=path.as_uri())
    tab.wait_for("document.getElementById('trouble')?.textContent.includes('cannot be read')")


# -- held against something --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def against_truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of four images held against labels: one right, one wrong, one missed, one failed."""
    root = tmp_path_factory.mktemp("truth") / "photos"
    spec = local_spec(root)
    far = (120.0, 20.0, 180.0, 70.0)
    records = [
        found("1.png", (0, 0.9, BOX), (1, 0.6, far)),
        found("2.png", (0, 0.4, BOX)),
        found("3.png"),
        failed("4.png"),
    ]
    with_images(root, [record.image for record in records])
    true = TrueObject(0, xywh(BOX))
    truth = coco(root.parent / "coco.json", {"1.png": [true], "2.png": [true], "3.png": [true], "4.png": []})
    folder = report(spec, records)
    report_again(folder, spec, reference=Evaluation(open_labels(truth, LABELS), HOSTILE, 2500))
    return Path(folder.uri, "report.html")


def figures(tab: Tab) -> dict[str, str]:
    rows: list[list[str]] = tab.evaluate(
        "[...document.querySelectorAll('#figures > div')].map(row => [...row.children].map(cell => cell.textContent))"
    )
    return {name: value for name, value in rows}


def test_false_positives_and_misses_are_tabs_that_follow_the_threshold(tab: Tab, against_truth: Path) -> None:
    tab.open(against_truth, "#tab=extra")
    assert shown(tab) == ["1.png"]
    assert tabs(tab) | {"False positives": 1, "Misses": 1} == tabs(tab)
    assert figures(tab) | {"Precision": "0.667", "Recall": "0.667", "Right": "2"} == figures(tab)
    chips = "[...document.querySelectorAll('.chip')].map(chip => chip.textContent)"
    assert tab.evaluate(chips) == ["✗ dog 0.60", "✓ cat 0.90"]
    give(tab, "#score", 50)
    click(tab, "#tabs button:nth-child(5)")
    assert shown(tab) == ["2.png", "3.png"]
    assert tab.evaluate(chips) == ["missed cat", "cat 0.40", "missed cat"]
    assert figures(tab) | {"Precision": "0.500", "Recall": "0.333", "Misses": "2"} == figures(tab)
    label = "document.querySelector('.open').getAttribute('aria-label')"
    assert tab.evaluate(label) == "2.png: nearly 1 cat; misses: 1 cat"


def test_what_is_missed_is_drawn_and_the_truth_on_demand(tab: Tab, against_truth: Path) -> None:
    tab.open(against_truth, "#tab=all&image=3")
    tab.wait(lambda: viewer_name(tab) == "3.png", "the image of the address")
    drawn = "document.querySelectorAll('#layer .over.other').length"
    verdicts = "[...document.querySelectorAll('#viewer tbody tr')].map(row => row.lastChild.textContent)"
    assert (tab.evaluate(drawn), tab.evaluate(verdicts)) == (1, ["missed"])
    tab.open(against_truth, "#image=1")
    tab.wait(lambda: viewer_name(tab) == "1.png", "the image of the address")
    assert (tab.evaluate(drawn), tab.evaluate(verdicts)) == (0, ["right", "wrong"])
    tab.key("t")
    assert tab.evaluate(drawn) == 1


def test_curves_classes_and_the_confusion_are_shown(tab: Tab, against_truth: Path) -> None:
    tab.open(against_truth)
    cells = "[...document.querySelectorAll('{} tr')].map(row => [...row.children].map(cell => cell.textContent))"
    assert tab.evaluate(cells.format("#reference-classes")) == [["cat", "3", "0.663", "0.663"]]
    assert tab.evaluate(cells.format("#confusion")) == [
        ["", "cat", "dog", "missed"],
        ["cat", "2", "", "1"],
        ["dog", "", "", ""],
        ["nothing", "", "1", ""],
    ]
    click(tab, "#reference-classes button")
    assert tab.evaluate("document.getElementById('curve-of-one').getAttribute('points').split(' ').length") == 101
    assert tab.errors == []


def test_what_appeared_went_and_moved_are_tabs(tab: Tab, tmp_path: Path) -> None:
    near, names = (20.0, 20.0, 120.0, 70.0), ["1.png", "2.png", "3.png", "4.png"]
    with_images(tmp_path / "photos", names)
    spec, before = local_spec(tmp_path / "photos"), other_spec(tmp_path)
    old = report(
        before, [found(names[0]), found(names[1], (0, 0.9, BOX)), found(names[2], (0, 0.9, BOX)), found(names[3])]
    )
    old.storage.write(JOB, before.model_dump_json().encode())
    records = [found(names[0], (1, 0.9, BOX)), found(names[1]), found(names[2], (0, 0.9, near)), found(names[3])]
    folder = report(spec, records)
    report_again(folder, spec, reference=OtherJob(old, spec))
    seen = {}
    for word in ("extra", "missing", "moved"):
        tab.open(Path(folder.uri, "report.html"), f"#tab={word}")
        seen[word] = (shown(tab), tab.evaluate("document.querySelector('.chip').textContent"))
    assert seen == {
        "extra": (["1.png"], "+ dog 0.90"),
        "missing": (["2.png"], "\N{MINUS SIGN} cat"),
        "moved": (["3.png"], "~ cat 0.90"),
    }
    assert figures(tab) == {"The same": "0", "Appeared": "1", "Went": "1", "Moved": "1"}


def other_spec(tmp_path: Path) -> JobSpec:
    return local_spec(tmp_path / "photos").model_copy(update={"job_id": "photos-0ld"})


# -- for everybody -----------------------------------------------------------------------------------------------------

_CONTRASTS = """
(() => {
  const channels = colour => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = colour => {
    const [r, g, b] = channels(colour).map(value => value / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = node => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (channels(colour)[3] === 255) return colour;
    }
    return getComputedStyle(document.documentElement).backgroundColor;
  };
  const poor = [];
  for (const node of document.querySelectorAll('body *')) {
    const text = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
    if (!text || !node.checkVisibility({opacityProperty: true}) || node.disabled || node.closest('script, style, svg, noscript')) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) poor.push([node.outerHTML.slice(0, 90), ((a + .05) / (b + .05)).toFixed(2)]);
  }
  return poor;
})()
"""  # noqa: E501


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("fragment", ["#tab=all", "#tab=all&image=1", "#tab=failed"])
def test_texts_stand_out_from_their_ground(tab: Tab, page: Path, fragment: str, dark: bool) -> None:
    tab.look(1440, 900, dark=dark)
    tab.open(page, fragment)
    assert tab.evaluate(_CONTRASTS) == []


@pytest.mark.parametrize(
    ("fragment", "width", "dark"),
    [("#tab=all", 1440, False), ("#tab=missing", 390, True), ("#image=1", 390, False), ("#image=1", 1440, True)],
)
def test_axe_core_finds_no_fault(tab: Tab, against_truth: Path, fragment: str, width: int, dark: bool) -> None:
    axe = find_axe()
    if axe is None:
        pytest.skip("axe-core is not here: make setup brings it, or AXE_PATH names axe.min.js")
    tab.look(width, 844, dark=dark)
    tab.open(against_truth, fragment)
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    tab.evaluate(f"{axe.read_text('utf-8')}; 0")
    faults = tab.evaluate(
        "axe.run(document, {preload: false}).then(found => { rules = found.passes.length; return found.violations"
        ".flatMap(({id, impact, nodes}) => nodes.map(node => [id, impact, node.html, node.failureSummary])); })"
    )
    assert faults == []
    assert tab.evaluate("rules") > 20  # were kept


@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("fragment", ["#tab=all", "#tab=all&image=1"])
def test_nothing_is_wider_than_the_screen(tab: Tab, page: Path, width: int, fragment: str) -> None:
    tab.look(width, 844)
    tab.open(page, fragment)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_a_phone_shows_images_first_and_filters_when_asked(tab: Tab, page: Path) -> None:
    tab.look(390, 844)
    tab.open(page)
    assert tab.evaluate("document.getElementById('filters').checkVisibility()") is False
    assert tab.evaluate("document.querySelector('.card').getBoundingClientRect().top") < 500
    click(tab, "#show-filters")
    assert tab.evaluate("document.getElementById('filters').checkVisibility()") is True


def test_whatever_is_operated_has_a_name(tab: Tab, page: Path) -> None:
    tab.open(page, "#tab=all&image=1")
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    operated = {
        "button",
        "checkbox",
        "slider",
        "spinbutton",
        "searchbox",
        "combobox",
        "link",
        "image",
        "dialog",
        "navigation",
    }
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in operated and not node.get("name", {}).get("value")
    ]
    assert nameless == []
