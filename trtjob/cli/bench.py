"""`trtjob bench`: how fast a model is on this machine, and what limits it."""

import asyncio
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtjob.api.progress import duration, open_stages
from trtjob.api.session import WorkerOptions
from trtjob.cli import options as o
from trtjob.cli.completion import model_names
from trtjob.cli.session import start
from trtjob.cli.signals import run_until_stopped, stopped_by_signals
from trtjob.cli.ui.say import say
from trtjob.counted import counted
from trtjob.engines.choice import TITLES
from trtjob.errors import ConfigError
from trtjob.tilde import expand_tilde

if TYPE_CHECKING:
    from trtjob.bench.parts import EngineRate, PipelineRate
    from trtjob.bench.run import BenchOptions, BenchReport, SampleReport
    from trtjob.config import Settings

EXAMPLE = "Example: trtjob bench yolov3.weights --images photos/ --seconds 10"

STOPPING = "Stopping after the images in hand."

LARGEST_BATCH = 1024
OTHERS_SHOWN = 0.1  # the share of the cores' time from which on other programs are worth a note

_PHASES = {"prepare": "prepare", "infer": "inference", "result": "result", "draw": "draw", "write": "write"}
_STAGES = {
    "read": "read",
    "decode": "decode",
    "resize": "resize",
    "thumbnail": "thumbnail",
    "nms": "classes, NMS",
    "record": "record",
    "encode": "encode",
    "write": "write",
}


def bench(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            autocompletion=model_names,
            help="A model's file (converted on first use), or a name from `trtjob models`.",
        ),
    ],
    engine: o.Engine = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            metavar="all|N,N",
            rich_help_panel=o.MACHINE,
            help="The GPU to measure; of several, the first: each has a worker process of its own. "
            "Default: TRTJOB_GPUS, or all.",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help="More batch sizes, in images, to measure the engine alone with. A GPU takes as long for a smaller "
            "one as for its own, which TRTJOB_BATCH sets. Default: the pipeline's own alone.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Images to measure the pipeline with: up to 64 from all over the folder. "
            "Default: made-up JPEGs of 640x480 and of 1920x1080 pixels.",
        ),
    ] = None,
    threads: o.Threads = None,
    image_processes: o.ImageProcesses = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=600,
            metavar="S",
            show_default=False,
            help="Seconds for each part that is measured, of about seven; longer for a slow model. Default: 5.",
        ),
    ] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Measure the engine alone, each phase of the pipeline, and files to results, and say what limits the speed.

    It runs one worker process's pipeline in this process, without the queue, and removes what it writes.
    """
    from trtjob.bench.run import BenchOptions
    from trtjob.cli.ui.output import print_json

    settings = start(WorkerOptions(threads=threads, image_processes=image_processes, engine=engine, gpus=gpus))
    wanted = BenchOptions(None if images is None else expand_tilde(images), _batches(batch), seconds)
    report = run_until_stopped(_bench(settings, model, wanted))
    if isinstance(report, int):
        raise typer.Exit(report)
    print_json(_rounded(_document(report))) if json else _print(report)


def _batches(text: str | None) -> tuple[int, ...]:
    """Return the sizes of `1,8,32`, in order. Raises ConfigError."""
    if text is None:
        return ()
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError as err:
        raise ConfigError(f"--batch '{text}': expected whole numbers such as 1,8,32") from err
    if sizes[0] < 1 or sizes[-1] > LARGEST_BATCH:
        raise ConfigError(f"--batch '{text}': expected numbers from 1 to {LARGEST_BATCH}")
    return tuple(sizes)


async def _bench(settings: "Settings", model: str, wanted: "BenchOptions") -> "BenchReport | int":
    """Return what was measured, the exit code where the user stopped it."""
    from trtjob.api.hand_in import converting
    from trtjob.api.progress import StandardError
    from trtjob.bench.parts import BenchStopped
    from trtjob.bench.run import bench
    from trtjob.converters.registry import ModelRegistry
    from trtjob.converters.run import resolve_model

    with stopped_by_signals(STOPPING) as stop:
        resolving = asyncio.to_thread(
            resolve_model, model, registry=ModelRegistry(settings.models_dir), on_convert=converting(StandardError())
        )
        registered = await stop.unless_stopped(resolving)
        if registered is None:
            return stop.exit_code
        with open_stages(registered.name) as display:
            try:
                return await asyncio.to_thread(
                    bench,
                    registered,
                    settings,
                    wanted,
                    on_progress=display.show,
                    is_stopping=stop.event.is_set,
                )
            except BenchStopped:
                return stop.exit_code


def _document(report: "BenchReport") -> dict[str, Any]:
    """Return what `--json` says. Times in ms are of one image, `ran_s` says how long a figure was measured."""
    return {
        "model": {"name": report.model.name, "sha256": report.model.sha256},
        "engine": {
            "name": report.engine,
            "device": report.device,
            "max_batch": report.max_batch,
            "callers": report.callers,
        },
        "cores": report.cores,
        "pipeline": asdict(report.limits),
        "engine_alone": [asdict(rate) for rate in report.engine_alone],
        "samples": [
            {
                "name": measured.sample.name,
                "listed": measured.sample.listed,
                "used": len(measured.sample.entries),
                "unusable": measured.sample.unusable,
                "phases_ms": measured.times.phases_ms,
                **asdict(measured.times),
                "annotated": asdict(measured.annotated),
                "json_only": asdict(measured.json_only),
                "limit": measured.limit,
            }
            for measured in report.samples
        ],
        "others_busy": report.others_busy,
        "rounds": report.rounds,
        "elapsed_s": report.elapsed_s,
    }


def _rounded(value: Any) -> Any:
    """Return a document with numbers as exact as they are worth."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def _print(report: "BenchReport") -> None:
    from trtjob.cli.ui.output import print_rows

    print_rows(_heading(report))
    _print_table(
        ("ENGINE ALONE", "IMAGES/S", "MS A CALL", "MEASURED"), [_engine_cells(rate) for rate in report.engine_alone]
    )
    samples = report.samples
    names = [measured.sample.name for measured in samples]
    _print_table(("MS AN IMAGE, IN ONE THREAD", *names), _phase_rows(samples))
    rows = [
        (f"{measured.sample.name}, {what}", *_rate_cells(rate))
        for measured in samples
        for what, rate in (("annotated", measured.annotated), ("JSON only", measured.json_only))
    ]
    _print_table(("FILES TO RESULTS", "IMAGES/S", "OF THE ENGINE", "CORES BUSY", "BY TRTJOB", "MEASURED"), rows)
    say()
    for measured in samples:
        say(f"{measured.sample.name}: {measured.limit}.")


def _heading(report: "BenchReport") -> Iterable[tuple[str, str]]:
    spec, limits = report.model.spec, report.limits
    yield "model", f"{report.model.name}, {spec.input_hw[1]}x{spec.input_hw[0]}, {spec.precision}"
    callers = counted(report.callers, "thread")
    engine = TITLES["cpu"] if report.engine == "cpu" else report.device
    yield "engine", f"{engine}, called from {callers}"
    batches = "an image at a time" if limits.batch == 1 else f"batches of up to {limits.batch} images"
    yield "pipeline", f"{counted(limits.processes, 'image process')} on {counted(report.cores, 'core')}, {batches}"
    yield "images", "; ".join(map(_images, report.samples)) + "; each read again and again, so from the system's cache"
    yield "measured", f"in {duration(report.elapsed_s)}: medians of {report.rounds} rounds, after a warm-up"
    if report.others_busy >= OTHERS_SHOWN:
        others = f"other programs had {report.others_busy:.0%} of the cores' time"
        yield "note", f"{others}: without them the figures are higher"


def _images(measured: "SampleReport") -> str:
    sample = measured.sample
    used = len(sample.entries)
    left_out = f" ({sample.unusable} more cannot be read)" if sample.unusable else ""
    return f"{sample.name}: {used}{f' of {sample.listed}' if used < sample.listed else ''}{left_out}"


def _engine_cells(rate: "EngineRate") -> tuple[str, ...]:
    return f"batch of {rate.batch}", f"{rate.images_per_s:.1f}", f"{rate.call_ms:.1f}", f"{rate.ran_s:.1f} s"


def _rate_cells(rate: "PipelineRate") -> tuple[str, ...]:
    shares = (rate.of_engine, rate.cores_busy, rate.cores_own)
    return f"{rate.images_per_s:.1f}", *(f"{share:.0%}" for share in shares), f"{rate.ran_s:.1f} s"


def _phase_rows(samples: "tuple[SampleReport, ...]") -> Iterable[tuple[str, ...]]:
    from trtjob.bench.parts import PHASES

    for phase, stages in PHASES.items():
        yield _PHASES[phase], *(f"{measured.times.phases_ms[phase]:.2f}" for measured in samples)
        if len(stages) > 1:
            for stage in stages:
                yield f"  {_STAGES[stage]}", *(f"{measured.times.stages_ms[stage]:.2f}" for measured in samples)
    yield "measured", *(f"{measured.times.ran_s:.1f} s" for measured in samples)


def _print_table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print names, and numbers below one another."""
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    say()
    for name, *numbers in lines:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        say("  ".join([name.ljust(widths[0]), *cells]))
