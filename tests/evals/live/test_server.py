"""Is a server named, described, checked and left to come to rest?"""

import pytest

from evals.arms.steering import ArmError
from evals.live.server import (
    Server,
    check_lengths,
    connect,
    named_urls,
    wait_until_at_rest,
)
from evals.suite.toml_file import SuiteError
from tests.evals.fake_openai import FakeOpenAI, serving
from tests.evals.samples import offered
from tests.fakes import FakeEngine


def plain(url, max_model_len=None):
    return Server(url, "tiny", None, "other", max_model_len, "x 1")


def test_options_are_names_and_urls():
    named = named_urls(["sglang=http://127.0.0.1:30000/v1", "vllm-0.33=https://b/"], ["hmas"])
    assert named == {"sglang": "http://127.0.0.1:30000", "vllm-0.33": "https://b"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["http://127.0.0.1:1"], "expected NAME=URL"),
        (["=http://127.0.0.1:1"], "expected NAME=URL"),
        (["a b=http://127.0.0.1:1"], "expected NAME=URL"),
        (["sglang=127.0.0.1:1"], "expected NAME=URL"),
        (["sglang=http://"], "expected NAME=URL"),
        (["sglang=http://h:port"], "expected NAME=URL"),
        (["hmas=http://h"], "'hmas' is the name of an arm"),
        (["sglang-emulated=http://h"], "'sglang-emulated' is the name of an arm"),
        (["mine=http://h"], "'mine' is the name of an arm"),
        (["a=http://h", "a=http://i"], "a second server of the name 'a'"),
    ],
)
def test_an_option_that_does_not_fit_is_named_with_its_value(options, says):
    with pytest.raises(SuiteError, match=says) as raised:
        named_urls(options, ["mine"])
    assert f"--server {options[-1]}: " in str(raised.value)


@pytest.mark.parametrize(
    ("pages", "software"),
    [
        ({"/version": {"version": "0.32.0"}}, "vllm 0.32.0"),
        ({"/server_info": {"version": "0.5.23"}}, "vllm 0.5.23"),
        ({"/version": ["?"]}, "vllm of unknown version"),
        ({}, "vllm of unknown version"),
    ],
)
def test_a_server_is_described_by_model_url_and_version_as_far_as_it_says(pages, software):
    with serving(FakeOpenAI("vllm")) as fake:
        fake.pages |= pages
        server = connect(fake.url, name="other")
    assert server == Server(fake.url, "tiny", None, "other", 4096, software)
    assert server.description == f"live other: tiny at {fake.url} ({software})"


@pytest.mark.parametrize("ends", [True, False])
def test_whether_a_server_ends_answers_is_tried(ends):
    with serving(FakeOpenAI("vllm", ends_answers=ends)) as fake:
        engine = FakeEngine()
        server = connect(fake.url, engine)
        assert server.ends_answers is ends
        assert (server.dialect, server.description) == ("vllm", "live tiny")
        fake.status = 400  # of one that takes no such request
        assert not connect(fake.url).ends_answers


def test_a_server_that_is_not_there_or_lists_nothing_is_an_error_with_the_option():
    with pytest.raises(ArmError, match=r"--server a=http://127\.0\.0\.1:9: .* is the server up"):
        connect("http://127.0.0.1:9", name="a")
    with serving(FakeOpenAI()) as fake:
        fake.pages["/v1/models"] = {"data": []}
        with pytest.raises(ArmError, match="no usable answer"):
            connect(fake.url, name="a")


def test_requests_longer_than_a_server_takes_are_refused_beforehand():
    requests = offered(0.0, 1.0, prompt=100, output=10)
    check_lengths(plain("http://h", 110), requests)
    check_lengths(plain("http://h", None), requests)
    with pytest.raises(ArmError, match=r"--server other=http://h: takes 109 tokens, .* has 110"):
        check_lengths(plain("http://h", 109), requests)


@pytest.mark.parametrize(
    ("route", "text"),
    [
        ("/metrics", 'vllm:num_requests_running{{engine="0"}} {0}\nother 7\n'),
        ("/metrics", 'vllm:num_requests_waiting{{engine="0"}} {0}\n'),
        ("/v1/loads?format=prometheus", 'sglang_num_running_reqs{{dp_rank="0"}} {0}\n'),
        ("/v1/loads?format=prometheus", 'sglang_num_waiting_reqs{{dp_rank="0"}} {0}\n'),
    ],
)
def test_a_server_that_says_it_holds_requests_is_not_at_rest(route, text):
    with serving(FakeOpenAI()) as fake:
        fake.pages[route] = text.format(3)
        with pytest.raises(ArmError, match="other: 3 requests still in"):
            wait_until_at_rest(plain(fake.url), wait_s=0.0)
        fake.pages[route] = text.format(0)
        wait_until_at_rest(plain(fake.url), wait_s=0.0)


def test_figures_that_only_move_with_a_request_do_not_keep_a_run_waiting():
    class Stale(FakeOpenAI):
        def answered(self):
            self.pages["/metrics"] = "vllm:num_requests_running 0\n"

    with serving(Stale()) as fake:
        fake.pages["/metrics"] = "vllm:num_requests_running 3\n"
        wait_until_at_rest(plain(fake.url), wait_s=0.0)


def test_a_server_that_does_not_say_must_answer_again_after_a_while():
    with serving(FakeOpenAI()) as fake:
        wait_until_at_rest(plain(fake.url), settle_s=0.0)
    assert len(fake.asked) == 2


def test_a_server_that_refuses_a_request_is_an_error():
    with serving(FakeOpenAI()) as fake:
        fake.status = 503
        with pytest.raises(ArmError, match=r"other: .* refuses a request: HTTP 503"):
            wait_until_at_rest(plain(fake.url))
    with pytest.raises(ArmError, match=r"other: .* does not answer a request: ConnectError"):
        wait_until_at_rest(plain("http://127.0.0.1:9"))
