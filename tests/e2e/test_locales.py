"""A file has the same name in the results whatever the locale of the node that read it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from chaos.valkey import Valkey
from conftest import missing_service
from terminal import Terminal, job_folder, records, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NAMES = [
    *("ä.jpg", "Ordner ü/ß ñ.jpg", "plain.jpg", "中文.jpg"),
    *map(os.fsdecode, (b"latin-\xe4.jpg", b"\xff\xc3.jpg")),
]
C_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UTF8 = {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}


@pytest.fixture
def photos(scenes: list[Path], tmp_path: Path) -> Path:
    """A folder of images with names of every kind."""
    for name, scene in zip(NAMES, scenes, strict=False):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scene, path)
    return tmp_path / "photos"


@pytest.fixture
def latin_1(tmp_path: Path) -> dict[str, str]:
    """An environment whose locale is Latin-1, which few machines have ready."""
    folder = tmp_path / "locales"
    folder.mkdir()
    command = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE.ISO-8859-1")]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        missing_service("localedef cannot make a Latin-1 locale here")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.ISO-8859-1", "LANG": "de_DE.ISO-8859-1", "PYTHONUTF8": "0"}


def run(
    terminal: Terminal, source: Path, digits: Path, output: Path, environment: dict[str, str], *options: str | Path
) -> Path:
    """Run a job. Returns its folder."""
    outcome = terminal.run("run", source, "--model", digits, "-o", output, *options, timeout_s=120, **environment)
    assert outcome.code == 0, outcome.err
    return job_folder(output)


def names(folder: Path) -> list[str]:
    return sorted(os.fsdecode(name) for name in records(folder))


def annotated(folder: Path) -> set[str]:
    root = folder / "annotated"
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_names_are_the_same_in_every_locale_in_a_folder_in_a_list_and_in_a_fleet_of_several(
    terminal: Terminal, photos: Path, digits: Path, tmp_path: Path, latin_1: dict[str, str]
) -> None:
    usual = run(terminal, photos, digits, tmp_path / "usual", UTF8)
    assert names(usual) == sorted(NAMES)
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"".join(os.fsencode(photos / name) + b"\n" for name in NAMES))
    others = {
        "a fleet": run_by_a_fleet(terminal, photos, digits, tmp_path, latin_1),
        "c": run(terminal, photos, digits, tmp_path / "c", C_LOCALE),
        "a list": run(terminal, listed, digits, tmp_path / "list", latin_1, "--root", photos),
    }
    for name, other in others.items():
        assert (other / "results.jsonl").read_bytes() == (usual / "results.jsonl").read_bytes(), name
        assert annotated(other) == annotated(usual) == set(NAMES), name


def run_by_a_fleet(terminal: Terminal, photos: Path, digits: Path, tmp_path: Path, latin_1: dict[str, str]) -> Path:
    """Run a job by three workers, each in another locale. Returns its folder."""
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(terminal.environment, "TRTJOB_REDIS_URL", valkey.url)
            for environment in (C_LOCALE, UTF8, latin_1):
                terminal.start("worker", "--threads", "1", **environment)
            wait_for(lambda: len(terminal.status()["workers"]) == 3, "three workers", 120)
            options = ("--model", digits, "-o", tmp_path / "fleet", "--shard-size", "1", "--wait")
            outcome = terminal.run("submit", photos, *options, timeout_s=120, **UTF8)
            assert outcome.code == 0, outcome.err
    finally:
        terminal.end_all()
        valkey.end()
    return job_folder(tmp_path / "fleet")
