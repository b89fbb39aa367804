"""The arguments and options that several commands share, each with its help, unit and default."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trtjob.cli.completion import job_ids, job_ids_and_folders, model_names

if TYPE_CHECKING:
    pass

MODEL, IMAGES, DETECTION = "Model", "Which images", "What is found"
OUTPUT, MACHINE = "What is written", "How it runs"

JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", show_default=False, help="A job's id.", autocompletion=job_ids)
]
JobOrFolderArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        show_default=False,
        help="A job's id, or its folder or s3:// prefix.",
        autocompletion=job_ids_and_folders,
    ),
]

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        show_default=False,
        rich_help_panel=MODEL,
        autocompletion=model_names,
        help="A Darknet .weights file (converted on first use), a converted .onnx, or a name from `trtjob models`.",
    ),
]
Cfg = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=MODEL,
        help="The .cfg of a .weights file. Default: the one of the same name beside it.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|NAME,NAME",
        rich_help_panel=MODEL,
        help="The class names of a model's file: a file with one a line, a .data, .yaml or .json, or the names "
        "themselves, such as no,yes. Default: those in the model, or the .names beside it.",
    ),
]
Scores = Annotated[
    Literal["softmax", "sigmoid", "none"] | None,
    typer.Option(
        metavar="softmax|sigmoid|none",
        rich_help_panel=MODEL,
        help="What makes scores of the output of a classifier's file. softmax: one class is right; sigmoid: each "
        "stands for itself; none: they are scores already. Default: recognised, and what is guessed is said.",
    ),
]

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

Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER|s3://",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="The folder, or s3://bucket/prefix, in which the job gets a folder of its own. Default: ./trtjob-out.",
    ),
]
AnnotateOption = Annotated[
    Literal["all", "hits", "none"],
    typer.Option(
        "--annotate",
        metavar="all|hits|none",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Which images get an annotated copy; hits: those with a detection. Default: all.",
    ),
]
AnnotateVideo = Annotated[
    bool,
    typer.Option(
        "--annotate-video",
        rich_help_panel=OUTPUT,
        help="Write a copy of each video, with its sound, in which every frame has the boxes of the last one that was "
        "looked at. Default: no such copy; see --annotate for the frames.",
    ),
]
Thumbnails = Annotated[
    Literal["all", "hits", "none"] | None,
    typer.Option(
        "--thumbnails",
        metavar="all|hits|none",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Which images get a thumbnail for the report. Default: those that get an annotated copy.",
    ),
]
ThumbnailSize = Annotated[
    int,
    typer.Option(
        "--thumbnail-size",
        metavar="PX",
        min=64,
        max=1024,
        rich_help_panel=OUTPUT,
        show_default=False,
        help="The longer side of a thumbnail, in pixels, 64 to 1024. Default: 320.",
    ),
]
MetadataOption = Annotated[
    bool,
    typer.Option(
        "--metadata",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Write into each record what its file says of the picture: when, where and by which camera it was taken. "
        "Default: no.",
    ),
]
Polygons = Annotated[
    bool,
    typer.Option(
        "--polygons",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Write into each record the outlines of the masks as well. Default: no.",
    ),
]
HideLabels = Annotated[
    bool,
    typer.Option(
        "--hide-labels",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Write nothing into annotated copies: boxes, masks and keypoints alone. Default: no.",
    ),
]
HideScores = Annotated[
    bool,
    typer.Option(
        "--hide-scores",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Write labels without scores into annotated copies. Default: no.",
    ),
]
LineWidth = Annotated[
    int | None,
    typer.Option(
        "--line-width",
        min=1,
        max=100,
        metavar="PIXELS",
        rich_help_panel=OUTPUT,
        help="How wide the lines of annotated copies are. Default: as suits the image's size.",
    ),
]
FontSize = Annotated[
    int | None,
    typer.Option(
        "--font-size",
        min=6,
        max=160,
        metavar="PIXELS",
        rich_help_panel=OUTPUT,
        help="How large the letters of annotated copies are. Default: as suits the image's size.",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=OUTPUT, help="Print one JSON document instead of text."),
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
        min=0.001,
        max=1000,
        metavar="NUMBER",
        rich_help_panel=DETECTION,
        show_default=False,
        help="How many frames of each second of a video are images, with names such as clip.mp4#t=12.040. Videos need "
        "pip install 'trtjob[video]'. Example: trtjob run clips/ --model yolov8n --fps 0.5. Default: 1.",
    ),
]
Every = Annotated[
    int | None,
    typer.Option(
        "--every",
        min=1,
        max=100_000_000,
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
Decode = Annotated[
    Literal["cpu", "gpu"],
    typer.Option(
        metavar="cpu|gpu",
        rich_help_panel=MACHINE,
        show_default=False,
        help="What decodes JPEG files; gpu: the pixels differ a little, as with other decoders. Default: cpu.",
    ),
]
ShardSize = Annotated[
    int,
    typer.Option(
        min=1,
        max=100_000,
        metavar="IMAGES",
        rich_help_panel=MACHINE,
        show_default=False,
        help="Images in one unit of work. Default: 256.",
    ),
]
MaxFailures = Annotated[
    str | None,
    typer.Option(
        metavar="N|P%",
        rich_help_panel=MACHINE,
        help="Give the job up when more images failed than this number, or this share such as 2.5%. Default: never.",
    ),
]
Priority = Annotated[
    Literal["high", "normal", "low"] | None,
    typer.Option(
        metavar="high|normal|low",
        rich_help_panel=MACHINE,
        help="Which jobs workers take up first; jobs of one priority share the workers. Default: normal.",
    ),
]
Notify = Annotated[
    str,
    typer.Option(
        metavar="URL",
        rich_help_panel=MACHINE,
        show_default=False,
        help="Tell this web address when the job has ended (docs/notify.md). Default: none.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=256,
        metavar="N",
        rich_help_panel=MACHINE,
        help="CPU cores that a worker process uses: threads of an engine on the CPU, and image processes. Default: "
        "TRTJOB_THREADS, or an even share of all.",
    ),
]
ImageProcesses = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=256,
        metavar="N",
        rich_help_panel=MACHINE,
        help="Processes of a worker that decode, draw and encode. Default: TRTJOB_IMAGE_PROCESSES, or as --threads.",
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=1024,
        metavar="IMAGES",
        rich_help_panel=MACHINE,
        help="Largest batch for the engine. Default: TRTJOB_BATCH, or what the engine likes best.",
    ),
]
Engine = Annotated[
    Literal["auto", "tensorrt", "cuda", "cpu"] | None,
    typer.Option(
        metavar="auto|tensorrt|cuda|cpu",
        rich_help_panel=MACHINE,
        help="What runs the model. auto: TensorRT where there is a GPU for it, else ONNX Runtime on CUDA, else on the "
        "CPU. "
        "Default: TRTJOB_ENGINE, or auto.",
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option(
        metavar="all|N,N",
        rich_help_panel=MACHINE,
        help="The GPUs to use, by number or name (GPU-1a2b3c4d, MIG-...), each with its own worker process. Default: "
        "TRTJOB_GPUS, or all.",
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        min=1,
        max=64,
        metavar="N",
        rich_help_panel=MACHINE,
        show_default=False,
        help="Worker processes on this machine, or on each of its GPUs. Default: 1.",
    ),
]


def json_instead_of(usual: str) -> Any:
    """Return the option of a command that prints `usual` or JSON."""
    return typer.Option("--json", help=f"Print JSON instead of {usual}.")


def limit(text: str) -> Any:
    """Return the option that says how many jobs are shown, which `text` explains with its default."""
    return typer.Option("--limit", "-n", min=1, max=100_000, metavar="JOBS", show_default=False, help=text)
