"""Check what a release is made of: version, changelog, wheel, sdist, metadata, licence, links and bill of materials.

    make release-check HOME_URL=https://example.org/trtjob

The package page shows the README away from its repository, so its links are made absolute for the release: they lead
below HOME_URL, which becomes the project's address as well. What is built lies in dist/.
"""

import argparse
import email
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).parent / "uv"
DIST = ROOT / "dist"
_RELATIVE = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)")


class CheckError(Exception):
    """What a release lacks."""


def main() -> int:
    """Run all checks. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", default="", help="the address below which README's links are to be read")
    home = parser.parse_args().home.rstrip("/")
    checks: list[tuple[str, Callable[[], str]]] = [
        ("version", version),
        ("build", lambda: build(home)),
        ("wheel", wheel),
        ("sdist", sdist),
        ("metadata", metadata),
        ("links", links),
        ("materials", materials),
    ]
    failed = 0
    for name, check in checks:
        try:
            print(f"{name:<10} ok      {check()}")
        except (CheckError, subprocess.CalledProcessError) as err:
            failed += 1
            print(f"{name:<10} FAILED  {getattr(err, 'stderr', '') or err}")
    return int(failed > 0)


def project() -> str:
    """Return the version that pyproject.toml names."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def version() -> str:
    """Compare the version with the changelog's first heading."""
    heading = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if heading is None or project() not in heading[1]:
        raise CheckError(f"CHANGELOG.md begins with '{heading and heading[1]}', and the version is {project()}")
    return f"{project()}, which CHANGELOG.md begins with"


def build(home: str) -> str:
    """Build wheel and sdist of a copy whose README's links lead to the project's address."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "trtjob"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".git", "dist", ".*_cache"))
        if home:
            readme, pyproject = copy / "README.md", copy / "pyproject.toml"
            readme.write_text(_RELATIVE.sub(rf"]({home}/\1)", readme.read_text()))
            places = {"Homepage": home, "Documentation": f"{home}/docs", "Changelog": f"{home}/CHANGELOG.md"}
            urls = "".join(f'{name} = "{place}"\n' for name, place in places.items())
            head = "[project.scripts]"
            pyproject.write_text(pyproject.read_text().replace(head, f"[project.urls]\n{urls}\n{head}", 1))
        for old in (*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")):
            old.unlink()
        run(str(UV), "build", "--quiet", "--out-dir", str(DIST), cwd=copy)
    return ", ".join(sorted(path.name for path in (*DIST.glob("*.whl"), *DIST.glob("*.tar.gz"))))


def the_wheel() -> Path:
    """Return the wheel that was built."""
    return next(DIST.glob("*.whl"))


def wheel() -> str:
    """Look for what the wheel must hold."""
    names = ZipFile(the_wheel()).namelist()
    ends = ("licenses/LICENSE", "trtjob/py.typed", "man1/trtjob.1", "completions/trtjob", "doc/trtjob/notify.md")
    if missing := [end for end in ends if not any(name.endswith(end) for name in names)]:
        raise CheckError(f"the wheel lacks {', '.join(missing)}")
    return f"{len(names)} files, {the_wheel().stat().st_size / 1e6:.1f} MB: licence, types, manual page, documents"


def sdist() -> str:
    """Look for what the sdist must hold."""
    with tarfile.open(next(DIST.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    if missing := [end for end in ("/LICENSE", "/README.md", "/pyproject.toml") if not any(map(_ends(end), names))]:
        raise CheckError(f"the sdist lacks {', '.join(missing)}")
    return f"{len(names)} files"


def _ends(end: str) -> Callable[[str], bool]:
    return lambda name: name.endswith(end)


def metadata() -> str:
    """Have the package page's renderer read the metadata."""
    files = map(str, (*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")))
    run(str(UV), "tool", "run", "--quiet", "--from", "twine>=6", "twine", "check", "--strict", *files)
    return "rendered by twine"


def links() -> str:
    """Look for links on the package page that lead nowhere from there."""
    with ZipFile(the_wheel()) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        page = email.message_from_bytes(archive.read(name))
    if relative := sorted(set(_RELATIVE.findall(str(page.get_payload())))):
        raise CheckError(f"{len(relative)} links are relative, such as {relative[0]}: give HOME_URL=https://...")
    return f"all absolute; {len(page.get_all('Project-URL') or ())} Project-URLs"


def materials() -> str:
    """Write the bill of materials of what a base installation brings, in CycloneDX's form."""
    target = DIST / f"trtjob-{project()}.cdx.json"
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "requirements.txt"
        command = [str(UV), "pip", "compile", "pyproject.toml", "--extra", "cpu", "--constraint", "requirements.lock"]
        run(*command, "--no-header", "--no-annotate", "--generate-hashes", "--quiet", "--output-file", str(pins))
        tool = [
            str(UV),
            "tool",
            "run",
            "--quiet",
            "--from",
            "cyclonedx-bom>=7,<8",
            "cyclonedx-py",
            "requirements",
            str(pins),
        ]
        run(*tool, "--pyproject", str(ROOT / "pyproject.toml"), "--output-file", str(target), "--of", "JSON")
    found = list(_components(json.loads(target.read_text())))
    return f"{target.name}: {len(found)} packages"


def _components(document: dict[str, list[dict[str, str]]]) -> Iterator[str]:
    return (component["name"] for component in document["components"])


def run(*command: str, cwd: Path = ROOT) -> None:
    """Run a command. Raises CalledProcessError with what it has said."""
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main())
