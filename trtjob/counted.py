"""Numbers with what they count."""


def counted(count: int, what: str) -> str:
    """Return a number and a noun, with the s or es that it needs.

    >>> counted(1, "image"), counted(2000, "image"), counted(2, "image process")
    ('1 image', '2,000 images', '2 image processes')
    """
    ending = "es" if what.endswith("s") else "s"
    return f"{count:,} {what}{'' if count == 1 else ending}"
