"""Models of which only the input matters."""

from trtjob.engines.spec import ModelSpec, Sampling, Task


def model(
    input_hw: tuple[int, int] = (32, 32),
    *,
    sampling: Sampling = Sampling.HALF_PIXEL,
    color: str = "bgr",
    pad_value: int = 127,
) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "task": Task.DETECT,
            "labels": ("cat",),
            "input_hw": input_hw,
            "sampling": sampling,
            "color": color,
            "channels": 1 if color == "gray" else 3,
            "pad_value": pad_value,
        }
    )
