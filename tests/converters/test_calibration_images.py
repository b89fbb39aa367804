import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from engines import tiny

from trtjob.converters.calibration_images import GENERATED, Samples, chosen_images, content_hash, generated_image
from trtjob.engines.spec import ResizeMode, Task
from trtjob.errors import ConversionError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.resize import prepare

SPEC = tiny.spec_of(Task.DETECT)


def write_image(path: Path, seed: int = 0, hw: tuple[int, int] = (9, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return path


# --- which images


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(1, [0], id="one"),
        pytest.param(3, [0, 3, 6], id="every third"),
        pytest.param(4, [0, 2, 5, 7], id="uneven"),
        pytest.param(10, list(range(10)), id="all"),
        pytest.param(99, list(range(10)), id="more than there are"),
    ],
)
def test_the_images_are_spaced_evenly_over_the_folder(tmp_path: Path, count: int, expected: list[int]) -> None:
    paths = [write_image(tmp_path / f"{index:02d}.png") for index in range(10)]
    assert chosen_images(tmp_path, count) == tuple(paths[index] for index in expected)


def test_the_folders_inside_count_and_other_files_do_not(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / "a" / "1.png"), write_image(tmp_path / "b.png")]
    (tmp_path / "notes.txt").write_text("no image")
    assert chosen_images(tmp_path, 128) == tuple(paths)


def test_a_folder_named_like_an_image_is_passed_over(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    assert chosen_images(tmp_path, 128) == (image,)


@pytest.mark.parametrize("name", ["missing", "file.png"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "file.png")
    with pytest.raises(ConversionError, match=r"--calibrate '.*': there is no such folder"):
        chosen_images(tmp_path / name, 1)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param([], "there are no images in it. Name a folder of JPEG", id="empty"),
        pytest.param(["a.txt", "b.txt"], "there are no images in it, only 2 other files. Name", id="other files"),
    ],
)
def test_a_folder_without_images_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).write_text("no image")
    with pytest.raises(ConversionError, match=message):
        chosen_images(tmp_path, 1)


# --- their hash


def test_the_hash_depends_on_the_content_and_not_on_the_place(tmp_path: Path) -> None:
    first = write_image(tmp_path / "a" / "1.png")
    second = write_image(tmp_path / "b" / "2.png")
    other = write_image(tmp_path / "b" / "3.png", seed=1)
    assert content_hash((first,)) == content_hash((second,)) != content_hash((other,))


def test_the_hash_depends_on_the_order(tmp_path: Path) -> None:
    paths = tuple(write_image(tmp_path / f"{seed}.png", seed) for seed in range(2))
    assert content_hash(paths) != content_hash(paths[::-1])


def test_a_file_that_has_gone_has_a_hash_too(tmp_path: Path) -> None:
    assert content_hash((tmp_path / "gone.png",)) != content_hash(())


# --- what a model gets


@pytest.mark.parametrize("mode", ResizeMode)
def test_images_are_prepared_as_the_pipeline_does(tmp_path: Path, mode: ResizeMode) -> None:
    spec = SPEC.model_copy(update={"resize": mode, "color": "bgr"})
    path = write_image(tmp_path / "a.png")
    expected, _ = prepare(decode_image(path.read_bytes(), max_pixels=1000), spec, mode)
    (found,) = Samples((path,), spec)
    np.testing.assert_array_equal(found, expected)


def test_images_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    paths = tuple(write_image(tmp_path / f"{seed}.png", seed) for seed in range(2))
    images = iter(Samples(paths, SPEC))
    next(images)
    paths[1].unlink()
    assert list(images) == []


def test_they_can_be_iterated_over_again(tmp_path: Path) -> None:
    samples = Samples(tuple(write_image(tmp_path / f"{seed}.png", seed) for seed in range(3)), SPEC)
    np.testing.assert_array_equal(list(samples), list(samples))


def test_broken_images_are_left_out_and_named(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{seed}.png", seed) for seed in range(5)]
    paths[1].write_bytes(b"")
    paths[3].write_bytes(paths[3].read_bytes()[:60])
    samples = Samples(tuple(paths), SPEC)
    assert [len(list(samples)), len(list(samples))] == [3, 3]
    (note,) = samples.notes
    assert note.startswith("2 of 5 images of the folder are left out, being of no use: '")
    assert f"'{paths[1]}': the file is empty" in note
    assert str(paths[3]) in note
    assert (len(samples), samples.description) == (3, "3 images")


def test_whole_images_need_no_note(tmp_path: Path) -> None:
    samples = Samples((write_image(tmp_path / "a.png"),), SPEC)
    assert len(list(samples)) == 1
    assert samples.notes == ()


def test_where_all_images_are_broken_the_reasons_are_told(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{index}.png" for index in range(2))
    for path in paths:
        path.write_bytes(b"no image")
    with pytest.raises(ConversionError, match=r"none of the 2 images can be used: '.*0\.png': it is not an image"):
        list(Samples(paths, SPEC))


def test_a_file_that_cannot_be_read_is_broken_too(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=os.strerror(2)):
        list(Samples((tmp_path / "gone.png",), SPEC))


# --- generated ones


def test_without_a_folder_there_are_a_few_generated_images() -> None:
    samples = Samples((), SPEC)
    images = list(samples)
    assert (len(images), len(samples), samples.description) == (GENERATED, GENERATED, f"{GENERATED} generated images")
    assert {(image.shape, image.dtype) for image in images} == {((*tiny.HW, 3), np.dtype(np.uint8))}


@pytest.mark.slow
def test_generated_images_differ_and_are_always_the_same() -> None:
    first, second = ([generated_image(index) for index in range(GENERATED)] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len({image.tobytes() for image in first}) == GENERATED


def test_generated_images_use_the_whole_range() -> None:
    values = np.concatenate([generated_image(index).ravel() for index in range(GENERATED)])
    assert (int(values.min()), int(values.max())) == (0, 255)
    assert values.std() > 40
