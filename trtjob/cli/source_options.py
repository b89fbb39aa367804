"""The arguments and options that say which images: where they are, and which of them."""

from typing import Annotated

import typer

from trtjob.cli.options import IMAGES, OUTPUT

SourceArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        show_default=False,
        help="Folders, s3://, gs:// and az:// prefixes (with all below them), images, also at https://, patterns in "
        "quotes ('cam*/**/*.jpg'), lists of images (.txt, .csv, .tsv, .jsonl, .json, .parquet), or - for a list of "
        "lines on standard input.",
    ),
]
Root = Annotated[
    str,
    typer.Option(
        metavar="FOLDER|s3://",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="For a list: the folder that has all its images; results name them as below it. Default: the list's own "
        "folder, the current one for -, or the bucket.",
    ),
]
Column = Annotated[
    str,
    typer.Option(
        metavar="NAME|N",
        rich_help_panel=IMAGES,
        show_default=False,
        help="For a list that is a table: the column that names the images, or its number. Default: the one that is "
        "called as images are, such as file, path or image.",
    ),
]
Anonymous = Annotated[
    bool,
    typer.Option(
        "--anonymous",
        rich_help_panel=IMAGES,
        help="Read buckets without credentials, as public ones allow. Default: with those that are found.",
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        rich_help_panel=IMAGES,
        show_default=False,
        help="Take only what matches; may be given several times. A pattern without a / is for the name of a file or a "
        "folder anywhere: 'IMG_*.jpg'; with one, for the path below the source: 'cam1/**/*.jpg'. Default: all.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        rich_help_panel=IMAGES,
        show_default=False,
        help="Leave out what matches, as for --include; may be given several times. Default: nothing.",
    ),
]
Hidden = Annotated[
    bool,
    typer.Option(
        "--hidden",
        rich_help_panel=IMAGES,
        help="Take hidden files and folders, too; never what systems put beside images (docs/sources.md). Default: "
        "leave them out.",
    ),
]
NoRecursive = Annotated[
    bool,
    typer.Option(
        "--no-recursive",
        rich_help_panel=IMAGES,
        help="Take what lies right in the source, and nothing in folders below. Default: all below it.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="DATE",
        rich_help_panel=IMAGES,
        show_default=False,
        help="Take what was changed then or later, by the file's or the object's own time: 2026-11-01 or "
        "2026-11-01T18:30, in this machine's time zone, or with one: 2026-11-01T18:30+01:00. Default: all.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=IMAGES,
        show_default=False,
        help="Take the first N images, in the order of their paths; with --pages all, N files. Default: all.",
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1_000_000,
        metavar="N",
        rich_help_panel=IMAGES,
        show_default=False,
        help="Take N images at random, for the same images always the same ones. Default: all.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=IMAGES,
        show_default=False,
        help="Another number is another --sample. Default: 0.",
    ),
]
