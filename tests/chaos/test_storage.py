"""The job's images and results are in a bucket, and the way there fails in every way it can."""

import random
import time
from pathlib import Path

import pytest
from chaos.conftest import fill
from chaos.fleet import Fleet, kill_every
from fault_proxy import Fault, FaultProxy
from s3_server import S3Server
from terminal import wait_for

from trtjob.jobs.states import TERMINAL

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def filled(s3_process: S3Server, crowd: Path) -> str:
    """A bucket with the crowd in it, under `photos`."""
    bucket = s3_process.new_bucket()
    fill(f"s3://{bucket}/photos", crowd, s3_process)
    return bucket


@pytest.fixture
def far(fleet: Fleet, proxy: FaultProxy, filled: str, s3: S3Server) -> Fleet:
    """The fleet, whose photos and outputs are in buckets behind the proxy."""
    fleet.photos = f"s3://{filled}/photos"
    fleet.output = f"s3://{s3.new_bucket()}/out"
    return fleet


def test_a_calm_run_over_a_bucket_gives_the_same_bytes(far: Fleet, calm: bytes) -> None:
    node = far.node()
    job_id = far.submit()
    far.check(job_id, calm)
    far.end(node)


def test_workers_are_killed_while_they_write_to_a_bucket(far: Fleet, calm: bytes) -> None:
    nodes = [far.node(), far.node()]
    job_id = far.submit()
    kills = kill_every(
        2.5, lambda: far.worker_pids(*nodes), lambda: far.view(job_id).state in TERMINAL, random.Random(3)
    )
    assert kills >= 2
    far.check(job_id, calm)
    far.end(*nodes)


def test_a_store_that_fails_makes_the_job_wait_and_no_image_fail(far: Fleet, proxy: FaultProxy, calm: bytes) -> None:
    """Each fault in turn, on one job."""
    node = far.node()
    job_id = far.submit()
    faults: list[Fault] = ["slow_down", "reset", "truncate", "refuse", "hang"]
    for number, fault in enumerate(faults, start=1):
        far.wait_done(job_id, 90 * number)
        proxy.fail(fault)
        degraded = wait_for(lambda: far.view(job_id).degraded, f"the job to be degraded by {fault}", 60)
        assert "fails: " in degraded
        done = far.view(job_id).done
        assert degraded in far.terminal.run("status", job_id).out
        time.sleep(2)
        assert far.view(job_id).done <= done + 60, "the store fails, and the job goes on"
        proxy.fail(None)
        wait_for(lambda: not far.view(job_id).degraded, "the end of the trouble", 30)
    far.check(job_id, calm)
    far.end(node)


def test_requests_that_fail_now_and_then_are_only_tried_again(far: Fleet, proxy: FaultProxy, calm: bytes) -> None:
    node = far.node()
    chance = random.Random(5)
    faults: list[Fault] = ["slow_down", "reset", "truncate", "refuse", "drip"]

    def meet(_line: bytes) -> bool:
        proxy.fault = chance.choice(faults)
        return chance.random() < 0.1

    proxy.fail("slow_down")
    proxy.only = meet
    job_id = far.submit()
    far.check(job_id, calm)
    assert proxy.met > 50
    far.end(node)


def test_a_folder_is_uploaded_for_workers_elsewhere_and_the_model_with_it(
    far: Fleet, crowd: Path, calm: bytes, tmp_path: Path
) -> None:
    far.photos = crowd
    job_id = far.submit("--upload")
    spec = far.view(job_id).spec
    assert spec.source.root.startswith(f"{far.output}/uploads/photos-")
    assert spec.model.uri == f"{far.output}/models/{spec.model.sha256}.onnx"
    Path(spec.model.path).unlink()  # as on another machine
    node = far.node(TRTJOB_HOME=str(tmp_path / "elsewhere"))
    far.check(job_id, calm)
    far.end(node)
