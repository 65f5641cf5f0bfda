"""The client's batches and the folder command against the API itself, over a network that fails."""

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from sqlalchemy import Engine, select

from kazheng import ApiUnreachableError, AsyncClient, Client
from kazheng.commands import folder as folder_module
from kazheng.commands.failures import CommandError
from kazheng.commands.folder import FolderRun, find_pictures, read_manifest, watch
from kazheng.transport import Timing
from shared.database.engine import transaction
from shared.database.tables import jobs
from shared.settings import Settings
from tests.factories import make_picture
from tests.integration.api_tools import ApiBench, running_api
from tests.integration.test_batch_life import end_all, follow

QUIET = Console(file=io.StringIO())
FIELDS = {"document_type": "id_card", "name": "scans"}
Fault = Callable[[httpx.Request, int], str | None]


class Network(httpx.BaseTransport):
    """Carries requests to the API in this process, unless a fault says `refuse` or `lose the answer`."""

    def __init__(self, api: ApiBench, fault: Fault) -> None:
        self._wsgi = httpx.WSGITransport(app=api.http.application)
        self._fault = fault
        self.requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        fault = self._fault(request, self.requests)
        if fault == "refuse":
            raise httpx.ConnectError("refused")
        answer = self._wsgi.handle_request(request)
        if fault == "lose the answer":
            answer.close()
            raise httpx.ReadTimeout("lost")
        return answer


@pytest.fixture
def api(settings: Settings, engine: Engine) -> Iterator[ApiBench]:
    with running_api(settings, engine) as running:
        yield running


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five pictures, one of them in a folder of its own, one hidden, and a text; two go into one request."""
    monkeypatch.setattr(folder_module, "PORTION_IMAGES", 2)
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    (folder / ".trash").mkdir()
    for number, name in enumerate(("a.jpg", "b.JPEG", "c.jpg", "d.jpg", "more/e.jpg", ".trash/f.jpg")):
        (folder / name).write_bytes(make_picture((640 + number, 400)))
    (folder / "notes.txt").write_text("no picture")
    return folder


def client_of(api: ApiBench, fault: Fault = lambda request, number: None, *, max_retries: int = 0) -> Client:
    timing = Timing(sleep=lambda seconds: None)
    network = Network(api, fault)
    return Client(api.key, "http://api.invalid", transport=network, timing=timing, max_retries=max_retries)


def item_names(api: ApiBench) -> list[str]:
    with transaction(api.engine) as connection:
        return list(connection.execute(select(jobs.c.item_name).order_by(jobs.c.item_number)).scalars())


ALL = ["a.jpg", "b.JPEG", "c.jpg", "d.jpg", "more/e.jpg"]


def test_pictures_are_found_and_clutter_is_not(scans: Path) -> None:
    assert [path.relative_to(scans).as_posix() for path in find_pictures(scans, recursive=True)] == ALL
    assert len(find_pictures(scans, recursive=False)) == 4


@pytest.mark.parametrize("stops_at", range(1, 8))
def test_a_run_that_was_stopped_anywhere_goes_on_where_it_was(
    api: ApiBench, scans: Path, tmp_path: Path, stops_at: int
) -> None:
    pictures, out = find_pictures(scans, recursive=True), tmp_path / "out.csv"
    dead = client_of(api, lambda request, number: "refuse" if number >= stops_at else None)
    with suppress(ApiUnreachableError):
        stopped = FolderRun(dead, scans, out, console=QUIET)
        stopped.hand_over(pictures, FIELDS)
        stopped.close()

    run = FolderRun(client_of(api), scans, out, console=QUIET)
    run.hand_over(pictures, FIELDS)
    batch = run.close()

    assert item_names(api) == ALL
    assert (batch.status, batch.counts["total"]) == ("running", 5)


@pytest.mark.parametrize("lost", range(1, 6))
def test_an_answer_that_got_lost_adds_nothing_twice(api: ApiBench, scans: Path, tmp_path: Path, lost: int) -> None:
    client = client_of(api, lambda request, number: "lose the answer" if number == lost else None, max_retries=1)

    run = FolderRun(client, scans, tmp_path / "out.csv", console=QUIET)
    run.hand_over(find_pictures(scans, recursive=True), FIELDS)

    assert item_names(api) == ALL


def test_a_file_that_is_gone_by_now_is_told_and_the_rest_goes_on(api: ApiBench, scans: Path, tmp_path: Path) -> None:
    pictures = find_pictures(scans, recursive=True)
    (scans / "c.jpg").unlink()
    run = FolderRun(client_of(api), scans, tmp_path / "out.csv", console=QUIET)

    run.hand_over(pictures, FIELDS)

    assert item_names(api) == [name for name in ALL if name != "c.jpg"]
    assert list(run.state.unreadable) == ["c.jpg"]


def test_a_damaged_note_says_what_to_do(api: ApiBench, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv.kazheng.json").write_text("{")

    with pytest.raises(CommandError, match="Delete it"):
        FolderRun(client_of(api), scans, tmp_path / "out.csv", console=QUIET)


def test_a_network_that_is_away_is_waited_for(api: ApiBench, scans: Path, tmp_path: Path) -> None:
    client = client_of(api)
    run = FolderRun(client, scans, tmp_path / "out.csv", console=QUIET)
    run.hand_over(find_pictures(scans, recursive=True), FIELDS)
    batch = run.close()
    end_all(api, batch.id)
    follow(api)
    away = client_of(api, lambda request, number: "refuse" if number < 4 else None)
    pauses: list[float] = []

    ended = watch(away, batch, QUIET, sleep=pauses.append)

    assert (ended.status, ended.counts["failed"]) == ("completed", 5)
    assert len(pauses) == 4


def test_the_pace_is_that_of_what_is_called() -> None:
    quotas: list[dict[str, float]] = [
        {"calls_last_second": 7, "pace": 9.9},
        {"calls_last_second": 0, "pace": 9.9},
        {"calls_last_second": 1, "pace": 2},
    ]

    assert folder_module._pace_of(quotas) == "8 of 11.9 calls/s"
    assert folder_module._pace_of([]) == ""


def test_results_come_as_they_end_each_once(api: ApiBench) -> None:
    client = client_of(api)
    batch = client.batches.create([make_picture((640 + number, 400)) for number in range(4)], document_type="id_card")

    iterating = client.batches.results(batch)
    end_all(api, batch.id)
    follow(api)

    assert [item.number for item in iterating] == [1, 2, 3, 4]
    assert client.batches.wait(batch).is_final


def test_a_download_is_there_when_it_is_whole(api: ApiBench, tmp_path: Path) -> None:
    client = client_of(api)
    batch = client.batches.create([make_picture()], document_type="id_card", name="one")

    path = client.batches.export(batch, tmp_path / "cards.csv", fields=["item", "status"])

    assert path.read_text("utf-8-sig").splitlines() == ["item,status", "1,queued"]
    assert [found.name for found in client.batches.list()] == ["one"]
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix == ".part"] == []


def test_retry_and_cancel(api: ApiBench) -> None:
    client = client_of(api)
    batch = client.batches.create([make_picture()], document_type="id_card")
    end_all(api, batch.id)

    retried = [client.batches.retry(batch), client.batches.retry(batch, only_retryable=False)]

    assert retried == [0, 1]
    assert client.batches.cancel(batch).counts["canceled"] == 1


def test_what_comes_into_the_folder_later_is_added(api: ApiBench, scans: Path, tmp_path: Path) -> None:
    run = FolderRun(client_of(api), scans, tmp_path / "out.csv", console=QUIET)
    run.hand_over(find_pictures(scans, recursive=True), FIELDS)
    (scans / "late.jpg").write_bytes(make_picture((700, 400)))

    still_written_to = find_pictures(scans, recursive=True, settled_seconds=3600)
    run.hand_over(find_pictures(scans, recursive=True), FIELDS)

    assert still_written_to == []
    assert item_names(api) == [*ALL, "late.jpg"]
    assert run.close().counts["total"] == 6


def test_the_same_on_asyncio(api: ApiBench, tmp_path: Path) -> None:
    async def run() -> tuple[list[int], str, str]:
        async with AsyncClient(api.key, "http://api.invalid", transport=Network(api, lambda *_: None)) as client:
            batch = await client.batches.create([make_picture(), make_picture((641, 400))], document_type="id_card")
            jobs = [job.id async for job in client.list(batch_id=batch.id)]
            await client.cancel(jobs[0])
            end_all(api, batch.id)
            follow(api)
            ended = await client.batches.wait(batch)
            numbers = [item.number async for item in client.batches.results(ended)]
            path = await client.batches.export(batch, tmp_path / "cards.csv", fields=["status"])
            return numbers, ended.status, path.read_text("utf-8-sig")

    numbers, status, exported = asyncio.run(run())

    assert (numbers, status) == ([1, 2], "completed")
    assert sorted(exported.splitlines()) == ["canceled", "failed", "status"]


def test_a_manifest_says_what_single_files_are(api: ApiBench, scans: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "\ufefffile,document_type,side,option.detect_quality,reference\n"
        "a.jpg,,back,true,17\nmore/e.jpg,bank_card,,,\nnever.jpg,,,,\n",
        "utf-8",
    )
    run = FolderRun(client_of(api), scans, tmp_path / "out.csv", console=QUIET, manifest=read_manifest(manifest))

    run.hand_over(find_pictures(scans, recursive=True), FIELDS)

    items = {item.name: item.job for item in client_of(api).batches.items(run.close())}
    assert list(items) == ALL
    assert (items["a.jpg"].options["side"], items["a.jpg"].options["detect_quality"]) == ("back", True)
    assert (items["a.jpg"].client_reference_id, items["b.JPEG"].options["side"]) == ("17", "front")
    assert [name for name, job in items.items() if job.document_type == "bank_card"] == ["more/e.jpg"]


@pytest.mark.parametrize("text", ["name\na.jpg\n", "", "file,colour\na.jpg,red\n"])
def test_a_manifest_that_makes_no_sense_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.csv").write_text(text, "utf-8")

    with pytest.raises(CommandError, match="column"):
        read_manifest(tmp_path / "manifest.csv")


@pytest.mark.parametrize("out", ["cards.pdf", "nowhere/cards.csv"])
def test_what_cannot_be_saved_is_told_before_anything_is_sent(
    api: ApiBench, scans: Path, tmp_path: Path, out: str
) -> None:
    with pytest.raises(CommandError, match=r"must end with|is no folder"):
        FolderRun(client_of(api), scans, tmp_path / out, console=QUIET)


def test_a_file_changed_while_its_answer_was_lost_says_what_to_do(api: ApiBench, scans: Path, tmp_path: Path) -> None:
    pictures, out = find_pictures(scans, recursive=True), tmp_path / "out.csv"
    with suppress(ApiUnreachableError):
        loses = client_of(api, lambda request, number: "lose the answer" if number == 2 else None)
        FolderRun(loses, scans, out, console=QUIET).hand_over(pictures, FIELDS)
    (scans / "a.jpg").write_bytes(make_picture((777, 400)))

    with pytest.raises(CommandError, match=r"a\.jpg.*Delete"):
        FolderRun(client_of(api), scans, out, console=QUIET).hand_over(pictures, FIELDS)
