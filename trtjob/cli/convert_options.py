"""The arguments and options of `trtjob convert`: what the model is, its input, the precision and the result."""

from pathlib import Path
from typing import Annotated, Literal

import typer

SOURCE, PIXELS, PRECISION, RESULT = "The model", "What its input is", "Precision", "The result"


def print_families(ctx: typer.Context, is_wanted: bool) -> None:
    """List the families of ONNX detectors, and do no more, where that is asked for."""
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


ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="Darknet .weights or .backup, Keras .keras or .h5, a TensorFlow SavedModel folder or frozen .pb, or "
        "an .onnx.",
    ),
]
Cfg = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=SOURCE,
        help="Darknet: the network's .cfg. Default: the one of the same name beside it.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|NAME,NAME",
        rich_help_panel=SOURCE,
        help="The class names: a file with one a line, a .data, .yaml or .json, or the names themselves, such as "
        "no,yes. Default: those in the model, or the .names beside it.",
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=SOURCE,
        help="Keras, for an .h5 of weights alone: the network in keras.applications, such as vgg16. Default: none.",
    ),
]
Classes = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=SOURCE,
        help="Keras, with --arch: how many classes it was trained for. Default: 1000.",
    ),
]
GraphInput = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="NAME",
        rich_help_panel=SOURCE,
        help="TensorFlow graph, ONNX: the value that takes the image. Default: found by its shape.",
    ),
]
GraphOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="NAME",
        rich_help_panel=SOURCE,
        help="TensorFlow graph, ONNX, Keras: the value that holds the scores, by name. Default: the one that "
        "nothing reads.",
    ),
]
Families = Annotated[
    bool,
    typer.Option(
        "--families",
        callback=print_families,
        rich_help_panel=SOURCE,
        help="List the families of ONNX detectors that are known, with what each gives and needs, and do no more. "
        "Default: convert.",
    ),
]
Family = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=SOURCE,
        help="ONNX detectors that do not say what they are: whose they are; `--families` lists them. Default: "
        "recognised by its outputs.",
    ),
]
Boxes = Annotated[
    Literal["xyxy", "xyxyn", "cxcywh", "cxcywhn", "yxyx", "yxyxn"] | None,
    typer.Option(
        metavar="xyxy|cxcywh|yxyx|...n",
        rich_help_panel=SOURCE,
        help="With --family boxes: the numbers of a box, in pixels of the input, or with n as shares of it. "
        "Default: xyxy.",
    ),
]
Anchors = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        rich_help_panel=SOURCE,
        help="ONNX detectors whose heads are not decoded: width and height of each anchor, with commas, as the "
        "network's .yaml or .cfg has them, those of the finest head first. Default: those that were published.",
    ),
]
Background = Annotated[
    int | None,
    typer.Option(
        min=-1,
        max=0,
        metavar="0|-1",
        rich_help_panel=SOURCE,
        help="With --family boxes: the class that is none, the first (0) or the last (-1). Default: none is.",
    ),
]
AllowUnsafe = Annotated[
    bool,
    typer.Option(
        "--allow-unsafe",
        rich_help_panel=SOURCE,
        help="Keras, with --local: run the code that the file carries (Lambda layers). Default: it is refused.",
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        "--input-shape",
        metavar="WxH|H,W,C",
        rich_help_panel=PIXELS,
        help="The input's size in pixels, such as 608x352, or its shape as Keras writes it. Default: the model's.",
    ),
]
Candidates = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=RESULT,
        help="Detectors: how many boxes with a class an image may have before overlapping ones are suppressed, the "
        "best by score; up to 3840. Default: 1024.",
    ),
]
Resize = Annotated[
    Literal["stretch", "letterbox", "corner", "crop"] | None,
    typer.Option(
        metavar="stretch|letterbox|corner|crop",
        rich_help_panel=PIXELS,
        help="How an image is brought to that size; corner is letterbox with all of its border to the right and "
        "below. Default: as the model's own tools do.",
    ),
]
CropRatio = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1,
        metavar="RATIO",
        rich_help_panel=PIXELS,
        help="Where images are cropped: the input's side, as a share of what the shorter side is resized to; 0.875 "
        "where 224 are cut out of 256. Default: 1, or as the model's documents say.",
    ),
]
Preprocess = Annotated[
    Literal["none", "unit", "caffe", "tf", "torch"] | None,
    typer.Option(
        metavar="none|unit|caffe|tf|torch",
        rich_help_panel=PIXELS,
        help="What the model expects of a pixel: 0 to 255 (none), 0 to 1 (unit), or a mode of keras.applications. "
        "Default: recognised from the model.",
    ),
]
Color = Annotated[
    Literal["rgb", "bgr"] | None,
    typer.Option(
        metavar="rgb|bgr",
        rich_help_panel=PIXELS,
        help="The order of the colours that the model takes. Default: as the model or its family says; else rgb.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        rich_help_panel=PIXELS,
        help="Instead: what to subtract, of 0 to 255, one number or one a channel with commas. Default: 0.",
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        rich_help_panel=PIXELS,
        help="... and then to divide by. Default: 1.",
    ),
]
Scores = Annotated[
    Literal["softmax", "sigmoid", "none"] | None,
    typer.Option(
        metavar="softmax|sigmoid|none",
        rich_help_panel=RESULT,
        help="Classifiers, and --family boxes: what makes scores of the model's output. softmax: one class is "
        "right; sigmoid: each stands for itself; none: they are scores already. Default: recognised, and what "
        "is guessed is said.",
    ),
]
Precision = Annotated[
    Literal["fp32", "fp16", "bf16", "int8"],
    typer.Option(
        metavar="fp32|fp16|bf16|int8",
        rich_help_panel=PRECISION,
        show_default=False,
        help="The numbers to compute with. int8 is the fastest on a CPU and needs --calibrate; fp16 and bf16 are "
        "for GPUs. Default: fp32.",
    ),
]
Calibrate = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel=PRECISION,
        help="Images like those it will see: they set the ranges of int8, and the result is measured on them. "
        "Default: measured on made-up ones.",
    ),
]
CalibrateImages = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=PRECISION,
        show_default=False,
        help="How many of them to use. Default: 128.",
    ),
]
CalibrateMethod = Annotated[
    Literal["percentile", "entropy", "minmax"],
    typer.Option(
        metavar="percentile|entropy|minmax",
        rich_help_panel=PRECISION,
        show_default=False,
        help="How the ranges are chosen. Default: percentile.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        rich_help_panel=PRECISION,
        help="Fail where the result is too far from the original. Default: warn.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        rich_help_panel=RESULT,
        help="Also write the .onnx here. Default: the registry only.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", rich_help_panel=RESULT, help="The name in the registry. Default: the file's."),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace",
        rich_help_panel=RESULT,
        help="Let the name move where it stands for another model. Default: that is refused.",
    ),
]
Local = Annotated[
    bool,
    typer.Option(
        "--local",
        rich_help_panel=RESULT,
        help="Convert in this process. Default: a worker converts, for as long as this waits.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        is_eager=True,  # so that --families knows
        rich_help_panel=RESULT,
        help="Print one JSON document. Default: a table.",
    ),
]
