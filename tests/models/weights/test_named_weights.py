"""Weights by name, against local servers: what is fetched, what is cached, and one line for each way it can fail."""

from __future__ import annotations

import errno
import io
import os
import random
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import huggingface_hub.utils._http as hub_http
import pytest
from huggingface_hub import constants

from models.weights.named_weights import local_folder
from tests.helpers.hub_servers import COMMIT, serving

NAME = "hf://someone/some-model"
FILES = {
    "config.json": b'{"model_type": "wav2vec2"}',
    "vocab.json": b"{}",
    "model.safetensors": b"x" * 100_000,
    "pytorch_model.bin": b"p" * 1000,
    "tf_model.h5": b"t" * 1000,
    "README.md": b"# A model",
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_http.time, "sleep", lambda secs: None)  # the library waits before it tries again
    with serving() as server:
        point_to(monkeypatch, server.url)
        server.files = dict(FILES)
        yield server


def point_to(monkeypatch, url):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


class Converter:
    """Stands for models.convert: copies what it is given, and counts."""

    def __init__(self):
        self.seen = []

    def __call__(self, source, target):
        self.seen.append(sorted(path.name for path in source.iterdir()))
        target.mkdir()
        (target / "weights").write_bytes((source / "model.safetensors").read_bytes())


def refused(name, convert=None):
    with pytest.raises((ValueError, OSError)) as caught:
        local_folder(name, convert=convert or Converter())
    message = str(caught.value)
    assert "\n" not in message and name in message
    return message


def test_a_language_behind_the_name_adds_its_adapter_and_has_a_converted_folder_of_its_own(hub):
    hub.files.update({f"adapter.{code}.safetensors": code.encode() * 50 for code in ("eng", "fra", "deu")})
    hub.files["adapter.swh.bin"] = b"s" * 100
    convert, folders = Converter(), {}
    for code in ("fra", "deu", "swh"):
        folders[code] = local_folder(f"{NAME}#{code}", convert=convert)
    assert len({*folders.values(), local_folder(NAME, convert=convert)}) == 4
    assert [[name for name in seen if "adapter" in name] for seen in convert.seen[:2]] == [
        ["adapter.fra.safetensors"],
        ["adapter.deu.safetensors", "adapter.fra.safetensors"],
    ]
    assert not [line for line in hub.requests if "adapter.eng" in line]
    # The folder has more adapters by now, and French is still the one that was converted.
    assert local_folder(f"{NAME}#fra", convert=convert) == folders["fra"]
    assert len(convert.seen) == 4
    hub.status = 503  # and without the network
    assert local_folder(f"{NAME}#deu", convert=convert) == folders["deu"]
    assert "#LANG" in refused(f"{NAME}#")


def test_a_model_is_fetched_and_converted_once(hub):
    convert = Converter()
    folder = Path(local_folder(NAME, convert=convert))
    assert (folder / "weights").read_bytes() == FILES["model.safetensors"]
    assert convert.seen == [["config.json", "model.safetensors", "vocab.json"]]  # no pickle, no README, no TensorFlow
    fetched = len(hub.requests)
    assert local_folder(NAME, convert=convert) == str(folder)
    assert local_folder(f"{NAME}@{COMMIT}", convert=convert) == str(folder)
    assert len(convert.seen) == 1
    assert not [line for line in hub.requests[fetched:] if "/resolve/" in line]


def test_the_second_start_needs_no_network(hub, monkeypatch):
    folder = local_folder(NAME, convert=Converter())
    point_to(monkeypatch, "http://127.0.0.1:9")
    assert local_folder(NAME, convert=Converter()) == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert local_folder(NAME, convert=Converter()) == folder
    assert "cannot be reached and the cache does not have the whole model" in refused("hf://someone/other")


def test_a_download_that_broke_off_is_never_used(hub, monkeypatch):
    hub.cut = "model.safetensors"
    assert "run the same command again" in refused(NAME)
    url = constants.ENDPOINT
    point_to(monkeypatch, "http://127.0.0.1:9")
    assert "does not have the whole model" in refused(NAME)
    point_to(monkeypatch, url)
    hub.cut = ""
    folder = Path(local_folder(NAME, convert=Converter()))
    assert (folder / "weights").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "", "401 (no permission); log in"),
        (401, "RepoNotFound", "no such model"),
        (403, "", "403 (no permission); log in"),
        (403, "GatedRepo", "its owner asks for consent; accept the terms on http"),
        (404, "RepoNotFound", "no such model"),
        (429, "", "429 (too many requests); wait some minutes"),
        (503, "", "cannot be reached and the cache does not have the whole model"),
    ],
)
def test_each_answer_of_the_hub_is_one_line(hub, status, code, expected):
    hub.status, hub.error_code = status, code
    assert expected in refused(NAME)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{NAME}@no-such-branch", "the model has no revision 'no-such-branch'"),
        ("hf://some-model", "write hf://OWNER/NAME"),
        ("hf://a/b/c", "write hf://OWNER/NAME"),
        ("hf://", "write hf://OWNER/NAME"),
        ("kaggle://owner/model", "write kaggle://OWNER/MODEL/FRAMEWORK/VARIATION"),
    ],
)
def test_a_wrong_name_is_one_line(hub, name, expected):
    assert expected in refused(name)


def test_a_model_without_weights_that_can_be_read_names_its_files(hub):
    hub.files = {"config.json": b"{}", "flax_model.msgpack": b"x"}
    assert "no weights that can be read" in refused(NAME) and "flax_model.msgpack" in refused(NAME)


def test_a_full_disk_is_one_line_and_leaves_nothing(hub, tmp_path):
    def convert(source, target):
        target.mkdir()
        raise OSError(errno.ENOSPC, "No space left on device", str(target / "weights"))

    assert "no room on the disk" in refused(NAME, convert)
    assert list((tmp_path / "cache" / "converted").iterdir()) == []


def test_a_converter_that_refuses_names_the_model(hub, tmp_path):
    def convert(source, target):
        raise ValueError("config.json: model_type 'bert' is not supported")

    assert refused(NAME, convert) == f"{NAME}: config.json: model_type 'bert' is not supported"
    assert list((tmp_path / "cache" / "converted").iterdir()) == []


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(("suffix", "pack"), [(".tar.gz", tar_of), (".zip", zip_of)])
def test_an_archive_is_fetched_once_and_found_without_network(hub, suffix, pack):
    hub.plain[f"/a/model{suffix}"] = pack({f"model/{name}": content for name, content in FILES.items()})
    url, convert = f"{hub.url}/a/model{suffix}", Converter()
    folder = local_folder(url, convert=convert)
    assert Path(folder, "weights").read_bytes() == FILES["model.safetensors"]
    assert local_folder(url, convert=convert) == folder and len(convert.seen) == 1
    hub.shutdown()
    hub.server_close()
    assert local_folder(url, convert=convert) == folder


class Names(Converter):
    """Stands for models.convert where the input is no Hugging Face folder."""

    def __call__(self, source, target):
        self.seen.append(sorted(path.name for path in source.iterdir()))
        target.mkdir()


def test_a_checkpoint_of_fairseq_is_converted_from_an_address_and_from_the_hub(hub):
    hub.plain["/wav2vec_small.pt"] = b"checkpoint"
    url, convert = f"{hub.url}/wav2vec_small.pt", Names()
    folder = local_folder(url, convert=convert)
    assert local_folder(url, convert=convert) == folder and convert.seen == [["wav2vec_small.pt"]]
    hub.files = {"README.md": b"", "omni.pt": b"x", "tokenizer.model": b"y"}
    local_folder(NAME, convert=convert)
    assert convert.seen[1:] == [["omni.pt", "tokenizer.model"]]
    assert local_folder(NAME, convert=convert) and len(convert.seen) == 2
    # Beside a config.json a .pt is the state of an optimizer.
    hub.files = {"config.json": FILES["config.json"], "optimizer.pt": b"x"}
    hub.commit = "b" * 40
    assert "no weights that can be read" in refused(NAME)


@pytest.mark.parametrize("stem", ["pytorch_model.bin", "tf_model.h5"])
@pytest.mark.parametrize("is_sharded", [False, True])
def test_other_weights_are_fetched_where_there_are_no_safetensors(hub, stem, is_sharded):
    files = [f"{stem}.index.json", stem.replace(".", "-00001-of-00001.")] if is_sharded else [stem]
    hub.files = {"config.json": FILES["config.json"], "optimizer.pt": b"x", **dict.fromkeys(files, b"weights")}
    convert = Names()
    local_folder(NAME, convert=convert)
    assert convert.seen == [sorted(["config.json", *files])]


def test_an_archive_of_a_saved_model_is_given_as_it_is(hub):
    hub.plain["/sm.tar.gz"] = tar_of({"saved_model.pb": b"graph", "variables/variables.index": b"i"})
    folder = Path(local_folder(f"{hub.url}/sm.tar.gz", convert=Converter()))
    assert (folder / "saved_model.pb").read_bytes() == b"graph"


def damaged_late(packed):
    """Returns an archive whose first file is whole and whose data are damaged after it."""
    middle = len(packed) // 2
    return packed[:middle] + bytes(255 - byte for byte in packed[middle : middle + 64]) + packed[middle + 64 :]


def encrypted(packed):
    """Returns a zip archive whose flags say that its first file needs a password."""
    flagged, entry = bytearray(packed), packed.index(b"PK\x01\x02")
    flagged[6] |= 1
    flagged[entry + 8] |= 1
    return bytes(flagged)


MANY_BYTES = {"model/config.json": b"{}", "model/weights": random.Random(0).randbytes(300_000)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.tar.gz", b"<html>moved</html>"),
        ("bad.tar.gz", tar_of({"../outside": b"x"})),
        ("bad.tar.gz", tar_of(FILES)[:200]),
        ("bad.tar.gz", damaged_late(tar_of(MANY_BYTES))),
        ("bad.tar.gz", tar_of(MANY_BYTES)[:-4] + b"\0\0\0\0"),
        ("bad.zip", damaged_late(zip_of(MANY_BYTES))),
        ("bad.zip", encrypted(zip_of(FILES))),
    ],
)
def test_what_is_no_safe_archive_is_one_line(hub, tmp_path, name, content):
    hub.plain[f"/{name}"] = content
    assert "not an archive that can be unpacked" in refused(f"{hub.url}/{name}")
    assert not list(tmp_path.rglob("outside"))
    assert list((tmp_path / "cache" / "archives").iterdir()) == []


def test_an_archive_that_breaks_off_or_is_absent_is_one_line(hub, tmp_path):
    hub.plain["/cut.tar.gz"] = os.urandom(50_000)
    hub.cut = "/cut.tar.gz"
    assert "the connection broke after 25000 of 50000 bytes" in refused(f"{hub.url}/cut.tar.gz")
    assert "the server answers 404" in refused(f"{hub.url}/absent.tar.gz")
    assert "check the network" in refused("http://127.0.0.1:9/x.tar.gz")
    assert list((tmp_path / "cache" / "archives").iterdir()) == []


def test_a_path_is_left_alone():
    assert local_folder("weights/mine", convert=Converter()) == "weights/mine"


def test_a_fresh_process_prints_its_one_line_and_no_retries_of_the_library(tmp_path):
    """In a process of its own: the library sets up its logger when it is first imported."""
    code = (
        "import sys, time; time.sleep = lambda secs: None\n"
        "from models.weights.named_weights import local_folder\n"
        "try: local_folder('hf://someone/some-model', convert=None)\n"
        "except OSError as error: print(error)\n"
    )
    environment = {
        **os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "EARSHOT_CACHE": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert "cannot be reached and the cache does not have the whole model" in done.stdout
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
