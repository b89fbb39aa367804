"""Names of classes on a command line."""

from pathlib import Path

import pytest

from trtjob.api.label_names import file_of_labels
from trtjob.errors import ConfigError


def test_names_become_a_file_of_their_own(tmp_path: Path) -> None:
    models = tmp_path / "models"
    file = file_of_labels(Path("no, yes"), models)
    assert file is not None
    assert file.read_text() == "no\nyes\n"
    assert file == file_of_labels(Path("no,yes"), models)
    assert file != file_of_labels(Path("yes,no"), models)


@pytest.mark.parametrize("asked", [None, Path("pets.names"), Path("a,b/pets.names")])
def test_what_names_a_file_stays(asked: Path | None, tmp_path: Path) -> None:
    assert file_of_labels(asked, tmp_path / "models") == asked


def test_a_file_may_lie_below_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert file_of_labels("~/pets.names", tmp_path / "models") == tmp_path / "pets.names"


def test_a_file_whose_name_has_a_comma_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("no,yes").write_text("cat\ndog\n")
    assert file_of_labels(Path("no,yes"), tmp_path / "models") == Path("no,yes")


@pytest.mark.parametrize("asked", ["no,", ",yes", "no,,yes"])
def test_a_missing_name_is_said(asked: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a name is missing"):
        file_of_labels(Path(asked), tmp_path / "models")
