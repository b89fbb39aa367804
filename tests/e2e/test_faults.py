"""Rubbish in, kills in the middle: each image ends in exactly one record, and the others are done."""

import os
import shutil
import signal
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from poison import crashing_decoder, make_poison, put_into_every_process
from terminal import Terminal, job_folder, records, wait_for, worker_pids


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.slow
def test_every_kind_of_bad_file_has_its_record_and_the_others_are_done(
    terminal: Terminal, digits: Path, scenes: list[Path], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    good = scenes[0].read_bytes()
    (photos / "good.jpg").write_bytes(good)
    (photos / "truncated.jpg").write_bytes(good[: len(good) // 2])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.jpg").write_text("no image at all\n")
    (photos / "zero.png").write_bytes(_png_header(0, 0))
    (photos / "huge.png").write_bytes(_png_header(60_000, 60_000))
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    os.mkfifo(photos / "pipe.jpg")
    (photos / "folder.jpg").mkdir()
    (photos / "folder.jpg" / "inside.jpg").write_bytes(good)
    outcome = terminal.here("run", photos, "--model", digits, "-o", tmp_path / "out")
    assert outcome.code == 1, outcome.err
    found = records(job_folder(tmp_path / "out"))
    kinds = {image: row["error"]["kind"] if "error" in row else "ok" for image, row in found.items()}
    assert kinds == {
        "good.jpg": "ok",
        "folder.jpg/inside.jpg": "ok",
        "truncated.jpg": "decode",
        "empty.jpg": "decode",
        "text.jpg": "decode",
        "zero.png": "decode",
        "huge.png": "too_large",
        "gone.jpg": "missing",
        "pipe.jpg": "read",
    }


@pytest.mark.slow
def test_odd_names_keep_their_place_and_nothing_leaves_the_output(
    terminal: Terminal, digits: Path, scenes: list[Path], tmp_path: Path
) -> None:
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    names = [
        "with space.jpg",
        'quote".jpg',
        "apostrophe'.jpg",
        "новый/привет.jpg",
        "日本.png.jpg",
        "new\nline.jpg",
        f"{'x' * 251}.jpg",
        "a/same.jpg",
        "b/same.jpg",
        "-dash.jpg",
        "per%cent#.jpg",
    ]
    for name in names:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes[0], photos / name)
    elsewhere.mkdir()
    shutil.copy(scenes[1], elsewhere / "linked.jpg")
    (photos / "loop").symlink_to(photos)
    (photos / "outside").symlink_to(elsewhere)
    (photos / "link.jpg").symlink_to(elsewhere / "linked.jpg")
    raw = os.fsencode(photos) + b"/latin\xe9.jpg"
    shutil.copy(scenes[0], os.fsdecode(raw))
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts and "home" not in path.parts}
    outcome = terminal.here("run", photos, "--model", digits, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    expected = {*names, "outside/linked.jpg", "link.jpg", os.fsdecode(b"latin\xe9.jpg")}
    folder = job_folder(tmp_path / "out")
    assert set(records(folder)) == expected
    annotated = {str(p.relative_to(folder / "annotated")) for p in (folder / "annotated").rglob("*") if p.is_file()}
    assert annotated == expected
    after = {p for p in tmp_path.rglob("*") if "out" not in p.parts and "home" not in p.parts and "user" not in p.parts}
    assert after - before == set()


@pytest.mark.slow
@pytest.mark.parametrize("count", [pytest.param(1, id="one", marks=pytest.mark.chaos), pytest.param(2, id="two")])
def test_an_image_that_kills_its_worker_is_set_aside_and_the_shard_finishes(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path, count: int
) -> None:
    terminal.environment |= put_into_every_process(tmp_path / "site", crashing_decoder("SIGSEGV"))
    folder = photos(40)
    poisoned = [f"{'abc'[index % 3]}/{index:04d}.jpg" for index in (7, 23)[:count]]
    for name in poisoned:
        make_poison(folder / name)
    outcome = terminal.here("run", folder, "--model", digits, "-o", tmp_path / "out")
    assert outcome.code == 1, outcome.err
    found = records(job_folder(tmp_path / "out"))
    assert len(found) == 40
    failed = {image: row["error"] for image, row in found.items() if "error" in row}
    assert sorted(failed) == sorted(poisoned)
    assert {error["kind"] for error in failed.values()} == {"crashed"}
    assert all("SIGSEGV" in error["message"] for error in failed.values())


def _kill_worker_of(run: subprocess.Popen[str]) -> None:
    """Kill a command's worker process and wait until the command has started another, or has ended."""
    pids = wait_for(lambda: run.poll() is None and worker_pids(run.pid), "a worker process")
    os.kill(pids[0], signal.SIGKILL)
    wait_for(lambda: run.poll() is not None or worker_pids(run.pid) not in ([], pids), "another worker")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_results_are_the_same_bytes_whatever_happens_on_the_way(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path, slowly: dict[str, str]
) -> None:
    folder = photos(40)
    (folder / "a" / "broken.jpg").write_bytes(b"rubbish")
    usual: list[str | Path] = ["run", folder, "--model", digits]
    common: list[str | Path] = [*usual, "--annotate", "none"]

    def results(name: str) -> bytes:
        return (job_folder(tmp_path / name) / "results.jsonl").read_bytes()

    assert terminal.here(*usual, "-o", tmp_path / "calm").code == 1
    variants: dict[str, list[str]] = {
        "one-thread": ["--threads", "1", "--shard-size", "7"],
        "four-threads": ["--threads", "4", "--shard-size", "15", "--batch", "3", "--image-processes", "3"],
    }
    for name, options in variants.items():
        assert terminal.here(*common, "-o", tmp_path / name, *options).code == 1
        assert results(name) == results("calm"), name

    killed = terminal.start(*common, "-o", tmp_path / "killed", "--shard-size", "8", **slowly)
    wait_for(lambda: list((tmp_path / "killed").glob("*/shards/*.json")), "a commit")
    for _ in range(2):
        _kill_worker_of(killed)
    out, err = killed.communicate(timeout=60)
    assert killed.returncode == 1, err + out
    assert results("killed") == results("calm")

    terminal.start("worker", "--processes", "2", "--threads", "1")  # in another terminal
    submitted = terminal.here("submit", *usual[1:], "-o", tmp_path / "two", "--shard-size", "9", "--wait")
    assert submitted.code == 1, submitted.err
    assert results("two") == results("calm")
    calm, two = job_folder(tmp_path / "calm"), job_folder(tmp_path / "two")
    names = sorted(p.relative_to(calm) for p in (calm / "annotated").rglob("*.jpg"))
    assert len(names) == 40
    assert all((two / name).read_bytes() == (calm / name).read_bytes() for name in names)
