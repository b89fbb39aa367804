"""`trtjob models`: what is in the registry."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtjob.api.progress import duration, open_stages
from trtjob.api.session import WorkerOptions
from trtjob.cli import options as o
from trtjob.cli.completion import model_names
from trtjob.cli.session import start
from trtjob.cli.signals import run_until_stopped, stopped_by_signals
from trtjob.cli.ui.paint import Painted, Piece
from trtjob.cli.ui.say import say
from trtjob.counted import counted
from trtjob.tilde import expand_tilde

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtjob.config import Settings
    from trtjob.converters.registry import ModelRegistry, RegisteredModel

EXAMPLE = "Example: trtjob models"
LIST_EXAMPLE = "Example: trtjob models list --json"
SHOW_EXAMPLE = "Example: trtjob models show yolov3"
BUILD_EXAMPLE = "Example: trtjob models build yolov3 --gpus 0"
REMOVE_EXAMPLE = "Example: trtjob models remove yolov3"

LABELS_SHOWN = 5

app = typer.Typer(help="List, show, build and remove the models that are converted.", invoke_without_command=True)

JsonOption = Annotated[bool, o.json_instead_of("text")]
NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", show_default=False, help="A model's name.", autocompletion=model_names),
]


@app.callback()
def _models(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_models()


@app.command("list", epilog=LIST_EXAMPLE)
def list_models(json: JsonOption = False) -> None:
    """List the models by name."""
    from trtjob.cli.ui.output import print_json, print_table

    registry = _registry(start())
    models, damaged = registry.list(), registry.damaged()
    if json:
        print_json([model.document() for model in models])
    elif models:
        heads = ("NAME", "TASK", "CLASSES", "INPUT", "SIZE", "ADDED", "SHA256")
        print_table(heads, [_cells(model) for model in models])
    elif not damaged:
        say("No models with a name yet. Give one a name: trtjob convert MODEL", err=True)
    for error in damaged:
        say(f"error: {error}", err=True)
    if damaged:
        raise typer.Exit(1)


@app.command("show", epilog=SHOW_EXAMPLE)
def show(name: NameArgument, json: JsonOption = False) -> None:
    """Print what a model is: its input, its labels, its precision, and how near it is to the original."""
    from trtjob.cli.ui.output import print_json
    from trtjob.worker.engine_choice import plans_of

    settings = start()
    model = _registry(settings).get(name)
    plans = [plan.model_dump(mode="json") for plan in plans_of(settings).list() if plan.model == model.sha256]
    document = model.document() | {"plans": plans}
    print_json(document) if json else print_model(document)


@app.command("build", epilog=BUILD_EXAMPLE)
def build(
    name: NameArgument,
    gpus: o.Gpus = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="MIN:BEST:MAX",
            help="Batch sizes: the smallest, the one to be fast for, the largest. Default: TRTJOB_PLAN_BATCHES, "
            "or 1:32:32. Workers use a plan only where they have the same.",
        ),
    ] = None,
    workspace: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="MIB",
            help="GPU memory that a layer may borrow, 0 for all. Default: TRTJOB_PLAN_WORKSPACE_MIB, or all.",
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=5,
            metavar="0-5",
            help="How long TensorRT looks for faster kernels. Default: TRTJOB_PLAN_LEVEL, or 3.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what TensorRT made of each layer, as JSON. Default: no report."),
    ] = None,
) -> None:
    """Build a model's TensorRT plan for each GPU of this machine, which a worker would do at its first job.

    A plan that is there already is not built again; one that could not be built is tried again.
    """
    from trtjob.engines.choice import choose

    _check_batches(batch)
    settings = start(WorkerOptions(gpus=gpus))
    given = {"plan_batches": batch, "plan_workspace_mib": workspace, "plan_level": level}
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    model = _registry(settings).get(name)
    choice = choose("tensorrt", settings.gpus)
    code = run_until_stopped(_build(settings, model, tuple(gpu.number for gpu in choice.gpus), report))
    if code == 0:
        say(choice.reason)
    raise typer.Exit(code)


def _check_batches(text: str | None) -> None:
    from trtjob.config import check_plan_batches
    from trtjob.errors import ConfigError

    if text is None:
        return
    try:
        check_plan_batches(text)
    except ValueError as err:
        raise ConfigError(f"--batch '{text}': {err}") from err


async def _build(settings: "Settings", model: "RegisteredModel", gpus: tuple[int, ...], report: Path | None) -> int:
    from trtjob.engines.tensorrt.builder import BuildCancelled
    from trtjob.engines.tensorrt.engine import build_ahead, layer_report
    from trtjob.worker.engine_choice import tensorrt_options

    with open_stages(model.name) as display, stopped_by_signals("Stopping the build.") as stop:

        def on_progress(phase: str, done: int, total: int) -> bool:
            display.show(phase, done, total)
            return not stop.event.is_set()

        for gpu in gpus:
            options = replace(tensorrt_options(settings, gpu, on_progress, is_ahead=True), model_name=model.name)
            try:
                await asyncio.to_thread(build_ahead, model.path, model.sha256, options)
            except BuildCancelled:
                return stop.exit_code
            if report is not None:
                text = await asyncio.to_thread(layer_report, model.path, model.sha256, options)
                await asyncio.to_thread(expand_tilde(report).write_text, text)
    return 0


@app.command("remove", epilog=REMOVE_EXAMPLE)
def remove(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            show_default=False,
            help="A model's name. Default: none, with --unnamed.",
            autocompletion=model_names,
        ),
    ] = None,
    unnamed: Annotated[
        bool,
        typer.Option(
            "--unnamed",
            help="Instead, delete the models that `trtjob run` has kept for the files that it was given. It makes them "
            "anew when it needs them; a job that is under way needs its own. Default: they stay.",
        ),
    ] = False,
) -> None:
    """Forget a name, and delete the converted model and its plans where no other name stands for it."""
    from trtjob.worker.engine_choice import plans_of

    if (name is None) is not unnamed:
        raise typer.BadParameter("name one model, or give --unnamed")
    settings = start()
    registry = _registry(settings)
    if name is None:
        gone = registry.remove_unnamed()
    else:
        sha256 = registry.remove(name)
        gone = () if sha256 is None else (sha256,)
    for sha256 in gone:
        plans_of(settings).remove_all(sha256)
    say(f"{counted(len(gone), 'model')} without a name: removed" if name is None else f"{name}: removed")


def _registry(settings: "Settings") -> "ModelRegistry":
    from trtjob.converters.registry import ModelRegistry

    return ModelRegistry(settings.models_dir)


def _cells(model: "RegisteredModel") -> tuple[str, ...]:
    height, width = model.spec.input_hw
    return (
        model.name,
        model.spec.task.value,
        str(len(model.spec.labels)),
        f"{width}x{height}",
        f"{model.size_bytes / 2**20:.1f} MiB",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(model.created_at)),
        model.sha256[:12],
    )


def print_model(document: dict[str, Any]) -> None:
    """Print what is known of a model, from `RegisteredModel.document()`."""
    from trtjob.cli.ui.output import print_rows

    print_rows(row for row in _rows(document) if str(row[1]))


def _rows(document: dict[str, Any]) -> "Iterator[tuple[str, Piece]]":
    spec, facts = document["spec"], document["facts"] or {}
    height, width = spec["input_hw"]
    yield "model", document["name"]
    yield "sha256", document["sha256"]
    yield "file", document["path"]
    yield "from", ", ".join(source["name"] for source in spec["sources"])
    yield "task", spec["task"]
    yield "input", f"{width}x{height} {spec['color']}, {spec['resize']}"
    yield "outputs", ", ".join(f"{name} {_shape(shape)}" for name, shape in facts.get("outputs", {}).items())
    yield "labels", _labels(spec["labels"])
    yield "gives", ", ".join(_gives(spec))
    yield "layers", f"{facts['layers']}, {facts['parameters']:,} parameters" if facts else ""
    yield "precision", spec["precision"] + (f", {spec['calibration']}" if spec["calibration"] else "")
    yield "parity", _parity(spec["parity"]) if spec["parity"] else ""
    yield "size", f"{document['size_bytes'] / 2**20:.1f} MiB" + _beside(facts, "reference_size_bytes", 2**20, "MiB")
    if facts.get("cpu_ms"):
        yield "CPU time", f"{facts['cpu_ms']:.1f} ms an image" + _beside(facts, "reference_cpu_ms", 1, "ms")
    yield from (("plan", _plan(plan)) for plan in document.get("plans", ()))
    yield from (("WARNING", Painted(warning, "yellow")) for warning in facts.get("warnings", ()))
    yield from (("note", note) for note in facts.get("notes", ()))
    yield "converted", f"in {duration(facts['seconds'])}" if facts else ""


def _plan(plan: dict[str, Any]) -> str:
    place = f"{plan['gpu_name']}, {plan['flavour']} {plan['version']}, batches of {plan['batches']}"
    return f"{place}, {plan['size_bytes'] / 2**20:.1f} MiB, built in {duration(plan['seconds'])}"


def _shape(sizes: "list[int | str]") -> str:
    return f"[{', '.join(map(str, sizes))}]"


def _labels(labels: list[str]) -> str:
    shown = ", ".join(labels[:LABELS_SHOWN])
    return f"{len(labels)} ({shown}{', ...' if len(labels) > LABELS_SHOWN else ''})"


def _gives(spec: dict[str, Any]) -> "Iterator[str]":
    """Yield what a model says beyond boxes and one class."""
    if spec["prototypes"]:
        yield "masks"
    if spec["keypoints"]:
        yield f"keypoints: {_labels(spec['keypoints'])}"
    if spec["is_rotated"]:
        yield "rotated boxes"
    if spec["task"] == "classify" and spec["multi_label"]:
        yield "several labels of an image"


def _beside(facts: dict[str, Any], name: str, unit: float, unit_name: str) -> str:
    value = facts.get(name)
    return "" if value is None else f" (the reference: {value / unit:.1f} {unit_name})"


_IN_PIXELS = frozenset({"boxes", "keypoints", "corners"})


def _parity(parity: dict[str, Any]) -> str:
    parts = [
        f"{share:.1%} {what}"
        for share, what in (
            (parity["matched"], "of the detections matched"),
            (parity["top1"], "same best class"),
            (parity["top5"], "same best five"),
        )
        if share is not None
    ]
    parts += [
        f"{name} within {difference:g}{' px' if name in _IN_PIXELS else ''}"
        for name, difference in parity["max_abs"].items()
    ]
    return f"{', '.join(parts) or 'nothing to compare'}; against {parity['reference']}, on {parity['inputs']}"
