"""What bounds files to results where the GPU decodes: its decoder alone, and with the engine behind it."""

from pathlib import Path

import numpy as np

from scripts.gpu_check.bare import in_threads
from scripts.gpu_check.rows import NotRun
from trtjob.engines.spec import ModelSpec
from trtjob.imaging.gpu.decoder import EncodedImage
from trtjob.imaging.gpu_jpeg import gpu_jpeg_hw
from trtjob.imaging.resampling import resampling
from trtjob.worker.pipeline.engine_side import Pipeline


def bounds(pipeline: Pipeline, folder: Path, seconds: float) -> tuple[float, float]:
    """Return images/s of a pipeline's decoder, and of decoder and engine, called in turn by as many threads as there
    are batches under way.

    folder: JPEG files of one kind; the pipeline has decoded before, and does nothing now. Raises NotRun.
    """
    decoder, engine, batch = pipeline.batches.decoder, pipeline.engine, pipeline.limits.batch
    if decoder is None:
        raise NotRun("nothing decodes here")
    images = _encoded(pipeline, folder, batch)
    callers = range(pipeline.batches.at_once)

    def decode() -> None:
        with decoder.decoded(images):
            pass

    def answer(caller: int) -> None:
        with decoder.decoded(images) as found:
            inputs = [image for image in found if image is not None]
            engine.answer(inputs, pipeline.ring.answers[caller * batch :][: len(inputs)])

    alone = in_threads([decode] * len(callers), batch, seconds)
    both = in_threads([lambda caller=caller: answer(caller) for caller in callers], batch, seconds)  # type: ignore[misc]
    return alone, both


def _encoded(pipeline: Pipeline, folder: Path, count: int) -> list[EncodedImage]:
    return [encoded(path.read_bytes(), pipeline.engine.spec) for path in sorted(folder.iterdir())[:count]]


def encoded(data: bytes, spec: ModelSpec) -> EncodedImage:
    """Return a file as a pipeline would have the GPU decode it. Raises NotRun where the CPU would."""
    size = gpu_jpeg_hw(data)
    how = resampling(size, spec, spec.resize) if size else None
    if how is None:
        raise NotRun("the pictures are none for a GPU")
    return EncodedImage(np.frombuffer(data, np.uint8), how[0])
