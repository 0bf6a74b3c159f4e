"""Does a real vLLM go by a contract that changes while it runs, without a restart?"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hmas_agents import cli
from serving.contracts import Contract, ContractChange, Limits, Outcome, TenantTerms
from serving.engines.live import LiveEngine
from tests.real.conftest import MODEL, RealServer
from tests.real.test_real_engine import decision, wait_for

pytestmark = pytest.mark.real_vllm

EACH, BEFORE, AFTER = 40, 40, 50
BROKEN = "[tenants.share-a]\nwieght = 9\n"


def put(engine: LiveEngine, contract: Contract) -> None:
    ack = engine.apply_contract(ContractChange(contract, engine.contract().epoch + 1, "test"))
    assert ack.accepted, ack.reason


@pytest.fixture
def contracted(engine: LiveEngine) -> Iterator[LiveEngine]:
    """The engine, which has its own contract again afterwards."""
    held = engine.contract().contract
    yield engine
    put(engine, held)


def ended(engine: LiveEngine, head: int) -> list[Outcome]:
    return [o for o in engine.journal(head).outcomes if o.tenant.startswith("share-")]


def test_a_tenants_share_follows_its_weight_in_one_run_and_a_broken_file_changes_nothing(
    server: RealServer, contracted: LiveEngine, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    engine, start = contracted, contracted.snapshot()
    narrow = Limits(max_active_requests=4, token_budget=start.limits.token_budget)
    assert engine.apply(decision(start, policy="fair", limits=narrow, ttl_s=600.0)).accepted
    file = tmp_path / "contract.toml"
    file.write_text(BROKEN)

    async def flood() -> list[Outcome]:
        async def ask(tenant: str) -> None:
            body = {
                "model": MODEL, "prompt": [300] * 60, "max_tokens": 6, "ignore_eos": True,
                "vllm_xargs": {"tenant": tenant, "slo_class": "batch"},
            }  # fmt: skip
            while True:  # until cancelled: a flood that ended early would have no share
                await client.post("/v1/completions", json=body)

        async with httpx.AsyncClient(
            base_url=server.url, timeout=600, limits=httpx.Limits(max_connections=None)
        ) as client:
            tasks = [
                asyncio.create_task(ask(tenant))
                for _ in range(EACH) for tenant in ("share-a", "share-b")
            ]  # fmt: skip
            await until(engine, start.journal_head, BEFORE)
            epoch = engine.contract().epoch
            where = ("--url", server.url, "--token-file", str(server.token_file), "--yes")
            with pytest.raises(SystemExit) as left:
                # In a thread: clients that stand still meanwhile leave the queue empty.
                await asyncio.to_thread(cli.main, ["contract", "apply", str(file), *where])
            assert left.value.code == 2
            assert f"{file}:2: tenants.share-a.wieght: unknown key" in capsys.readouterr().err
            assert engine.contract().epoch == epoch
            file.write_text("believe_clients = true\n[tenants.share-a]\nweight = 4\n")
            ledger = ("--ledger", str(tmp_path / "ledger.sqlite"))
            with pytest.raises(SystemExit) as left:
                await asyncio.to_thread(
                    cli.main, ["contract", "apply", str(file), *where, *ledger]
                )
            assert not left.value.code
            assert "tenants.share-a.weight: 1 -> 4" in capsys.readouterr().out
            assert engine.contract().epoch == epoch + 1
            changed = len(ended(engine, start.journal_head))
            await until(engine, start.journal_head, changed + 8 + AFTER)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        found = ended(engine, start.journal_head)
        # Those that ran when it changed, and what was owed by then, come first.
        return found[:BEFORE] + found[changed + 8 : changed + 8 + AFTER]

    outcomes = asyncio.run(flood())
    before = Counter(o.tenant for o in outcomes[:BEFORE])
    after = Counter(o.tenant for o in outcomes[BEFORE:])
    print(f"answers of share-a and share-b: {dict(before)}, with weight 4: {dict(after)}")
    assert 0.75 < before["share-a"] / before["share-b"] < 1.34
    assert 3.0 < after["share-a"] / after["share-b"] < 5.5
    assert engine.snapshot().policy_errors == start.policy_errors


async def until(engine: LiveEngine, head: int, count: int) -> None:
    while len(await asyncio.to_thread(ended, engine, head)) < count:
        await asyncio.sleep(0.1)


def ask(server: RealServer, max_tokens: int, headers: dict[str, str]) -> httpx.Response:
    body = {"model": MODEL, "prompt": [300] * 20, "max_tokens": max_tokens, "ignore_eos": True}
    url = f"{server.url}/v1/completions"
    return httpx.post(url, json=body, headers=headers, timeout=120)


def test_an_api_key_names_the_tenant_and_over_its_quota_it_gets_429_and_is_counted(
    server: RealServer, contracted: LiveEngine
) -> None:
    engine, head = contracted, contracted.snapshot().journal_head
    key = "sha256:" + hashlib.sha256(b"its-key").hexdigest()
    terms = TenantTerms(tokens_per_minute=60, classes=("batch",), api_key_hashes=(key,))
    put(engine, Contract(tenants={"keyed": terms}))
    assert ask(server, 4, {}).status_code == httpx.codes.UNAUTHORIZED
    assert ask(server, 4, {"x-api-key": "guessed"}).status_code == httpx.codes.UNAUTHORIZED
    mine = {"authorization": "Bearer its-key"}
    assert ask(server, 4, mine).status_code == httpx.codes.OK
    assert ask(server, 30, mine).status_code == httpx.codes.TOO_MANY_REQUESTS
    reply = ask(server, 30, mine)
    assert reply.status_code == httpx.codes.TOO_MANY_REQUESTS
    assert 1 <= int(reply.headers["retry-after"]) <= 60

    def rejected() -> float:
        text = httpx.get(f"{server.url}/metrics", follow_redirects=True).text
        lines = [line for line in text.splitlines() if line.startswith("hmas_requests_rejected")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if 'tenant="keyed"' in line)

    wait_for(lambda: rejected() == 2.0, 20)
    outcomes = [o for o in engine.journal(head).outcomes if o.tenant == "keyed"]
    assert Counter(o.finish for o in outcomes) == {"length": 1, "rejected": 2}
