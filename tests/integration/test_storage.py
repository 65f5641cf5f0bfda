"""Image bytes, in a folder and in an S3 bucket."""

import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from moto.server import ThreadedMotoServer

from shared.domain.errors import ImageLostError, StorageFullError, StorageUnavailableError
from shared.settings import Settings
from shared.storage import ImageStore, make_store

CONTENT = b"the bytes of a picture"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEY = "2026/11/23/job_1"


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_store(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="cards")
    return make_store(Settings(image_store_url="s3://cards/kept/here", s3_endpoint_url=s3_endpoint))


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> ImageStore:
    if request.param == "s3":
        store: ImageStore = request.getfixturevalue("s3_store")
        return store
    return make_store(Settings(home=tmp_path))


def test_what_was_put_is_got(any_store: ImageStore) -> None:
    any_store.put(KEY, CONTENT)

    assert any_store.get(KEY, sha256=SHA256) == CONTENT


def test_putting_twice_keeps_the_last(any_store: ImageStore) -> None:
    any_store.put(KEY, b"first")

    any_store.put(KEY, CONTENT)

    assert any_store.get(KEY, sha256=SHA256) == CONTENT


def test_altered_bytes_are_not_given(any_store: ImageStore) -> None:
    any_store.put(KEY, b"something else")

    with pytest.raises(ImageLostError):
        any_store.get(KEY, sha256=SHA256)


def test_erased_bytes_are_gone_and_may_be_erased_again(any_store: ImageStore) -> None:
    any_store.put(KEY, CONTENT)

    any_store.delete(KEY)
    any_store.delete(KEY)

    with pytest.raises(ImageLostError):
        any_store.get(KEY, sha256=SHA256)


def test_a_store_that_works_is_ready(any_store: ImageStore) -> None:
    any_store.check()


def test_only_the_owner_may_look_into_the_folder(tmp_path: Path) -> None:
    make_store(Settings(home=tmp_path / "home"))

    assert (tmp_path / "home" / "images").stat().st_mode & 0o077 == 0


def test_file_and_folders_are_synced_before_put_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("shared.storage._fsync", synced.append)

    make_store(Settings(home=tmp_path)).put(KEY, CONTENT)

    root = tmp_path / "images"
    assert synced[0] == root / KEY
    assert set(synced[1:]) == {root / "2026/11/23", root / "2026/11", root / "2026", root}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    import os

    store = make_store(Settings(home=tmp_path))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(obstore, "put", full)

    with pytest.raises(StorageFullError):
        store.put(KEY, CONTENT)


def test_a_bucket_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch, s3_store: ImageStore) -> None:
    nowhere = make_store(Settings(image_store_url="s3://cards/x", s3_endpoint_url="http://127.0.0.1:1"))

    with pytest.raises(StorageUnavailableError):
        nowhere.put(KEY, CONTENT)
