"""The demo's books name a request that was lost or counted twice; its words do no harm."""

import sys
from collections import Counter
from dataclasses import replace

import pytest

from evals.demo.run import (
    SUITE,
    TEXT,
    YOURSELF,
    DemoOptions,
    DemoRun,
    check_books,
    show_tell,
    summary_lines,
)
from evals.result.metrics import CaseRun
from evals.result.run_result import SuiteRun
from evals.suite.suite import load_suite
from hmas_agents.config import Config
from hmas_agents.intent.change import Names, read_answer
from hmas_agents.intent.grammar import Grammar
from hmas_agents.intent.shown import change_text
from hmas_agents.ledger import Ledger
from hmas_agents.records import ToolCall
from tests.evals.samples import outcome
from tests.hmas_agents.samples import record

BEFORE = {"received": Counter(a=5), "finished": Counter(a=4), "aborted": Counter(a=1)}
AFTER = {
    "received": Counter(a=7, hmas=3), "finished": Counter(a=5, hmas=3), "aborted": Counter(a=2),
}  # fmt: skip
RUNS = [
    CaseRun("s", 1.5, arm, [replace(outcome(0), tenant="a")], ()) for arm in ("vllm-fcfs", "hmas")
]


def test_balanced_books_name_nothing_whatever_else_the_engine_served():
    assert check_books(BEFORE, AFTER, RUNS) == []


@pytest.mark.parametrize("counter", list(AFTER))
@pytest.mark.parametrize("error", [-1, 1])
def test_a_miscounted_request_is_named_with_its_tenant(counter, error):
    counted = {name: Counter(tenants) for name, tenants in AFTER.items()}
    counted[counter]["a"] += error
    (mismatch,) = check_books(BEFORE, counted, RUNS)
    assert mismatch.startswith("a: 2 sent, ")


def test_of_what_a_client_gave_up_before_a_token_the_engine_may_never_have_heard():
    gone = [replace(outcome(9), tenant="a", finish="unfinished", ttft_s=None)] * 2
    runs = [*RUNS, CaseRun("s", 1.5, "hmas", gone, ())]
    for heard in (0, 1, 2):
        after = {**AFTER, "received": Counter(a=7 + heard), "aborted": Counter(a=2 + heard)}
        assert check_books(BEFORE, after, runs) == []
    after = {**AFTER, "received": Counter(a=10), "aborted": Counter(a=5)}
    assert check_books(BEFORE, after, runs) == ["a: 4 sent, 5 received, 5 ended"]
    begun = [replace(one, ttft_s=1.0) for one in gone]
    assert check_books(BEFORE, AFTER, [*RUNS, CaseRun("s", 1.5, "hmas", begun, ())])


def test_the_words_of_the_demo_are_understood_with_the_demos_contract():
    names = Names.of(load_suite(SUITE).settings.contract)
    changes = read_answer(Grammar().read(TEXT, "12:00", names).reply, names, "12:00")
    assert isinstance(changes, tuple)
    assert [change_text(each) for each in changes] == [
        "expect acme-chat 2x requests for 10 min", "weight initech-docs 0.3x for 10 min",
    ]  # fmt: skip


def script(text):
    return sys.executable, "-c", text


def test_one_tell_is_shown_as_whoever_types_it_and_says_no_sees_it():
    asks = script(
        "import sys; print('understood', *sys.argv[1:]); print('preview'); "
        "sys.exit(input('apply? ') != 'n')"
    )
    assert show_tell("--url", "here", hmas=asks) == [
        f'$ hmas tell "{TEXT}"', f"understood tell {TEXT} --url here\npreview\napply? n", YOURSELF,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("hmas", "why"),
    [
        (script("import sys; sys.exit('hmas tell: no token\\nlook')"), "look"),
        (script("print('asks back'); exit(3)"), "exit code 3"),
        (script("import time; time.sleep(9)"), "no answer within 0.5 s"),
        (("/nowhere/hmas",), "[Errno 2] No such file or directory: '/nowhere/hmas'"),
    ],
)
def test_words_that_go_wrong_are_one_line_and_no_error(hmas, why):
    assert show_tell(hmas=hmas, limit_s=0.5 if "sleep" in hmas[-1] else 60.0) == [
        f"words were not shown: {why}"
    ]


def test_a_real_tell_without_a_server_is_one_line(tmp_path):
    (line,) = show_tell("--token-file", str(tmp_path / "none"), "--ledger", str(tmp_path / "l"))
    assert line.startswith("words were not shown: hmas tell: ")


def test_words_are_the_last_that_is_shown_and_no_decision_of_the_controller(tmp_path):
    options = DemoOptions(60.0, None, 1.5, 8000, tmp_path, 1)
    ledger = Ledger(options.ledger, config=Config())
    calls = [ToolCall("set_token_budget", {}, accepted=True, reason="")]
    ledger.record_decision(record(horizon="short", proposals=[], tool_calls=calls))
    ledger.record_decision(record(horizon="short", trigger="person,tell", proposals=[]))
    ledger.close()
    results = [{"arm": arm, "goodput_rps": 1.0} for arm in ("vllm-fcfs", "hmas")]
    lines = summary_lines(DemoRun(SuiteRun("demo", 1, {}, results, []), [], ["words"]), options)
    assert "0 on the long horizon" in lines[2]
    assert "1 on the short; 1 of 1 tool calls accepted" in lines[2]
    assert lines[-1] == "words"
