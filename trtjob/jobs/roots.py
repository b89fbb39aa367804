"""The places that jobs may name, where a machine allows no others (`TRTJOB_ROOTS`)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from trtjob.errors import ConfigError
from trtjob.jobs.spec import JobSpec, Source
from trtjob.storage import is_address
from trtjob.storage.http import SETTING
from trtjob.storage.prefetch import prefetch_map
from trtjob.storage.uri import is_web
from trtjob.web_address import parsed_address
from trtjob.web_connection import Refused, Resolve, addresses_of, checked_address


def check_spec(spec: JobSpec, roots: Sequence[str], home: Path) -> None:
    """Check where a job reads and writes. home: models may lie there, whatever the roots. Raises ConfigError."""
    for root in spec.source.roots:
        check_places({"source": root}, roots)
    check_places({"output": spec.output}, roots)
    if roots:
        check_places({"model": spec.model.uri or spec.model.path}, [*roots, str(home)])


def check_places(places: Mapping[str, str | Path], roots: Sequence[str]) -> None:
    """Raise ConfigError for the first place, named by what it is, that lies in none of the roots. No roots: all may be.

    Links are followed on both sides, as they are now: who may make links inside a root may lead out of it.
    """
    for what, place in places.items():
        if roots and not any(_is_below(str(place), root) for root in roots):
            allowed = ", ".join(roots)
            raise ConfigError(f"the {what} '{place}' is in none of the places allowed here (TRTJOB_ROOTS): {allowed}")


def _is_below(place: str, root: str) -> bool:
    if is_address(place) != is_address(root):
        return False
    if not is_address(place):
        place, root = os.path.realpath(place), os.path.realpath(root)
    return f"{place.rstrip('/')}/".startswith(f"{root.rstrip('/')}/")


def check_servers(source: Source, *, allow_local: bool, resolve: Resolve = addresses_of) -> None:
    """Raise ConfigError where a source's web addresses are not of public machines; one that has no name passes.

    It is checked again when an image is fetched: a name may lead elsewhere then.
    """
    servers = {parsed_address(root).host: parsed_address(root).port for root in source.roots if is_web(root)}

    def refusal(server: tuple[str, int]) -> str:
        host, port = server
        try:
            checked_address(host, resolve(host, port), allow_local=allow_local, setting=SETTING)
        except Refused as err:
            return str(err)
        except OSError:
            pass
        return ""

    if why := next(filter(None, prefetch_map(refusal, servers.items())), ""):
        raise ConfigError(f"an image's address: {why}")
