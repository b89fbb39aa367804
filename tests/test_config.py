import os
import traceback
from pathlib import Path

import pytest
from users import as_nobody

from trtjob.config import Settings, config_file, default_home, load_settings
from trtjob.errors import ConfigError


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings file, named in the environment; the test writes it."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv("TRTJOB_CONFIG", str(path))
    return path


def test_without_environment_and_file_the_defaults_hold() -> None:
    settings = load_settings()
    assert settings.redis_url is None
    assert settings.queue == "trtjob"
    assert settings.home == default_home()


def test_the_environment_sets_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTJOB_LEASE_S", "7.5")
    assert load_settings().lease_s == 7.5


def test_the_name_of_a_variable_may_be_written_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("trtjob_Lease_s", "7.5")
    assert load_settings().lease_s == 7.5
    monkeypatch.setenv("TRTJOB_LEASE_S", "8.5")
    assert load_settings().lease_s == 8.5


def test_settings_that_are_given_whole_are_no_one_elses(toml: Path) -> None:
    """As those of a worker process, which its supervisor tells."""
    toml.write_text("batch: 3\n")
    assert Settings(queue="night").queue == "night"


def test_a_secret_that_is_given_wrongly_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(notify_secret=["s3cret"])
    assert str(caught.value).startswith("--notify-secret: ")
    assert "s3cret" not in str(caught.value)


def test_the_file_sets_a_setting(toml: Path) -> None:
    toml.write_text('queue = "night"\n')
    assert load_settings().queue == "night"


def test_the_environment_wins_over_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('queue = "night"\n')
    monkeypatch.setenv("TRTJOB_QUEUE", "day")
    assert load_settings().queue == "day"


def test_without_a_name_the_file_is_looked_for_in_the_config_home(tmp_path: Path) -> None:
    assert config_file() == tmp_path / "user" / ".config" / "trtjob" / "config.toml"
    config_file().parent.mkdir(parents=True)
    config_file().write_text("batch = 3\n")
    assert load_settings().batch == 3


def test_the_data_home_decides_where_models_and_server_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    settings = load_settings()
    assert settings.models_dir == tmp_path / "data" / "trtjob" / "models"
    assert settings.server_dir == tmp_path / "data" / "trtjob" / "server"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be a user of whom nothing is known")
def test_a_user_without_a_home_is_told_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    os.setreuid(54321, -1)
    try:
        with pytest.raises(ConfigError, match="set HOME"):
            load_settings()
    finally:
        os.setreuid(0, -1)


@pytest.mark.parametrize("place", ["~/kept", "~kept"])
def test_home_is_read_as_a_shell_does(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    toml.write_text(f'home = "{place}"\n')
    assert load_settings().home == (tmp_path / "kept" if place == "~/kept" else Path.cwd() / "~kept")


def test_a_home_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTJOB_HOME", "")
    with pytest.raises(ConfigError, match="TRTJOB_HOME = '': expected a folder"):
        load_settings()


def test_a_relative_home_is_seen_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRTJOB_HOME", "kept")
    assert load_settings().models_dir == tmp_path / "kept" / "models"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("TRTJOB_LEASE_S", "0.1", id="too small"),
        pytest.param("TRTJOB_THREADS", "many", id="no number"),
        pytest.param("TRTJOB_QUEUE", "Night Queue", id="no queue name"),
        pytest.param("TRTJOB_LOG_LEVEL", "LOUD", id="no choice"),
        pytest.param("TRTJOB_PLAN_BATCHES", "8:4:2", id="batches in the wrong order"),
        pytest.param("TRTJOB_PLAN_BATCHES", "8:4", id="two batches"),
        pytest.param("TRTJOB_PLAN_BATCHES", "1:2:3:4", id="four batches"),
        pytest.param("TRTJOB_PLAN_BATCHES", "x", id="no batches"),
        pytest.param("TRTJOB_PLAN_BATCHES", "", id="empty batches"),
        pytest.param("TRTJOB_PLAN_BATCHES", "0", id="batches of none"),
        pytest.param("TRTJOB_PLAN_BATCHES", "0:1:1", id="smallest batch of none"),
        pytest.param("TRTJOB_PLAN_BATCHES", "1:32:1025", id="batches too large"),
        pytest.param("TRTJOB_PLAN_STORE", "ftp://x", id="a place of an unknown kind"),
        pytest.param("TRTJOB_PLAN_STORE", "plans", id="a place that depends on where one stands"),
        pytest.param("TRTJOB_PLAN_STORE", "s3://", id="no bucket"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name} = '{value}'"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("TRTJOB_PLAN_BATCHES", "1:8:1024", id="three batches"),
        pytest.param("TRTJOB_PLAN_BATCHES", "8", id="the largest batch"),
        pytest.param("TRTJOB_PLAN_STORE", "/shared/plans", id="a folder"),
        pytest.param("TRTJOB_PLAN_STORE", "s3://bucket/prefix", id="a bucket"),
        pytest.param("TRTJOB_PLAN_STORE", "", id="nowhere"),
    ],
)
def test_a_setting_of_plans_is_taken_as_it_is(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert load_settings().model_dump()[name.removeprefix("TRTJOB_").lower()] == value


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTJOB_THREADS", "-1")
    monkeypatch.setenv("TRTJOB_BATCH", "-1")
    with pytest.raises(ConfigError, match=r"TRTJOB_THREADS.*TRTJOB_BATCH"):
        load_settings()


def test_an_unknown_setting_in_the_file_is_refused(toml: Path) -> None:
    toml.write_text("batchsize = 3\n")
    with pytest.raises(ConfigError, match="wrong setting: batchsize: there is no such setting"):
        load_settings()


def test_a_file_that_is_no_toml_is_named(toml: Path) -> None:
    toml.write_text("batch: 3\n")
    with pytest.raises(ConfigError, match=rf"^{toml}: .*line 1"):
        load_settings()


def test_a_file_that_may_not_be_read_is_named(toml: Path) -> None:
    toml.write_text("batch = 3\n")
    toml.chmod(0)
    with as_nobody(), pytest.raises(ConfigError, match=f"{toml} cannot be read: Permission denied"):
        load_settings()


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "trtjob" / "config.toml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read: Is a directory"):
        load_settings()


def test_a_named_file_that_is_missing_is_an_error(toml: Path) -> None:
    with pytest.raises(ConfigError, match=r"TRTJOB_CONFIG.*no such file"):
        load_settings()


def test_the_url_of_the_server_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTJOB_REDIS_URL", "redis://:s3cret@host")
    assert "s3cret" not in repr(load_settings())


def test_a_wrong_url_setting_does_not_show_its_value(toml: Path) -> None:
    toml.write_text('redis_url = ["redis://:s3cret@host"]\n')
    with pytest.raises(ConfigError, match="wrong setting: redis_url: ") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('redis_uri = "redis://:s3cret@host"', id="misspelt"),
        pytest.param('REDIS-URL = "redis://:s3cret@host"', id="written otherwise"),
        pytest.param('[redis]\nurl = "redis://:s3cret@host"', id="in a table"),
        pytest.param('[[servers]]\nurl = "redis://:s3cret@host"', id="in a list of tables"),
        pytest.param('notify-secret = "s3cret"', id="another secret"),
        pytest.param('redis_url = {url = "s3cret"}', id="a table in its place"),
        pytest.param('notify_secret = ["s3cret"]', id="a list in its place"),
        pytest.param('redis_url = "redis://:s3cret@host" x', id="no TOML"),
        pytest.param("redis_url = redis://:s3cret@host", id="without quotes"),
        pytest.param('redis_url = "1"\nredis_url = "s3cret"', id="twice"),
    ],
)
def test_no_value_of_an_unknown_or_secret_setting_is_shown(toml: Path, line: str) -> None:
    toml.write_text(line)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    # The traceback is what --debug prints.
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_misspelt_setting_is_told_from_the_one_that_was_meant(toml: Path) -> None:
    toml.write_text('redis_uri = "redis://host"\n')
    with pytest.raises(ConfigError, match=r"redis_uri: there is no such setting; is it redis_url\? Look at"):
        load_settings()


def test_the_allowed_places_are_separated_by_commas_or_a_list_in_the_file(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text('roots = ["/data", "s3://bucket"]')
    assert load_settings().roots == ("/data", "s3://bucket")
    monkeypatch.setenv("TRTJOB_ROOTS", "/photos, s3://other/prefix,")
    assert load_settings().roots == ("/photos", "s3://other/prefix")


def test_an_allowed_place_that_depends_on_where_one_stands_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTJOB_ROOTS", "/data,photos")
    with pytest.raises(ConfigError, match=r"TRTJOB_ROOTS = .*absolute folders, .* web addresses, not 'photos'"):
        load_settings()


def test_another_prefix_of_rqs_keys_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQ_KEY_PREFIX", "team")
    with pytest.raises(ConfigError, match=r"RQ_KEY_PREFIX is set.*unset it"):
        load_settings()
