"""Numbers with what they count."""


def counted(count: int, what: str) -> str:
    """Return a number and a noun, with the s that it needs.

    >>> counted(1, "image"), counted(2000, "image"), counted(0, "failed image")
    ('1 image', '2,000 images', '0 failed images')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"
