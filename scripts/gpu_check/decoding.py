"""What bounds files to results where the GPU decodes: its decoder alone, and with the engine behind it."""

from pathlib import Path

from scripts.gpu_check.bare import in_threads
from scripts.gpu_check.rows import NotRun
from trtjob.engines.spec import ModelSpec
from trtjob.imaging.gpu.encoded import EncodedImages
from trtjob.imaging.gpu_jpeg import gpu_jpeg_hw
from trtjob.imaging.resampling import Resampling, resampling
from trtjob.worker.pipeline.engine_side import Pipeline


def bounds(pipeline: Pipeline, folder: Path, seconds: float) -> tuple[float, float]:
    """Return images/s of a pipeline's decoder, and of decoder and engine, called in turn by as many threads as there
    are batches under way.

    folder: JPEG files of one kind; the pipeline has decoded before, and does nothing now. Raises NotRun.
    """
    decoder, engine, batch = pipeline.batches.decoder, pipeline.engine, pipeline.limits.batch
    if decoder is None:
        raise NotRun("nothing decodes here")
    files = [path.read_bytes() for path in sorted(folder.iterdir())[:batch]]
    images = EncodedImages.of([(data, how_resized(data, engine.spec)) for data in files])
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


def how_resized(data: bytes, spec: ModelSpec) -> Resampling:
    """Return how a file comes into a network's input that the GPU decodes. Raises NotRun where the CPU would."""
    size = gpu_jpeg_hw(data)
    how = resampling(size, spec, spec.resize) if size else None
    if how is None:
        raise NotRun("the pictures are none for a GPU")
    return how[0]
