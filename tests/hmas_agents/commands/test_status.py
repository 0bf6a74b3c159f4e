"""`hmas status` shows the snapshot, and says why when there is none."""

import json
from typing import Any

import pytest

from hmas_agents.commands import status
from serving.contracts import QueueState, Snapshot, TenantCounters, decode
from serving.engines.protocol import EngineUnavailable
from tests.hmas_agents.samples import snapshot


def test_one_look_shows_policy_lease_limits_and_tenants(hmas, server):
    code, out, _ = hmas("status", "--once", "--url", server.url, "--token-file", server.token_file)
    assert code == 0
    for words in ("edf, epoch 3", "c1, lease 12 s left", "256 active requests", "none: steps as"):
        assert words in out
    row = next(line.split() for line in out.splitlines() if "acme" in line)
    assert row == ["acme", "interactive", "5", "1", "0", "50.0%", "25.0%", "400"]


def test_refused_requests_never_were_inside(hmas, server):
    shed = TenantCounters("acme", "batch", received=5, finished=3, aborted=1, met=2, rejected=8)
    server.rank_changes = [{"counters": (shed,)}]
    _, out, _ = hmas("status", "--once", "--url", server.url, "--token-file", server.token_file)
    row = next(line.split() for line in out.splitlines() if "acme" in line)
    assert row[2:6] == ["5", "1", "8", "16.7%"]


def test_the_controllers_own_requests_come_last_and_are_marked(hmas, server):
    own = TenantCounters("hmas", "custom", received=7, finished=7, met=1)
    acme = TenantCounters("zeta", "batch", received=5, finished=5, met=5)
    server.rank_changes = [{"counters": (own, acme)}]
    _, out, _ = hmas("status", "--once", "--url", server.url, "--token-file", server.token_file)
    assert [line.split()[0] for line in out.splitlines()[-3:-1]] == ["zeta", "hmas*"]
    assert out.splitlines()[-1].strip() == "* the controller's own requests"


def test_ranks_have_a_row_each_and_differing_ones_are_said(hmas, server):
    where = ("--url", server.url, "--token-file", server.token_file)
    server.rank_changes = [{}, {}]
    _, out, _ = hmas("status", "--once", *where)
    assert "limits per rank" in out
    assert "different decisions" not in out
    server.rank_changes = [{"queue": QueueState(waiting=4)}, {"policy": "slide", "epoch": 9}]
    _, out, _ = hmas("status", "--once", *where)
    assert "4 waiting" in out
    assert "hold different decisions" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["rank", "0", "ok", "edf", "3", "4", "0", "0%"] in rows
    assert ["rank", "1", "ok", "slide", "9", "0", "0", "0%"] in rows
    row = next(row for row in rows if row[:1] == ["acme"])
    assert row == ["acme", "interactive", "10", "2", "0", "50.0%", "25.0%", "800"]
    _, out, _ = hmas("status", "--json", *where)
    assert [rank.policy for rank in decode(Snapshot, json.loads(out)).ranks] == ["edf", "slide"]


def test_json_is_the_snapshot(hmas, server):
    code, out, _ = hmas("status", "--json", "--url", server.url, "--token-file", server.token_file)
    assert code == 0
    assert decode(Snapshot, json.loads(out)).policy == "edf"


def test_the_configuration_file_says_where(hmas, server, tmp_path):
    (tmp_path / "hmas.toml").write_text(
        f'[engine]\nurl = "{server.url}"\ntoken_file = "{server.token_file}"\n'
    )
    assert hmas("status", "--once")[0] == 0


def test_no_token_or_a_wrong_one_is_one_line(hmas, server, tmp_path):
    code, _, err = hmas("status", "--once", "--url", server.url)
    assert code == 2
    assert "no token at var/hmas.token" in err
    wrong = tmp_path / "wrong"
    wrong.write_text("other")
    code, _, err = hmas("status", "--once", "--url", server.url, "--token-file", wrong)
    assert code == 2
    assert "HTTP 401" in err


def test_an_engine_that_goes_away_is_waited_for(monkeypatch):
    looks = iter([snapshot(1.0), EngineUnavailable("gone"), snapshot(2.0), KeyboardInterrupt()])
    shown = []

    class Engine:
        def snapshot(self):
            look = next(looks)
            if isinstance(look, BaseException):
                raise look
            return look

    class Screen:
        def __init__(self, first, **_):
            shown.append(first)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def update(self, content, **_):
            shown.append(content)

    monkeypatch.setattr(status, "Live", Screen)
    monkeypatch.setattr("time.sleep", lambda _: None)
    engine: Any = Engine()
    status._follow(engine, 1.0)
    assert len(shown) == 3
    assert "waiting for the engine: gone" in str(shown[1])


@pytest.mark.parametrize("changes", [{"controller_id": ""}, {"policy_errors": 2}])
def test_an_engine_on_its_own_and_its_errors_are_said(hmas, changes):
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(status.render_snapshot(snapshot(1.0, last_error="boom", **changes)))
    assert ("none: the engine's default policy" in captured.get()) == ("controller_id" in changes)
    assert ("2 in the hook, last: boom" in captured.get()) == ("policy_errors" in changes)


def test_a_fleet_has_a_row_for_each_replica_in_80_columns(hmas, server, second, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    server.rank_changes = [{"queue": QueueState(waiting=4)}, {}]
    second.rank_changes = [{"controller_id": "someone-else-entirely-on-another-host", "epoch": 9}]
    gone = "http://127.0.0.1:9"
    where = ("--url", f"{server.url},{second.url},{gone}", "--token-file", server.token_file)
    code, out, err = hmas("status", "--once", *where)
    assert code == 0, err
    assert max(len(line) for line in out.splitlines()) <= 80
    rows = [line.split() for line in out.splitlines()]
    a, b = (one.url.removeprefix("http://") for one in (server, second))
    assert [a, "ok", "edf", "3", "4", "0", "0%"] in rows
    assert [a, "rank", "1", "ok", "edf", "3", "0", "0", "0%"] in rows
    assert ["127.0.0.1:9", "away", "-", "-", "-", "-", "-"] in rows
    assert [b, "other", "edf", "9", "0", "0", "0%"] in rows
    assert ["others", "someone-else-entirely-on-another-host", "on", b] in rows
    assert "hold different decisions" in out
    _, out, _ = hmas("status", "--json", *where)
    shot = decode(Snapshot, json.loads(out))
    assert [rank.replica for rank in shot.ranks] == sorted((a, a, b))
    assert "ConnectError" in shot.away["127.0.0.1:9"]


def test_long_names_and_large_counts_of_tenants_fit_into_80_columns():
    from rich.console import Console

    rows = (
        TenantCounters(
            "acme-production-chat-eu-west", "conversational", received=123_456, finished=120_000,
            aborted=3_000, met=100_000, output_tokens=9_000_000_000, rejected=4_000,
            prompt_tokens=30_000_000, cached_prompt_tokens=9_000_000,
        ),
        TenantCounters("hmas", "batch", received=5, finished=5, met=5, prompt_tokens=100),
    )  # fmt: skip
    console = Console(width=80)
    with console.capture() as captured:
        console.print(status.render_snapshot(snapshot(1.0, counters=rows), ("hmas",)))
    lines = captured.get().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    said = [line.split() for line in lines]
    large = ["conversational", "123k", "456", "4000", "78.7%", "30.0%", "9000.0M"]
    assert any(row[0].endswith("…") and row[1:] == large for row in said), "only the name is cut"
    assert ["hmas*", "batch", "5", "0", "0", "100.0%", "0.0%", "0"] in said
    assert "* the controller's own requests" in captured.get()
