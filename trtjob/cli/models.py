"""`trtjob models`: what is in the registry."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtjob.cli.complete import model_names

if TYPE_CHECKING:
    from trtjob.converters.registry import ModelRegistry, RegisteredModel

EXAMPLE = "Example: trtjob models"
LIST_EXAMPLE = "Example: trtjob models list --json"
SHOW_EXAMPLE = "Example: trtjob models show yolov3"
REMOVE_EXAMPLE = "Example: trtjob models remove yolov3"

app = typer.Typer(help="List, show and remove the models that are converted.", invoke_without_command=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text. Default: text.")]
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
    from trtjob.cli.output import print_json, print_table

    models = _registry().list()
    if json:
        print_json([_document(model) for model in models])
    elif not models:
        typer.echo("No models yet. Convert one with: trtjob convert MODEL.weights", err=True)
    else:
        heads = ("NAME", "TASK", "CLASSES", "INPUT", "SIZE", "ADDED", "SHA256")
        print_table(heads, [_cells(model) for model in models])


@app.command("show", epilog=SHOW_EXAMPLE)
def show(name: NameArgument) -> None:
    """Print everything that a model says about itself, as JSON."""
    from trtjob.cli.output import print_json

    print_json(_document(_registry().get(name)))


@app.command("remove", epilog=REMOVE_EXAMPLE)
def remove(name: NameArgument) -> None:
    """Forget a name, and delete the converted model where no other name stands for it."""
    _registry().remove(name)
    typer.echo(f"{name}: removed")


def _registry() -> "ModelRegistry":
    from trtjob.cli.desk import start
    from trtjob.converters.registry import ModelRegistry

    return ModelRegistry(start().models_dir)


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


def _document(model: "RegisteredModel") -> dict[str, Any]:
    return {
        "name": model.name,
        "sha256": model.sha256,
        "path": str(model.path),
        "size_bytes": model.size_bytes,
        "created_at": model.created_at,
        "spec": model.spec.model_dump(mode="json"),
    }
