"""`trtjob convert`: a foreign model becomes a self-describing ONNX file."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trtjob.api.job_request import wrong_option
from trtjob.api.label_names import file_of_labels
from trtjob.api.progress import open_stages
from trtjob.api.session import open_session
from trtjob.cli import convert_options as co
from trtjob.cli.session import start
from trtjob.cli.signals import run_until_stopped
from trtjob.cli.worker_conversion import converted_by_worker
from trtjob.errors import ConfigError, ModelError
from trtjob.tilde import expand_tilde

if TYPE_CHECKING:
    from trtjob.converters.request import ConversionRequest

EXAMPLE = "Example: trtjob convert yolov4.weights --precision int8 --calibrate photos/ -o yolov4-int8.onnx"


def convert(
    model: co.ModelArgument,
    cfg: co.Cfg = None,
    labels: co.Labels = None,
    arch: co.Arch = None,
    classes: co.Classes = None,
    graph_input: co.GraphInput = None,
    graph_output: co.GraphOutput = None,
    families: co.Families = False,
    family: co.Family = None,
    boxes: co.Boxes = None,
    anchors: co.Anchors = None,
    background: co.Background = None,
    allow_unsafe: co.AllowUnsafe = False,
    size: co.Size = None,
    candidates: co.Candidates = None,
    resize: co.Resize = None,
    crop_ratio: co.CropRatio = None,
    preprocess: co.Preprocess = None,
    color: co.Color = None,
    mean: co.Mean = None,
    std: co.Std = None,
    scores: co.Scores = None,
    precision: co.Precision = "fp32",
    calibrate: co.Calibrate = None,
    calibrate_images: co.CalibrateImages = 128,
    calibrate_method: co.CalibrateMethod = "percentile",
    strict: co.Strict = False,
    out: co.Out = None,
    name: co.Name = None,
    replace: co.Replace = False,
    local: co.Local = False,
    json: co.Json = False,
) -> None:
    """Convert a model once, register it under a name, and say what it is and how near it is to the original.

    `trtjob run` does this by itself for a model that needs no option.
    """
    from trtjob.cli.models import print_model
    from trtjob.cli.ui.output import print_json

    settings = start()
    request = _request(
        model=_absolute(model),
        cfg=_absolute(cfg),
        labels=_absolute(file_of_labels(labels, settings.models_dir)),
        out=_absolute(out),
        name=name,
        replace=replace,
        arch=arch,
        classes=classes,
        input=graph_input,
        output=graph_output,
        family=family,
        boxes=boxes,
        anchors=_numbers("--anchors", anchors),
        background=background,
        allow_unsafe=allow_unsafe,
        size=size_hw(size),
        candidates=candidates,
        resize=resize,
        crop_ratio=crop_ratio,
        preprocess=preprocess,
        color=color,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        scores=scores,
        precision=precision,
        calibrate=_absolute(calibrate),
        calibrate_images=calibrate_images,
        calibrate_method=calibrate_method,
        strict=strict,
    )
    if allow_unsafe and not local:
        raise ConfigError("--allow-unsafe runs code that the file carries, which no worker does: add --local")
    if local:
        from trtjob.converters.registry import ModelRegistry
        from trtjob.converters.run import convert_model

        with open_stages(request.model.name) as display:
            registered = convert_model(request, registry=ModelRegistry(settings.models_dir), on_progress=display.show)
        document = registered.document()
    else:
        with open_session(settings) as session:
            answer = run_until_stopped(converted_by_worker(session, request))
        if isinstance(answer, int):
            raise typer.Exit(answer)
        document = answer
    print_json(document) if json else print_model(document)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else expand_tilde(path).absolute()


def _request(**fields: Any) -> "ConversionRequest":
    """Return the request. Raises ConfigError for a value that cannot be, ModelError where the model is not there."""
    from pydantic import ValidationError

    from trtjob.converters.request import ConversionRequest
    from trtjob.converters.sources import hint_for, is_model

    try:
        request = ConversionRequest(**fields)
    except ValidationError as err:
        raise wrong_option(err) from err
    # Found here, not by a worker that may never come.
    if not request.model.exists():
        raise ModelError(f"no model file '{request.model}'")
    if not is_model(request.model):
        raise ModelError(f"'{request.model}' cannot be converted: {hint_for(request.model)}")
    return request


def size_hw(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) from `608x352`, width first, or `352,608,3`, as Keras has it."""
    if text is None:
        return None
    if match := re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text):
        return int(match[2]), int(match[1])
    if match := re.fullmatch(r"(\d{1,5}),(\d{1,5})(,[13])?", text):
        return int(match[1]), int(match[2])
    raise ConfigError(f"--size '{text}': expected WIDTHxHEIGHT such as 608x352, or HEIGHT,WIDTH,CHANNELS")


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in re.split(r"[\s,\[\]]+", text.strip(" ,[]")))
    except ValueError as err:
        raise ConfigError(f"{option} '{text}': expected a number, or several with commas: 123.7,116.8,103.9") from err
