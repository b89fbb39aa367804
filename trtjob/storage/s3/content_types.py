"""What a browser takes an object for. A bucket looks at no name: without a type, a page is saved and not shown."""

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "jsonl": "text/plain; charset=utf-8",  # which is shown, as what JSON lines have for a type is not
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "jpe": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tif": "image/tiff",
    "tiff": "image/tiff",
}


def content_type(path: str) -> str | None:
    """Return an object's type by its name, None where it is not known.

    >>> content_type("out/photos-1a2b3c4d/annotated/a.JPG")
    'image/jpeg'
    """
    return _TYPES.get(path.rpartition(".")[2].lower())


def attributes(path: str) -> dict[str, str]:
    """Return what an object is written with beside its bytes."""
    kind = content_type(path)
    return {"Content-Type": kind} if kind else {}
