"""What the documents name is looked up, and what does not exist is told."""

from pathlib import Path

import pytest

from scripts.docs_check import PAGES, ROOT, problems


def test_what_our_documents_name_exists() -> None:
    assert {page.name: found for page in PAGES if (found := problems(page))} == {}


NOTHING = "_".join(("TRTJOB", "NOTHING"))  # else this file would be one that reads it


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("see `trtjob/nowhere.py`", "there is no trtjob/nowhere.py"),
        ("`cli/nowhere.py` is asked first", "there is no cli/nowhere.py"),
        ("    python -m scripts.nowhere --fast", "there is no module scripts.nowhere"),
        ("    make sandwich", "make knows no sandwich"),
        ("    trtjob fly photos/", "there is no command trtjob fly"),
        ("`trtjob run photos/ --model m --wings`", "trtjob run knows no --wings"),
        ("`trtjob models forget m`", "there is no command trtjob models forget"),
        (f"`{NOTHING}=1`", f"nothing reads {NOTHING}"),
        ("[there](nowhere.md)", "there is no file nowhere.md"),
        ("# One\n[two](#two)", "there is no heading #two"),
        ("```sh\ntrtjob run p/ --wings\n```", "trtjob run knows no --wings"),
    ],
)
def test_what_does_not_exist_is_named(text: str, problem: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert problems(page) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        "`trtjob/cli/app.py`, `cli/app.py` and `docs/*.md`",
        "    trtjob run photos/ --model m -o out | tee log --no-such",
        "trtjob fly is a sentence",
        "# A heading: with `code`\n[it](#a-heading-with-code)",
        "`trtjob models list --json`",
    ],
)
def test_what_exists_is_fine(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert problems(page) == []


def test_every_document_lies_in_the_wheel() -> None:
    shared = ROOT / "packaging" / "share" / "doc" / "trtjob"
    assert {path.name for path in shared.iterdir()} == {path.name for path in (ROOT / "docs").glob("*.md")}
    assert all(path.exists() for path in shared.iterdir())
