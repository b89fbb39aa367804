"""Tables and other tools' files as lists of images."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from trtjob.errors import ConfigError, MissingDependencyError
from trtjob.jobs.list_files import is_list, listed_paths

TWO = ("cam1/a.jpg", "cam 2/b.png")


def written(folder: Path, name: str, content: str | bytes | Any) -> Path:
    file = folder / name
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        pytest.param("x.txt", "cam1/a.jpg\ncam 2/b.png\n", "", id="lines"),
        pytest.param("x.csv", "id,File Name,n\n1,cam1/a.jpg,0\n2,cam 2/b.png,\n", "", id="csv"),
        pytest.param("x.CSV", 'file_path\r\n"cam1/a.jpg"\r\n"cam 2/b.png"\r\n\r\n', "", id="csv of Windows"),
        pytest.param("x.csv", "nr;Pfad\n1;cam1/a.jpg\n2;cam 2/b.png\n", "Pfad", id="semicolons, a column's name"),
        pytest.param("x.csv", "1,cam1/a.jpg\n2,cam 2/b.png\n", "", id="no head"),
        pytest.param("x.csv", "x.jpg,cam1/a.jpg\ny.jpg,cam 2/b.png\n", "2", id="no head, a column's number"),
        pytest.param("x.csv", "what\ncam1/a.jpg\n\ncam 2/b.png\n", "", id="the only column"),
        pytest.param("x.csv", "image,file\nx.jpg,cam1/a.jpg\n,cam 2/b.png\n", "2", id="a number beside names"),
        pytest.param("x.csv", "f,f\nx.jpg,cam1/a.jpg\ny.jpg,cam 2/b.png\n", "2", id="the second of two of one name"),
        pytest.param("x.csv", "path\tn\tm, o\ncam1/a.jpg\t1\t\ncam 2/b.png\t2\t\n", "", id="tabs in a csv"),
        pytest.param("x.csv", "image\ncam1/a.jpg\ncam 2/b.png\n".encode("utf-16"), "", id="UTF-16"),
        pytest.param("x.tsv", "\ufeffpath\tn\ncam1/a.jpg\t1\ncam 2/b.png\t2\n", "", id="tsv with a mark"),
        pytest.param(
            "x.jsonl", '{"image": "cam1/a.jpg", "n": 1}\n\n{"image": "cam 2/b.png"}\n', "", id="our own results"
        ),
        pytest.param("x.ndjson", '"cam1/a.jpg"\n"cam 2/b.png"\n', "", id="lines of JSON"),
        pytest.param(
            "x.jsonl", '{"image": "cam1/a.jpg"}\n{"n": 1, "file": "cam 2/b.png"}\n{"file": null}\n', "", id="two names"
        ),
        pytest.param("x.json", list(TWO), "", id="an array"),
        pytest.param("x.json", [{"where": path, "url": "u"} for path in TWO], "where", id="objects"),
        pytest.param(
            "x.json",
            {"images": [{"id": 1, "file_name": path, "coco_url": "http://x/y.jpg"} for path in TWO], "annotations": []},
            "",
            id="COCO",
        ),
        pytest.param(
            "x.json",
            {
                "info": {},
                "images": [{"file": TWO[0], "detections": []}, {"file": TWO[1], "failure": "Failure image access"}],
            },
            "",
            id="MegaDetector",
        ),
        pytest.param(
            "x.json", {"images": [{"file_name": "n", "coco_url": path} for path in TWO]}, "coco_url", id="a URL"
        ),
    ],
)
def test_the_images_of_a_list_are_found(tmp_path: Path, name: str, content: Any, column: str) -> None:
    file = written(tmp_path, name, content)
    assert is_list(file)
    assert listed_paths(file, column) == TWO


@pytest.mark.parametrize(
    ("name", "content", "column", "told"),
    [
        pytest.param(
            "x.csv", "image,url\na.jpg,b\n", "", "which column names the images. .*: 'image', 'url'", id="two"
        ),
        pytest.param(
            "x.csv", "a,b\n1,2\n", "", "which column names the images. Name one with --column: 'a', 'b'", id="no"
        ),
        pytest.param(
            "x.csv", "a,b\n1,2\n", "c", "it has no column 'c'. Name one with --column: 'a', 'b'", id="another"
        ),
        pytest.param("x.csv", "", "", "it is empty", id="empty"),
        pytest.param("x.csv", "a,b\n1,2\n", "3", "it has no column '3'", id="a number too large"),
        pytest.param("x.csv", "a.jpg,b.jpg\n", "", "first line has no names of columns.*--column 1 to 2", id="no head"),
        pytest.param(
            "x.csv", "a,file\n1,b.jpg\n2\n", "", "line 3 has 1 columns, and the images are in column 2", id="short"
        ),
        pytest.param("x.csv", 'file\n"a.jpg\n', "", "is no .csv file: unexpected end of data", id="quotes"),
        pytest.param("x.json", "{", "", "is no .json file", id="no JSON"),
        pytest.param("x.json", "[" * 100_000, "", "is no .json file", id="deep JSON"),
        pytest.param(
            "x.json", {"boxes": []}, "", "has no array `images`, as COCO's and MegaDetector's", id="no images"
        ),
        pytest.param("x.json", [1], "", "expected paths or objects with one, got 1", id="numbers"),
        pytest.param("x.json", [{"file": 1}], "", "the column 'file' holds 1, which is no path", id="a number"),
        pytest.param("x.jsonl", '{"a": 1, "b": 2}\n', "", "which column names the images", id="no column"),
        pytest.param("x.jsonl", '"a.jpg"\n\n{"file":\n', "", "line 3 is no JSON: Expecting value", id="a broken line"),
        pytest.param("x.jsonl", '{"u": "a.jpg"}\n{"b": 2}\n', "u", "object 2: it has no column 'u'", id="in some"),
    ],
)
def test_what_is_no_list_is_refused_by_what_it_lacks(
    tmp_path: Path, name: str, content: Any, column: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=rf"the list '.*{name}'.*{told}"):
        listed_paths(written(tmp_path, name, content), column)


def test_a_table_of_nothing_names_no_image(tmp_path: Path) -> None:
    assert listed_paths(written(tmp_path, "x.csv", "file\n\n")) == ()
    assert listed_paths(written(tmp_path, "x.json", {"images": []})) == ()
    assert not is_list(tmp_path)


def test_a_list_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the list '.*x.csv': No such file"):
        listed_paths(tmp_path / "x.csv")


def test_a_parquet_file_is_a_table(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: make setup brings it")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"n": [1, 2, 3], "path": [TWO[0], None, TWO[1]]}), file)
    assert listed_paths(file) == listed_paths(file, "2") == TWO
    with pytest.raises(ConfigError, match="the column 'n' holds 1, which is no path"):
        listed_paths(file, "n")
    with pytest.raises(ConfigError, match=re.escape("x.parquet' is no .parquet file")):
        listed_paths(written(tmp_path, "x.parquet", "rubbish"))


def test_without_pyarrow_a_parquet_file_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"'pyarrow' is not installed.*trtjob\[parquet\]"):
        listed_paths(written(tmp_path, "x.parquet", "rubbish"))
