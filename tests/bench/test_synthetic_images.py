"""Made-up pictures: the same every time, and as heavy as photographs."""

from pathlib import Path

import cv2
import pytest

from trtjob.bench.synthetic_images import SIZES, make_picture, write_pictures


def test_the_same_seed_gives_the_same_picture() -> None:
    assert (make_picture("640x480", 1) == make_picture("640x480", 1)).all()
    assert (make_picture("640x480", 1) != make_picture("640x480", 2)).any()


@pytest.mark.parametrize(("name", "kib"), [("640x480", (40, 120)), ("1920x1080", (200, 500))])
def test_a_file_has_the_size_that_its_name_says_and_the_weight_of_a_photograph(
    tmp_path: Path, name: str, kib: tuple[int, int]
) -> None:
    (file,) = write_pictures(tmp_path / "pictures", name, 1).iterdir()
    image = cv2.imread(str(file))
    assert image is not None
    assert image.shape[:2] == SIZES[name]
    assert kib[0] * 1024 < file.stat().st_size < kib[1] * 1024


def test_many_files_are_a_dozen_pictures_under_many_names(tmp_path: Path) -> None:
    files = sorted(write_pictures(tmp_path / "pictures", "640x480", 14).iterdir())
    assert len(files) == 14
    assert files[13].read_bytes() == files[1].read_bytes()
    assert len({file.read_bytes() for file in files}) == 12
