"""The arguments and options that several commands share, each with its help, unit and default."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trtjob.cli.completion import job_ids, job_ids_and_folders, model_names

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
        help="A Darknet, Keras, TensorFlow or ONNX file (converted on first use), or a name from `trtjob models`.",
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
Json = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=OUTPUT, help="Print one JSON document instead of text."),
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
        "CPU. Default: TRTJOB_ENGINE, or auto.",
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
