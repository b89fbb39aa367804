"""The options that say how images are looked at, and what of what is found counts."""

from typing import Annotated, Literal

import typer

from trtjob.api.job_request import LEAST_FPS, MOST_EVERY, MOST_FPS
from trtjob.cli.options import DETECTION

Conf = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SCORE",
        rich_help_panel=DETECTION,
        help="Draw and count detections from this score on, 0 to 1. Default: what the model says, usually 0.25.",
    ),
]
MinScore = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SCORE",
        rich_help_panel=DETECTION,
        help="Store detections from this score on, 0 to 1. Default: what the model says, usually 0.05.",
    ),
]
Iou = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        rich_help_panel=DETECTION,
        help="Boxes of a class that overlap more are one object, 0 to 1. Default: what the model says, usually 0.45.",
    ),
]
AgnosticNms = Annotated[
    bool,
    typer.Option(
        "--agnostic-nms",
        rich_help_panel=DETECTION,
        show_default=False,
        help="Boxes of different classes that overlap by more than --iou are one object, too: the better class stays. "
        "Default: no.",
    ),
]
MaxDet = Annotated[
    int | None,
    typer.Option(
        "--max-det",
        min=1,
        max=100_000,
        metavar="NUMBER",
        rich_help_panel=DETECTION,
        help="Store at most so many detections of an image, the best. Default: all that the model gives.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        rich_help_panel=DETECTION,
        help="Look for these classes only: names or numbers, separated by commas. Default: all.",
    ),
]
Resize = Annotated[
    Literal["stretch", "letterbox"] | None,
    typer.Option(
        metavar="stretch|letterbox",
        rich_help_panel=DETECTION,
        help="How an image is brought to the model's input size. Default: what the model says.",
    ),
]
Truncated = Annotated[
    Literal["refuse", "ok"],
    typer.Option(
        "--truncated",
        metavar="refuse|ok",
        rich_help_panel=DETECTION,
        show_default=False,
        help="What to do with a JPEG or TIFF that is cut off or damaged. ok: read it as far as it goes, and say so in "
        "its record. Default: refuse.",
    ),
]
PagesOption = Annotated[
    Literal["first", "all"],
    typer.Option(
        "--pages",
        metavar="first|all",
        rich_help_panel=DETECTION,
        show_default=False,
        help="What of a TIFF of several pages, and of a GIF, WebP, PNG or AVIF that moves, is an image. all: each page "
        "or frame, with a name such as scan.tif#3. Default: first.",
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        min=LEAST_FPS,
        max=MOST_FPS,
        metavar="NUMBER",
        rich_help_panel=DETECTION,
        show_default=False,
        help="How many frames of each second of a video are images, with names such as clip.mp4#t=12.040. Videos need "
        r"pip install 'trtjob\[video]'. Example: trtjob run clips/ --model yolov8n --fps 0.5. Default: 1.",
    ),
]
Every = Annotated[
    int | None,
    typer.Option(
        "--every",
        min=1,
        max=MOST_EVERY,
        metavar="FRAMES",
        rich_help_panel=DETECTION,
        show_default=False,
        help="Instead of --fps: the first of so many frames of a video, 1 for all of them. Default: --fps 1.",
    ),
]
Keyframes = Annotated[
    bool,
    typer.Option(
        "--keyframes",
        rich_help_panel=DETECTION,
        help="Instead of --fps: the frames of a video that are stored whole, which is the fastest. Default: --fps 1.",
    ),
]
DepthOption = Annotated[
    Literal["auto", "high", "full"],
    typer.Option(
        "--depth",
        metavar="auto|high|full",
        rich_help_panel=DETECTION,
        show_default=False,
        help="What is white in images of more than 8 bits. auto: the largest number of the 8, 10, 12, 14 or 16 bits "
        "that are in use, or 1 of floating-point numbers; high: the largest of all 16 bits; full: the largest in the "
        "image, and its smallest is black. Default: auto.",
    ),
]
