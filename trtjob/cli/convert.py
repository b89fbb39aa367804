"""`trtjob convert`: a foreign model becomes a self-describing ONNX file."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trtjob.api.job_request import wrong_option
from trtjob.api.label_names import file_of_labels
from trtjob.api.progress import open_stages
from trtjob.api.session import open_session
from trtjob.cli.session import start
from trtjob.cli.signals import run_until_stopped
from trtjob.cli.worker_conversion import converted_by_worker
from trtjob.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from trtjob.converters.request import ConversionRequest

EXAMPLE = "Example: trtjob convert yolov4.weights --precision int8 --calibrate photos/ -o yolov4-int8.onnx"

SOURCE, PIXELS, PRECISION, RESULT = "The model", "What its input is", "Precision", "The result"


def _print_families(ctx: typer.Context, is_wanted: bool) -> None:
    if not is_wanted:
        return
    from trtjob.cli.ui.output import print_json
    from trtjob.cli.ui.say import say
    from trtjob.converters.onnx.families import FAMILIES

    if ctx.params.get("json"):
        print_json({"families": [family.document() for family in FAMILIES]})
    else:
        for family in FAMILIES:
            say(family.name, f"    {family.title}", f"    gives {family.gives}", f"    needs {family.needs}")
    raise typer.Exit


def convert(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="Darknet .weights or .backup, Keras .keras or .h5, a TensorFlow SavedModel folder or frozen .pb, or "
            "an .onnx.",
        ),
    ],
    cfg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=SOURCE,
            help="Darknet: the network's .cfg. Default: the one of the same name beside it.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|NAME,NAME",
            rich_help_panel=SOURCE,
            help="The class names: a file with one a line, a .data, .yaml or .json, or the names themselves, such as "
            "no,yes. Default: those in the model, or the .names beside it.",
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=SOURCE,
            help="Keras, for an .h5 of weights alone: the network in keras.applications, such as vgg16. Default: none.",
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=SOURCE,
            help="Keras, with --arch: how many classes it was trained for. Default: 1000.",
        ),
    ] = None,
    graph_input: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="NAME",
            rich_help_panel=SOURCE,
            help="TensorFlow graph, ONNX: the value that takes the image. Default: found by its shape.",
        ),
    ] = None,
    graph_output: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="NAME",
            rich_help_panel=SOURCE,
            help="TensorFlow graph, ONNX, Keras: the value that holds the scores, by name. Default: the one that "
            "nothing reads.",
        ),
    ] = None,
    families: Annotated[
        bool,
        typer.Option(
            "--families",
            callback=_print_families,
            rich_help_panel=SOURCE,
            help="List the families of ONNX detectors that are known, with what each gives and needs, and do no more. "
            "Default: convert.",
        ),
    ] = False,
    family: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=SOURCE,
            help="ONNX detectors that do not say what they are: whose they are; `--families` lists them. Default: "
            "recognised by its outputs.",
        ),
    ] = None,
    boxes: Annotated[
        Literal["xyxy", "xyxyn", "cxcywh", "cxcywhn", "yxyx", "yxyxn"] | None,
        typer.Option(
            metavar="xyxy|cxcywh|yxyx|...n",
            rich_help_panel=SOURCE,
            help="With --family boxes: the numbers of a box, in pixels of the input, or with n as shares of it. "
            "Default: xyxy.",
        ),
    ] = None,
    anchors: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            rich_help_panel=SOURCE,
            help="ONNX detectors whose heads are not decoded: width and height of each anchor, with commas, as the "
            "network's .yaml or .cfg has them, those of the finest head first. Default: those that were published.",
        ),
    ] = None,
    background: Annotated[
        int | None,
        typer.Option(
            min=-1,
            max=0,
            metavar="0|-1",
            rich_help_panel=SOURCE,
            help="With --family boxes: the class that is none, the first (0) or the last (-1). Default: none is.",
        ),
    ] = None,
    allow_unsafe: Annotated[
        bool,
        typer.Option(
            "--allow-unsafe",
            rich_help_panel=SOURCE,
            help="Keras, with --local: run the code that the file carries (Lambda layers). Default: it is refused.",
        ),
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            "--input-shape",
            metavar="WxH|H,W,C",
            rich_help_panel=PIXELS,
            help="The input's size in pixels, such as 608x352, or its shape as Keras writes it. Default: the model's.",
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=RESULT,
            help="Detectors: how many boxes with a class an image may have before overlapping ones are suppressed, the "
            "best by score; up to 3840. Default: 1024.",
        ),
    ] = None,
    resize: Annotated[
        Literal["stretch", "letterbox", "corner", "crop"] | None,
        typer.Option(
            metavar="stretch|letterbox|corner|crop",
            rich_help_panel=PIXELS,
            help="How an image is brought to that size; corner is letterbox with all of its border to the right and "
            "below. Default: as the model's own tools do.",
        ),
    ] = None,
    crop_ratio: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            metavar="RATIO",
            rich_help_panel=PIXELS,
            help="Where images are cropped: the input's side, as a share of what the shorter side is resized to; 0.875 "
            "where 224 are cut out of 256. Default: 1, or as the model's documents say.",
        ),
    ] = None,
    preprocess: Annotated[
        Literal["none", "unit", "caffe", "tf", "torch"] | None,
        typer.Option(
            metavar="none|unit|caffe|tf|torch",
            rich_help_panel=PIXELS,
            help="What the model expects of a pixel: 0 to 255 (none), 0 to 1 (unit), or a mode of keras.applications. "
            "Default: recognised from the model.",
        ),
    ] = None,
    color: Annotated[
        Literal["rgb", "bgr"] | None,
        typer.Option(
            metavar="rgb|bgr",
            rich_help_panel=PIXELS,
            help="The order of the colours that the model takes. Default: as the model or its family says; else rgb.",
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            rich_help_panel=PIXELS,
            help="Instead: what to subtract, of 0 to 255, one number or one a channel with commas. Default: 0.",
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            rich_help_panel=PIXELS,
            help="... and then to divide by. Default: 1.",
        ),
    ] = None,
    scores: Annotated[
        Literal["softmax", "sigmoid", "none"] | None,
        typer.Option(
            metavar="softmax|sigmoid|none",
            rich_help_panel=RESULT,
            help="Classifiers, and --family boxes: what makes scores of the model's output. softmax: one class is "
            "right; sigmoid: each stands for itself; none: they are scores already. Default: recognised, and what "
            "is guessed is said.",
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"],
        typer.Option(
            metavar="fp32|fp16|bf16|int8",
            rich_help_panel=PRECISION,
            show_default=False,
            help="The numbers to compute with. int8 is the fastest on a CPU and needs --calibrate; fp16 and bf16 are "
            "for GPUs. Default: fp32.",
        ),
    ] = "fp32",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            rich_help_panel=PRECISION,
            help="Images like those it will see: they set the ranges of int8, and the result is measured on them. "
            "Default: measured on made-up ones.",
        ),
    ] = None,
    calibrate_images: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=PRECISION,
            show_default=False,
            help="How many of them to use. Default: 128.",
        ),
    ] = 128,
    calibrate_method: Annotated[
        Literal["percentile", "entropy", "minmax"],
        typer.Option(
            metavar="percentile|entropy|minmax",
            rich_help_panel=PRECISION,
            show_default=False,
            help="How the ranges are chosen. Default: percentile.",
        ),
    ] = "percentile",
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            rich_help_panel=PRECISION,
            help="Fail where the result is too far from the original. Default: warn.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            rich_help_panel=RESULT,
            help="Also write the .onnx here. Default: the registry only.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=RESULT, help="The name in the registry. Default: the file's."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            rich_help_panel=RESULT,
            help="Let the name move where it stands for another model. Default: that is refused.",
        ),
    ] = False,
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            rich_help_panel=RESULT,
            help="Convert in this process. Default: a worker converts, for as long as this waits.",
        ),
    ] = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            is_eager=True,  # so that --families knows
            rich_help_panel=RESULT,
            help="Print one JSON document. Default: a table.",
        ),
    ] = False,
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
    return None if path is None else path.expanduser().absolute()


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
