"""Files that the engine process decodes, as it does on a GPU; here by a decoder that is nearly the kernel's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from imaging.resampled import resampled
from worker.pipeline.lines import Results, job, run
from worker.plain_engine import PlainEngine, write_images

from scripts.gpu_check.decoding import bounds
from trtjob.engines.protocol import AnyImage
from trtjob.errors import EngineError
from trtjob.imaging.gpu.encoded import EncodedImages
from trtjob.jobs.spec import Annotate, JobSpec
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.limits import PipelineLimits


class HostDecoder:
    """Decodes with OpenCV, and resizes as the kernel does. refused: how many files it says it cannot decode."""

    title = "OpenCV"

    def __init__(self, engine: PlainEngine, refused: int = 0) -> None:
        self.engine, self.refused = engine, refused
        self.files = 0
        self.wanted = 0  # pixels, on the host
        self.most = 0  # at once
        self.busy_s = 0.0
        self.is_closed = False

    @contextmanager
    def decoded(self, images: EncodedImages) -> Iterator[list[AnyImage | None]]:
        found: list[AnyImage | None] = []
        self.most = max(self.most, len(images))
        for number in range(len(images)):
            self.files += 1
            if self.refused:
                self.refused -= 1
                found.append(None)
                continue
            pixels = np.asarray(cv2.imdecode(images.file(number), cv2.IMREAD_COLOR), np.uint8)
            if (wanted := images.pixels(number)) is not None:
                self.wanted += 1
                wanted[...] = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
            found.append(resampled(pixels, images.resampling(number), self.engine.spec))
        yield found

    def close(self) -> None:
        self.is_closed = True


def pipeline_with(decoder: HostDecoder, *, file_bytes: int = 1 << 16) -> Pipeline:
    limits = PipelineLimits(
        2, decoder.engine.max_batch, 8, max_pixels=10_000, memory_bytes=64 << 20, file_bytes=file_bytes
    )
    return Pipeline(decoder.engine, limits, open_decoder=lambda: decoder)


def decoded_on_gpu(spec: JobSpec) -> JobSpec:
    return spec.model_copy(update={"options": spec.options.model_copy(update={"decode": "gpu"})})


def jpegs(folder: Path, count: int) -> list[str]:
    """Write JPEGs, beside PNGs as `write_images` does. Returns their keys."""
    folder.mkdir(exist_ok=True)
    keys = [f"{number:03d}.jpg" for number in range(count)]
    for number, key in enumerate(keys):
        cv2.imwrite(str(folder / key), np.full((40, 48, 3), 50 + 20 * number, np.uint8))
    return keys


def by_key(results: Results) -> dict[str, object]:
    return {record.image: (record.sha256, record.width, record.detections) for record in results.records}


@pytest.fixture
def engine() -> PlainEngine:
    return PlainEngine(max_batch=4, concurrency=2)


@pytest.mark.slow
@pytest.mark.parametrize("refused", [0, 3, 100])
def test_files_and_pixels_go_through_one_pipeline(tmp_path: Path, engine: PlainEngine, refused: int) -> None:
    photos = tmp_path / "photos"
    keys = jpegs(photos, 8) + write_images(photos, 5)
    spec = job(photos, tmp_path / "out")
    decoder = HostDecoder(engine, refused)
    pipeline = pipeline_with(decoder)
    try:
        on_cpu = run(pipeline, spec, keys)
        assert decoder.files == 0
        on_gpu = run(pipeline, decoded_on_gpu(spec), keys)
    finally:
        pipeline.close()
    assert decoder.files == 8  # each is offered once
    assert on_gpu.failures == {}
    assert by_key(on_gpu) == by_key(on_cpu)
    assert decoder.is_closed


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_a_decoder_gets_no_more_at_once_than_the_engine(tmp_path: Path, batch: int) -> None:
    photos = tmp_path / "photos"
    keys = jpegs(photos, 9)
    decoder = HostDecoder(PlainEngine(max_batch=batch), refused=2)
    pipeline = pipeline_with(decoder)
    try:
        results = run(pipeline, decoded_on_gpu(job(photos, tmp_path / "out")), keys)
    finally:
        pipeline.close()
    assert results.failures == {}
    assert sorted(record.image for record in results.records) == keys
    assert 1 <= decoder.most <= batch


@pytest.mark.slow
@pytest.mark.parametrize("annotate", [Annotate.ALL, Annotate.HITS])
@pytest.mark.parametrize(("file_bytes", "wanted"), [(1 << 16, 3), (6_000, 0)], ids=["pixels", "no room for pixels"])
def test_copies_are_drawn_on_the_pixels_of_the_gpu_where_these_find_room(
    tmp_path: Path, engine: PlainEngine, annotate: Annotate, file_bytes: int, wanted: int
) -> None:
    photos = tmp_path / "photos"
    keys = jpegs(photos, 4)
    copies = {}
    for name in ("cpu", "gpu"):
        spec = job(photos, tmp_path / name, annotate)
        decoder = HostDecoder(engine, refused=1)
        pipeline = pipeline_with(decoder, file_bytes=file_bytes)
        try:
            run(pipeline, decoded_on_gpu(spec) if name == "gpu" else spec, keys)
        finally:
            pipeline.close()
        folder = Path(spec.uri) / "annotated"
        copies[name] = {path.name: path.read_bytes() for path in folder.glob("*")}
    assert copies["gpu"] == copies["cpu"]
    assert copies["gpu"]
    assert decoder.wanted == wanted


@pytest.mark.parametrize(
    ("write", "count"), [(write_images, 40), (jpegs, 2)], ids=["what the GPU does not decode", "a few images"]
)
def test_images_are_for_all_image_processes(
    tmp_path: Path, engine: PlainEngine, write: Callable[[Path, int], list[str]], count: int
) -> None:
    photos = tmp_path / "photos"
    keys = write(photos, count)
    pipeline = pipeline_with(HostDecoder(engine))
    try:
        run(pipeline, decoded_on_gpu(job(photos, tmp_path / "out", Annotate.NONE)), keys)
        steps = [board.steps for board in pipeline.ring.boards]
    finally:
        pipeline.close()
    assert all(steps), steps


def test_decoder_and_engine_are_measured_without_what_is_between_them(tmp_path: Path, engine: PlainEngine) -> None:
    photos = tmp_path / "photos"
    keys = jpegs(photos, 4)
    decoder = HostDecoder(engine)
    pipeline = pipeline_with(decoder)
    try:
        run(pipeline, decoded_on_gpu(job(photos, tmp_path / "out")), keys)
        decoded, both = bounds(pipeline, photos, 0.05)
    finally:
        pipeline.close()
    assert decoded > 0
    assert both > 0


def test_a_file_that_finds_no_room_is_for_the_cpu(tmp_path: Path, engine: PlainEngine) -> None:
    photos = tmp_path / "photos"
    keys = jpegs(photos, 3)
    decoder = HostDecoder(engine)
    pipeline = pipeline_with(decoder, file_bytes=100)
    try:
        assert len(run(pipeline, decoded_on_gpu(job(photos, tmp_path / "out")), keys).outcomes) == 3
    finally:
        pipeline.close()
    assert decoder.files == 0


def test_where_nothing_decodes_the_job_says_so(tmp_path: Path, engine: PlainEngine) -> None:
    def none() -> HostDecoder:
        raise EngineError("no GPU here")

    photos = tmp_path / "photos"
    keys = jpegs(photos, 1)
    pipeline = Pipeline(engine, PipelineLimits(1, 4, 8), open_decoder=none)
    try:
        with pytest.raises(EngineError, match="no GPU here"):
            run(pipeline, decoded_on_gpu(job(photos, tmp_path / "out")), keys)
        assert len(run(pipeline, job(photos, tmp_path / "out"), keys).outcomes) == 1
    finally:
        pipeline.close()
