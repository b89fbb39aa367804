"""The files below `docker/`, read; what their commands do is tried as plain processes; `test_image.py` builds."""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from terminal import ROOT

from scripts.image import filled_in

DOCKER = ROOT / "docker"
# An instruction of a Dockerfile: its name and what it is given, on one line.
Instruction = tuple[str, str]

# What a person writes into docker/.env.
DOT_ENV = {
    "VALKEY_PASSWORD": "correcthorsebatterystaple",
    "S3_ACCESS_KEY": "someone",
    "S3_SECRET_KEY": "somethingsecret",
}


@pytest.fixture(scope="session")
def stages() -> dict[str, list[Instruction]]:
    """The Dockerfile's stages; what stands before the first is called `` (nothing)."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text()).replace("\\\n", " ")
    found: dict[str, list[Instruction]] = {"": []}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            name = rest.rpartition(" AS ")[2]
            found[name] = []
        found[name].append((keyword, " ".join(rest.split())))
    return found


@pytest.fixture(scope="session")
def services() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml, with the variables filled in as Compose does."""
    document = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    services: dict[str, dict[str, Any]] = filled_in(document["services"], DOT_ENV)
    return services


@pytest.fixture(scope="session")
def manifests() -> dict[str, dict[str, Any]]:
    """The Kubernetes objects by kind, which are one of each."""
    objects = [
        document
        for path in sorted((DOCKER / "k8s").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]
    assert len({item["kind"] for item in objects}) == len(objects)
    return {item["kind"]: item for item in objects}


@pytest.fixture
def tool() -> Any:
    """Find a program that a development package brings, beside the interpreter, or one of the machine's."""

    def find(name: str) -> str:
        places = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        found = shutil.which(name, path=os.pathsep.join(places))
        if found is None:
            reason = f"{name} is not installed; run make setup"
            if os.environ.get("TRTJOB_REQUIRE_SERVICES") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        return found

    return find
