"""Where a job reads and writes: one place of images, or several, each with a name of its own."""

import re
import stat
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, count, pairwise
from pathlib import Path

from trtjob.errors import ConfigError
from trtjob.jobs.image_list import ImageList
from trtjob.jobs.places import Place, Reading, check_text, mode_of, places_of
from trtjob.jobs.spec import MOST_PARTS, Part, Source, SourceKind
from trtjob.storage import is_s3
from trtjob.storage.patterns import pattern
from trtjob.storage.selection import Rules, Selection
from trtjob.storage.uri import bucket_uri
from trtjob.tilde import expand_tilde

ALL = Selection()


def source_from(
    *named: Path | str | ImageList, root: str = "", selection: Selection = ALL, anonymous: bool = False
) -> tuple[Source, list[str]]:
    """Return the source for folders, images, patterns, lists, buckets and web addresses, and the keys, sorted.

    The keys are those of images and lists; a folder has none. Two lines that name the same image in two ways are one.
    root: the folder or address below which a list's images are, and get their names; empty: the list's own folder, or
    the bucket. So what an image is called does not depend on what else is listed. selection: which images; anonymous:
    whether buckets are read without credentials.
    Where they are in several places, each key begins with the name of its place (decision 36).
    Raises ConfigError where a source does not exist or holds no image, and where its path is no text; StorageError for
    a bucket that cannot be listed.

    >>> folder = Path("photos")
    >>> folder.mkdir()
    >>> _ = (folder / "a.jpg").write_bytes(b"...")
    >>> source_from(folder)
    (Source(kind='folder', root='/.../photos', ...), [])
    """
    if root and not any(isinstance(each, ImageList) for each in named):
        raise ConfigError(f"--root is for lists of images, but the source is '{named[0]}'. Leave --root out")
    reading = Reading(root, selection, anonymous)
    places = _joined(place for each in named for place in places_of(each, reading))
    _check_wanted(places, selection)
    if len(places) == 1:
        (place,) = places
        patterns = tuple(sorted(place.patterns))
        source = Source(
            kind=_kind(places), root=place.root, patterns=patterns, selection=selection, anonymous=anonymous
        )
        return source, sorted(place.keys)
    if len(places) > MOST_PARTS:
        raise ConfigError(
            f"the images lie in {len(places):,} places, more than {MOST_PARTS:,}. Name a folder above them, a pattern "
            "in quotes, or a list with --root"
        )
    names = names_of([place.root for place in places])
    parts = tuple(
        Part(name=name, root=place.root, is_listed=place.is_listed, patterns=tuple(sorted(place.patterns)))
        for name, place in zip(names, places, strict=True)
    )
    keys = (f"{name}/{key}" for name, place in zip(names, places, strict=True) for key in place.keys)
    source = Source(kind=_kind(places), root="", parts=parts, selection=selection, anonymous=anonymous)
    return source, sorted(keys)


def _check_wanted(places: list[Place], selection: Selection) -> None:
    rules, named = Rules(selection), [key for place in places for key in place.keys]
    if not any(place.is_listed for place in places) and all(map(rules.why_unwanted, named)):
        raise ConfigError(f"none of the {len(named):,} images that are named matches --include and --exclude")


def _kind(places: list[Place]) -> SourceKind:
    if not any(place.is_listed for place in places):
        return "list"
    return "both" if any(place.keys for place in places) else "folder"


def _joined(places: Iterable[Place]) -> list[Place]:
    """Return one place for each root, sorted by it: which comes first on a command line does not matter."""
    joined: dict[str, Place] = {}
    for place in places:
        known = joined.setdefault(place.root, place)
        # All that is below is more than what patterns match.
        listed = [each for each in (known, place) if each.is_listed]
        patterns = frozenset[str]() if any(not each.patterns for each in listed) else known.patterns | place.patterns
        joined[place.root] = replace(place, is_listed=bool(listed), patterns=patterns, keys=known.keys | place.keys)
    return [joined[root] for root in sorted(joined)]


def names_of(roots: list[str]) -> list[str]:
    """Return a name for each of several places: the last part of its path, or more where that is another's.

    None is another one, or a folder in it. Where paths cannot tell places apart, their names are numbered.
    roots: all different.

    >>> names_of(["/data/cam1", "/data/cam2"]), names_of(["/july/cam1", "/june/cam1", "/june/cam2"])
    (['cam1', 'cam2'], ['july/cam1', 'june/cam1', 'cam2'])
    >>> names_of(["/photos", "s3://photos"])
    ['photos', 'photos-2']
    """
    paths = [root.rpartition("://")[2].strip("/").split("/") for root in roots]
    depths = [1] * len(roots)
    while True:
        names = ["/".join(path[-depth:]) or "root" for path, depth in zip(paths, depths, strict=True)]
        alike = _alike(names)
        if not alike:
            return names
        longer = [place for place in alike if depths[place] < len(paths[place])]
        if not longer:
            return _numbered(names)
        for place in longer:
            depths[place] += 1


def _alike(names: list[str]) -> set[int]:
    """Return which names are another one, or are of a folder in or above it."""
    placed = sorted((f"{name}/", place) for place, name in enumerate(names))
    return {
        place for (above, one), (name, other) in pairwise(placed) if name.startswith(above) for place in (one, other)
    }


def _numbered(names: list[str]) -> list[str]:
    taken: dict[str, None] = {}
    for name in (name.rpartition("/")[2] for name in names):
        others = (f"{name}-{number}" for number in count(2))
        taken[next(each for each in chain([name], others) if each not in taken)] = None
    return list(taken)


def check_output(output: str, source: Source) -> str:
    """Return the output's absolute folder or `s3://` address.

    Raises ConfigError where it lies in the source or cannot be a folder.
    """
    if not output:  # as an unset variable of a shell is; a path would be the current folder
        raise ConfigError("--output is empty. Name a folder or an s3:// prefix, or leave it out")
    if re.match("[A-Za-z][A-Za-z0-9+.-]*://", output) and not is_s3(output):
        raise ConfigError(
            f"--output '{output}': outputs are written into folders and s3:// prefixes. Name one of these"
        )
    if is_s3(output):
        address = bucket_uri(output, "--output")
    else:
        folder = expand_tilde(output).resolve()
        check_text(folder, "Choose another with --output")
        if (mode := mode_of(folder)) is not None and not stat.S_ISDIR(mode):
            raise ConfigError(f"the output '{output}' is a file, not a folder. Choose another with --output")
        address = str(folder)
    for part in source.all_parts:
        if part.is_listed and _lies_in(address, part):
            raise ConfigError(
                f"the output '{output}' lies in the source '{part.root}', so outputs would become inputs. "
                "Choose a place outside it with --output"
            )
    return address


def _lies_in(address: str, part: Part) -> bool:
    """Whether images that are written there would be found in a source."""
    root = f"{part.root.rstrip('/')}/"
    if not f"{address}/".startswith(root):
        return False
    below = address[len(root) :]
    return not (below and part.patterns) or any(pattern(text).may_match_below(below) for text in part.patterns)
