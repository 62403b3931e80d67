"""kaggle:// through kagglehub, against a local server that speaks its protocol."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from models.weights.kaggle import kaggle_name
from models.weights.named_weights import local_folder
from tests.helpers.hub_servers import KaggleServer, serving

kagglehub = pytest.importorskip("kagglehub", reason="pip install -e '.[kaggle]'")
kaggle_env = pytest.importorskip("kagglesdk.kaggle_env")

NAME = "kaggle://someone/some-model/tensorFlow2/base"
FILES = {
    "saved_model.pb": os.urandom(1000),
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": os.urandom(3_000_000),
}


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    for variable in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "config"))
    with serving(KaggleServer) as server:
        server.files = dict(FILES)
        point_to(monkeypatch, server.url)
        yield server


def point_to(monkeypatch, url):
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, url)


def fetch(name=NAME):
    return Path(local_folder(name, convert=lambda source, target: pytest.fail("a SavedModel is taken as it is")))


def assert_whole(folder):
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == FILES


def refused(name=NAME):
    with pytest.raises((ValueError, OSError)) as caught:
        fetch(name)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{name}: ")
    return message.removeprefix(f"{name}: ")


def test_a_saved_model_is_fetched_once_byte_for_byte(kaggle, capfd):
    folder = fetch()
    assert_whole(folder)
    assert len([line for line in kaggle.requests if line.startswith("GET ")]) == len(FILES)
    assert capfd.readouterr().out == ""  # the library's own log lines are kept back
    kaggle.requests.clear()
    assert fetch() == folder
    assert kaggle.requests == ["POST GetModelInstance"]  # is there a newer version?


def test_a_name_with_its_version_needs_no_network_the_second_time(kaggle, monkeypatch):
    folder = fetch(f"{NAME}/3")
    kaggle.requests.clear()
    point_to(monkeypatch, "http://127.0.0.1:9")
    assert fetch(f"{NAME}/3") == folder and kaggle.requests == []
    said = refused()
    assert "check the network" in said
    assert said.endswith(f"a name with its version, {NAME}/1, is taken from the cache without one")


def test_a_download_that_breaks_off_is_never_used_and_goes_on(kaggle, monkeypatch):
    kaggle.cut = "variables/variables.data-00000-of-00001"
    assert refused(f"{NAME}/3") == "the download broke off; run the same command again, and it goes on"
    url = kaggle_env.get_endpoint(kaggle_env.KaggleEnv.PROD)
    point_to(monkeypatch, "http://127.0.0.1:9")
    assert "check the network" in refused(f"{NAME}/3")  # what is there is not whole
    point_to(monkeypatch, url)
    kaggle.cut = ""
    kaggle.requests.clear()
    assert_whole(fetch(f"{NAME}/3"))
    (resumed,) = [line for line in kaggle.requests if "bytes=" in line]
    assert int(resumed.partition("bytes=")[2].rstrip("-")) > 0  # not from the beginning


def test_what_arrives_damaged_is_not_used(kaggle, monkeypatch):
    kaggle.cut = "variables/variables.data-00000-of-00001"
    refused(f"{NAME}/3")
    kaggle.cut = ""
    # The file on the server is another one now: its rest does not go with the half that is here.
    kaggle.files["variables/variables.data-00000-of-00001"] = os.urandom(3_000_000)
    assert refused(f"{NAME}/3") == "the download broke off; run the same command again, and it goes on"
    folder = fetch(f"{NAME}/3")
    data = "variables/variables.data-00000-of-00001"
    assert (folder / data).read_bytes() == kaggle.files[data]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "Kaggle answers 401: no such model, or one whose terms you have to accept on its page first; log in"),
        (403, "Kaggle answers 403: no such model, or one whose terms you have to accept on its page first; log in"),
        (404, "Kaggle answers 404: no such model; check owner, model, framework, variation and version"),
        (429, "Kaggle answers 429 (too many requests); wait some minutes and run the same command again"),
        (500, "Kaggle answers 500; run the same command again later"),
    ],
)
@pytest.mark.parametrize("version", ["", "/3"])
def test_each_answer_of_kaggle_is_one_line(kaggle, status, expected, version):
    kaggle.status = status
    assert refused(f"{NAME}{version}").startswith(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kaggle://someone/other-model/tensorFlow2/base", "Kaggle answers 404: no such model"),
        ("kaggle://owner/model", "not a name of Kaggle Models; write kaggle://OWNER/MODEL/FRAMEWORK/VARIATION"),
        ("kaggle://someone/some-model/tensorFlow2/base/newest", "Invalid version number"),
        ("kaggle://someone/some-model/tensorflow9/base", ""),
    ],
)
def test_a_wrong_name_is_one_line(kaggle, name, expected):
    assert expected in refused(name)


def test_a_full_disk_is_one_line(kaggle, monkeypatch):
    def no_room(*arguments, **fields):
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/file")

    monkeypatch.setattr(kagglehub.http_resolver, "download_file", no_room)
    assert refused().startswith("no room on the disk of /cache/file; free some")


def test_a_handle_of_tensorflow_hub_has_its_kaggle_name():
    expected = "kaggle://vasudevgupta7/wav2vec2/tensorFlow2/wav2vec2/1"
    assert kaggle_name("https://tfhub.dev/vasudevgupta7/wav2vec2/1") == expected
    assert kaggle_name("https://example.org/vasudevgupta7/wav2vec2/1") == ""
