"""What is failing outside: which places this process waits for, and why."""

_troubles: dict[str, str] = {}  # place -> what is failing there, in one sentence


def note_trouble(place: str, trouble: str) -> None:
    """Remember that a place fails as a whole; an empty sentence: it works again."""
    if trouble:
        _troubles[place] = trouble
    else:
        _troubles.pop(place, None)


def troubles() -> str:
    """Return what is failing now in this process, empty where nothing is. Safe in any thread."""
    return "; ".join(dict.fromkeys(list(_troubles.values())))
