"""The options that say what is written of each image: copies, thumbnails, facts."""

from typing import Annotated, Literal

import typer

from trtjob.cli.options import OUTPUT

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
