"""Where jobs may read and write, on a machine that allows no other place."""

from pathlib import Path

import pytest
from samples import MODEL, job_spec

from trtjob.errors import ConfigError
from trtjob.jobs.roots import check_places, check_servers, check_spec
from trtjob.jobs.spec import Part, Source


@pytest.mark.parametrize(
    ("place", "root"),
    [
        ("/data/photos", "/data"),
        ("/data", "/data"),
        ("/data", "/data/"),
        ("/anything", "/"),
        ("s3://bucket/photos/2026", "s3://bucket/photos"),
        ("s3://bucket", "s3://bucket/"),
        ("https://host/photos", "https://host"),
    ],
)
def test_a_place_below_a_root_is_allowed(place: str, root: str) -> None:
    check_places({"source": place}, ["/elsewhere", root])


@pytest.mark.parametrize(
    ("place", "root"),
    [
        ("/database", "/data"),
        ("/", "/data"),
        ("/data/../etc", "/data"),
        ("s3://bucket-2/photos", "s3://bucket"),
        ("s3://bucket/photos-2", "s3://bucket/photos"),
        ("s3://bucket", "/"),
        ("https://host.example", "https://host"),
        ("http://host", "https://host"),
        ("https://host", "/"),
        ("/s3://bucket", "s3://bucket"),
    ],
)
def test_a_place_outside_is_named_with_what_is_allowed(place: str, root: str) -> None:
    with pytest.raises(ConfigError, match=f"the output '{place}' is in none of .* \\(TRTJOB_ROOTS\\): {root}"):
        check_places({"output": place}, [root])


def test_links_are_followed_before_places_are_compared(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "inside" / "way-out").symlink_to(tmp_path / "outside")
    (tmp_path / "way-in").symlink_to(tmp_path / "inside")
    check_places({"source": tmp_path / "way-in" / "photos"}, [str(tmp_path / "inside")])
    with pytest.raises(ConfigError, match="way-out"):
        check_places({"source": tmp_path / "inside" / "way-out"}, [str(tmp_path / "inside")])


def test_every_place_of_several_is_looked_at() -> None:
    parts = tuple(Part(name=name, root=f"/{name}", is_listed=True) for name in ("data", "etc"))
    spec = job_spec("/data", "/data/out").model_copy(update={"source": Source(kind="folder", root="", parts=parts)})
    with pytest.raises(ConfigError, match="the source '/etc' is in none of"):
        check_spec(spec, ["/data"], Path("/home/ann"))


def test_servers_that_are_not_public_are_said_before_the_job_begins() -> None:
    names = {"public": ["93.184.215.14"], "inside": ["10.0.0.7"]}

    def resolve(host: str, _port: int) -> list[str]:
        if host not in names:
            raise OSError("no such host")
        return names[host]

    def check(*hosts: str, allow_local: bool = False) -> None:
        parts = tuple(Part(name=host, root=f"https://{host}/a", is_listed=False) for host in hosts)
        check_servers(Source(kind="list", root="", parts=parts), allow_local=allow_local, resolve=resolve)

    check("public", "gone")
    check("public", "inside", allow_local=True)
    with pytest.raises(ConfigError, match=r"inside leads to 10.0.0.7.*TRTJOB_FETCH_ALLOW_LOCAL"):
        check("public", "inside", "gone")


def test_without_roots_every_place_is_allowed() -> None:
    check_spec(job_spec("/etc", "/usr"), [], Path("/home/ann"))


def test_a_model_may_lie_in_a_root_or_at_home() -> None:
    spec = job_spec("/data/photos", "/data/out")
    at_home = spec.model_copy(update={"model": MODEL.model_copy(update={"path": "/home/ann/models/files/a.onnx"})})
    check_spec(at_home, ["/data"], Path("/home/ann"))
    with pytest.raises(ConfigError, match=r"the model '/models/tiny\.onnx'"):
        check_spec(spec, ["/data"], Path("/home/ann"))
    shipped = spec.model_copy(update={"model": MODEL.model_copy(update={"uri": "s3://bucket/models/a.onnx"})})
    check_spec(shipped, ["/data", "s3://bucket"], Path("/home/ann"))
    with pytest.raises(ConfigError, match="the model 's3://bucket"):
        check_spec(shipped, ["/data"], Path("/home/ann"))
