"""`trtjob models build`, as far as it goes without a GPU."""

import pytest
from cli.conftest import Command


@pytest.mark.parametrize("batches", ["8:4:2", "8:4", "x", "1:1:4096"])
def test_batches_that_no_plan_can_have_are_refused_as_wrong_usage(trtjob: Command, batches: str) -> None:
    outcome = trtjob("models", "build", "yolov3", "--batch", batches)
    assert outcome.code == 2
    assert f"--batch '{batches}': expected 1 <= smallest" in outcome.err


@pytest.mark.parametrize(("name", "value"), [("TRTJOB_PLAN_BATCHES", "8:4:2"), ("TRTJOB_PLAN_STORE", "ftp://x")])
def test_a_wrong_setting_of_plans_is_refused_before_any_job_runs(
    trtjob: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    outcome = trtjob("models")
    assert outcome.code == 2
    assert f"{name} = '{value}'" in outcome.err
