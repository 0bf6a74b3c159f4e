"""Are replies kept and found by what was sent, and is a missing one an error?"""

import gzip
import json

import httpx
import openai
import pytest

from evals.arms import run_case
from evals.arms.cassette import Cassette, CassetteError
from evals.suite.arms import ControllerOptions, controller_config
from hmas_agents.ledger.reader import LedgerReader
from tests.agents.model_server import completion, proposals, serving
from tests.evals.samples import offered
from tests.evals.small_cases import FakeSimulator, case

# Some versions of the client take what a transport raises for a failed connection.
FAILED = (CassetteError, openai.APIConnectionError)


class Endpoint(httpx.BaseTransport):
    """Answers each question with its number, or with a status."""

    def __init__(self, status=200):
        self.asked: list[httpx.Request] = []
        self.status = status

    def handle_request(self, request):
        self.asked.append(request)
        return httpx.Response(self.status, json=completion(f"answer {len(self.asked)}"))


def ask(cassette, content="which policy?", host="here"):
    client = openai.OpenAI(
        base_url=f"http://{host}/v1", api_key="secret", max_retries=0,
        http_client=httpx.Client(transport=cassette),
    )  # fmt: skip
    messages = [{"role": "user", "content": content}]
    reply = client.chat.completions.create(model="small", messages=messages)
    return reply.choices[0].message.content


def test_what_was_recorded_is_played_on_another_machine(tmp_path):
    path, endpoint = tmp_path / "c.jsonl", Endpoint()
    recording = Cassette(path, record=True, endpoint=endpoint)
    assert [ask(recording, "one"), ask(recording, "two")] == ["answer 1", "answer 2"]
    playing = Cassette(path, record=False)
    assert [ask(playing, "two", "there"), ask(playing, "one")] == ["answer 2", "answer 1"]
    playing.check()
    assert "secret" not in path.read_text()
    assert "here" not in path.read_text()


def test_a_gzipped_cassette_is_one_like_any_other(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    recording = Cassette(path, record=True, endpoint=Endpoint())
    assert [ask(recording, "one"), ask(recording, "two")] == ["answer 1", "answer 2"]
    assert ask(Cassette(path, record=False), "two") == "answer 2"
    assert len(gzip.decompress(path.read_bytes()).splitlines()) == 2
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CassetteError, match="cannot be read"):
        Cassette(path, record=False)


def test_recording_asks_only_what_is_not_there_yet(tmp_path):
    path, endpoint = tmp_path / "c.jsonl", Endpoint()
    ask(Cassette(path, record=True, endpoint=endpoint))
    before = path.read_text()
    assert ask(Cassette(path, record=True, endpoint=endpoint)) == "answer 1"
    assert len(endpoint.asked) == 1
    assert path.read_text() == before


def test_the_first_reply_stays_when_two_record_at_once(tmp_path):
    path = tmp_path / "c.jsonl"
    first, second = (Cassette(path, record=True, endpoint=Endpoint()) for _ in range(2))
    ask(second, "something else")
    assert ask(first) == "answer 1"
    assert ask(second) == "answer 1"  # its own endpoint said "answer 2"
    assert len(path.read_text().splitlines()) == 2


def test_a_missing_reply_is_an_error_with_hash_and_command(tmp_path):
    path = tmp_path / "c.jsonl"
    ask(Cassette(path, record=True, endpoint=Endpoint()))
    key = json.loads(path.read_text())["key"]
    playing = Cassette(path, record=False)
    with pytest.raises(FAILED):
        ask(playing, "never asked")
    with pytest.raises(CassetteError, match=r"no reply for [0-9a-f]{64}; .*--cassette") as error:
        playing.check()
    assert key not in str(error.value)
    assert str(path) in str(error.value)


def test_a_failing_endpoint_is_not_recorded(tmp_path):
    path = tmp_path / "c.jsonl"
    recording = Cassette(path, record=True, endpoint=Endpoint(status=503))
    with pytest.raises(FAILED):
        ask(recording)
    with pytest.raises(CassetteError, match="nothing to record: HTTP 503"):
        recording.check()
    assert not path.exists()


@pytest.mark.parametrize("line", ["{", "{}", "[]", '{"key": "a"}'])
def test_a_broken_cassette_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "c.jsonl"
    path.write_text('{"key": "a", "asked": {}, "reply": 1}\n' + line + "\n")
    with pytest.raises(CassetteError, match=r"c\.jsonl:2: not an entry"):
        Cassette(path, record=False)


def test_without_a_file_there_is_nothing_to_play(tmp_path):
    with pytest.raises(CassetteError, match=r"none\.jsonl: no such file; record it: the same"):
        Cassette(tmp_path / "none.jsonl", record=False)


def test_a_cassette_alone_enables_the_model(tmp_path):
    assert controller_config(ControllerOptions(cassette=tmp_path), {}).model.enabled
    assert not controller_config(ControllerOptions(), {}).model.enabled


# -- the arm `hmas` ---------------------------------------------------------------------


def hmas(tmp_path, name, **options):
    """What the model said in a run of the arm `hmas`: one long tick, without the twin."""
    config = tmp_path / "hmas.toml"
    config.write_text("[twin]\nenabled = false\n")
    ledger = tmp_path / f"{name}.sqlite"
    controller = ControllerOptions(config, ledger_path=ledger, **options)
    run_case(case("hmas", offered(0.0, 5.0), controller=controller), lambda *_: FakeSimulator())
    with LedgerReader(ledger) as reader:
        stored = reader.list_decisions(horizon="long")
        return [decision.record.raw_replies for decision in stored]


def test_the_hmas_arm_plays_the_model_that_it_recorded(tmp_path):
    path = tmp_path / "c.jsonl"
    with serving(completion(proposals("edf"))) as model:
        recorded = hmas(tmp_path, "recorded", model_url=model.url, cassette=path)
    assert recorded == [[proposals("edf")]]
    assert len(model.asked) == 1
    assert hmas(tmp_path, "played", cassette=path) == recorded  # the server is gone


def test_the_hmas_arm_stops_at_a_missing_reply(tmp_path):
    path = tmp_path / "c.jsonl"
    path.touch()
    with pytest.raises(CassetteError, match="no reply for"):
        hmas(tmp_path, "played", cassette=path)
