"""The container image, built by buildah and used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import ROOT

from scripts.image import TOOLS, filled_in

SCRIPT = ROOT / "scripts" / "image.py"
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
WHY_NOT = f"not found: {', '.join(MISSING)}" if MISSING else "needs root" if os.geteuid() != 0 else ""


@pytest.mark.image
@pytest.mark.timeout(1200)
@pytest.mark.skipif(bool(WHY_NOT), reason=f"no image can be built here: {WHY_NOT}")
def test_the_image_is_built_small_and_works_as_compose_has_it(tmp_path: Path) -> None:
    """What is looked at is named in what the script prints."""
    built = subprocess.run(
        [sys.executable, SCRIPT], env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout[-5000:] + built.stderr[-5000:]
    assert not (tmp_path / "trtjob-image").exists()


def test_without_its_tools_it_says_what_to_install(tmp_path: Path) -> None:
    refused = subprocess.run([sys.executable, SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Not found: buildah, debootstrap")
    assert "apt-get install buildah debootstrap" in refused.stderr


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("${NAME}", "given", id="a variable"),
        pytest.param("a ${OTHER:-default} b", "a default b", id="one with a default"),
        pytest.param("${NAME:?is not set}", "given", id="one that must be set"),
        pytest.param("$$(cat ${NAME})", "$(cat given)", id="a dollar of the shell's"),
    ],
)
def test_variables_are_filled_in_as_compose_does(text: str, wanted: str) -> None:
    assert filled_in({"command": [text]}, {"NAME": "given"}) == {"command": [wanted]}


def test_a_variable_that_nobody_sets_is_told() -> None:
    with pytest.raises(ValueError, match="nobody sets OTHER"):
        filled_in("${OTHER:?is not set}", {})
