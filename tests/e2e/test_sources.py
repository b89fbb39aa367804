"""All that people name and that systems leave, in one command."""

import json
import shutil
from pathlib import Path

import pytest
from s3_server import S3Server
from terminal import DIGITS, Terminal, job_folder, records
from web_server import web_server

from scripts import messy_folder

pytestmark = pytest.mark.slow
IMAGE = min((DIGITS / "scenes").rglob("*.jpg"))


def put(folder: Path, *names: str) -> Path:
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(IMAGE, target)
    return folder


def test_a_file_a_folder_a_pattern_a_bucket_and_a_list_are_one_job(
    terminal: Terminal, digits: Path, tmp_path: Path, bucket: str, s3: S3Server
) -> None:
    terminal.environment |= s3.environment
    photos = put(tmp_path / "photos", "a.jpg", "sub/b.jpg", "._a.jpg", "@eaDir/a.jpg/THUMB.jpg", ".Trash-1000/c.jpg")
    (photos / "Thumbs.db").write_bytes(b"x")
    put(tmp_path / "cams", "cam1/1.jpg", "cam2/x/2.jpg", "dog/3.jpg")
    (put(tmp_path / "listed", "l.jpg") / "list.txt").write_text("l.jpg\n")
    put(tmp_path / "single", "s.jpg", "other.jpg")
    for key in ("p/o.jpg", "p/__MACOSX/._o.jpg"):
        s3.client().put_object(Bucket=bucket, Key=key, Body=IMAGE.read_bytes())
    sources = ["single/s.jpg", "photos/", "cams/cam*/**/*.jpg", f"s3://{bucket}/p", "listed/list.txt"]
    outcome = terminal.here(
        "run",
        *(f"{tmp_path}/{each}" if ":" not in each else each for each in sources),
        "--model",
        digits,
        "-o",
        tmp_path / "out",
    )
    assert outcome.code == 0, outcome.err
    names = list(records(job_folder(tmp_path / "out")))
    assert names == sorted(
        [
            "single/s.jpg",
            "photos/a.jpg",
            "photos/sub/b.jpg",
            "cams/cam1/1.jpg",
            "cams/cam2/x/2.jpg",
            "p/o.jpg",
            "listed/l.jpg",
        ]
    )
    rows = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert rows["ignored"] == "1 @eaDir, 1 AppleDouble, 1 Thumbs.db, 1 __MACOSX, 1 trash"
    assert all((job_folder(tmp_path / "out") / "annotated" / name).is_file() for name in names)


def test_images_of_a_web_server_are_fetched_and_done_once(terminal: Terminal, digits: Path, tmp_path: Path) -> None:
    terminal.environment["TRTJOB_FETCH_ALLOW_LOCAL"] = "true"
    with web_server() as server:
        for path in ("/a/1.jpg", "/a/2.jpg?size=full"):
            server.put(path, IMAGE.read_bytes(), headers={"ETag": '"1"'})
        table = tmp_path / "images.csv"
        names = ["a/1.jpg", "a/2.jpg?size=full", "gone.jpg"]
        table.write_text("\n".join(["id,url", *(f"{number},{server.url}/{name}" for number, name in enumerate(names))]))
        command: list[str | Path] = ["run", table, "--model", digits, "-o", tmp_path / "out"]
        outcome = terminal.here(*command)
        assert outcome.code == 1, outcome.err
        found = records(job_folder(tmp_path / "out"))
        assert list(found) == names
        assert [record.get("error", {}).get("kind") for record in found.values()] == [None, None, "missing"]
        fetched = [line for line in server.heard if line.startswith("GET")]
        server.put("/gone.jpg", IMAGE.read_bytes())
        server.files["/gone.jpg"] = server.files["/gone.jpg"][-1:]
        assert terminal.here(*command).code == 0
        assert [line for line in server.heard if line.startswith("GET")] == [*fetched, "GET /gone.jpg"]
    refused = terminal.here(*command, TRTJOB_FETCH_ALLOW_LOCAL="false")
    assert refused.code == 2
    assert "no public address" in refused.err


def test_of_a_messy_folder_each_file_is_taken_ignored_or_failed_by_its_kind(
    terminal: Terminal, digits: Path, tmp_path: Path
) -> None:
    """The folder has images of every format, and whatever systems leave beside them."""
    expected = messy_folder.make(tmp_path / "messy")
    outcome = terminal.here("run", tmp_path / "messy", "--model", digits, "-o", tmp_path / "out")
    assert outcome.code == 1, outcome.err
    summary = json.loads((job_folder(tmp_path / "out") / "summary.json").read_text())
    assert messy_folder.Counts(summary["images"], summary["ignored"], summary["failures"]) == expected
    table = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    good, failed = messy_folder.good(), sum(expected.failed.values())
    assert table["images"] == f"{expected.taken} ({len(good)} ok, {failed} failed)"
    for row, counts in (("failed", expected.failed), ("ignored", expected.ignored)):
        assert table[row] == ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts))
    found = records(job_folder(tmp_path / "out"))
    assert [name for name, record in found.items() if "error" not in record] == good
    several = {name: record["pages"] for name, record in found.items() if "pages" in record}
    assert several == dict.fromkeys(messy_folder.SEVERAL, 2)
