"""Files that are something else than their names say: what a download, a clone or an editor has left in their place."""

from pathlib import Path

from trtjob.errors import ConversionError

_HEAD_BYTES = 4096
_LFS = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_TEXTS = frozenset({".cfg", ".names", ".data", ".txt", ".list", ".json", ".yaml", ".yml"})


def expect_no_impostor(path: Path) -> None:
    """Raise ConversionError for a file that stands for another one, or a text that is written as nobody reads it.

    What cannot be read is left to who reads it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return
    if head.startswith(_LFS):
        raise ConversionError(
            f"'{path}' is not the file itself, but Git LFS's pointer to it. Fetch the file with: git lfs pull"
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        raise ConversionError(
            f"'{path}' is a web page: a site has answered with it in the file's place. Download it again"
        )
    if path.suffix.lower() not in _TEXTS:
        return
    if head.startswith(_UTF_16):
        raise ConversionError(f"'{path}' is text in UTF-16, as some editors save it. Save it as UTF-8")
    if b"\r" in head and b"\n" not in head:
        raise ConversionError(
            f"'{path}' has lines that end in a carriage return alone, as old Macs wrote them. Save it with line feeds"
        )
