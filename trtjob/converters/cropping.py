"""How much of an image is kept where it is cropped."""

from trtjob.converters.request import ConversionRequest
from trtjob.engines.spec import ResizeMode
from trtjob.errors import ConversionError


def crop_ratio(request: ConversionRequest, mode: ResizeMode, usual: float = 1.0) -> float:
    """Return a spec's `crop_ratio`. mode: how images are brought to the input; usual: what the model's documents say.

    Raises ConversionError where one is asked for, but images are not cropped.
    """
    if request.crop_ratio is None:
        return usual if mode is ResizeMode.CROP and request.resize is None else 1.0
    if mode is not ResizeMode.CROP:
        raise ConversionError(
            f"--crop-ratio {request.crop_ratio:g} is for images that are cropped, but the way to the input of "
            f"'{request.model}' is {mode}. Add --resize crop, or leave --crop-ratio out"
        )
    return request.crop_ratio
