"""Do replicas that are stopped and asked on the way serve as those that are not?

Against one run to the end: what is asked in between may change nothing, and what is told must.
"""

from typing import Any

import numpy as np
import pytest

from evals.plan.plan import hook_of
from evals.plan.traffic import Traffic, at_load
from evals.requests.columns import RequestColumns
from evals.suite.arms import parse_arm
from serving.contracts import Contract, TenantPart, TenantTerms
from serving.contracts.settings import EngineSettings
from serving.core.tenants import DECODE_WORK
from serving.engines.replica_tenants import ReplicaTenants
from serving.engines.replicas import RunningReplicas, serve_on_replicas
from tests.evals.small_cases import MACHINE, workload

REQUESTS = workload(200, 40.0)
TRAFFIC = Traffic("test", RequestColumns.of(REQUESTS), MACHINE, EngineSettings())
OFFERED = at_load(TRAFFIC, 1.0, 0)
HOOK: Any = hook_of(TRAFFIC, parse_arm("fixed-fair"))
SPAN_S = float(OFFERED.arrival_s[-1])


def running(hook=HOOK, **options):
    return RunningReplicas(MACHINE, OFFERED, 3, hook, **options)


def times(run):
    return np.stack((run.served.progress["first_token_s"], run.served.progress["last_s"]))


@pytest.mark.parametrize("hook", [None, HOOK], ids=["stock", "hooked"])
def test_stretch_by_stretch_is_as_all_at_once(hook):
    whole, parts = serve_on_replicas(MACHINE, OFFERED, 3, hook), running(hook)
    for until_s in np.arange(0.1, SPAN_S, 0.37):
        assert not parts.serve(until_s)
        assert int(parts.fleet.front["routed"][0]) == (OFFERED.arrival_s < until_s).sum()
    assert parts.serve()
    assert np.array_equal(times(parts.result()), times(whole))
    assert np.array_equal(parts.result().replica_of, whole.replica_of)


def test_who_is_sent_somewhere_goes_there_and_the_rest_where_the_load_is_least():
    sent_to = np.where(np.arange(len(OFFERED)) % 4 == 0, 2, -1).astype(np.int32)
    part = running(sent_to=sent_to)
    part.serve()
    where = part.result().replica_of
    assert (where[::4] == 2).all()
    assert set(where.tolist()) == {0, 1, 2}
    assert sent_to[1] == -1, "the caller's own array stays as it is"


def test_a_replica_that_stops_goes_on_later_and_loses_nobody():
    stopped = running()
    stopped.serve(1.0)
    waited = stopped.states.engine["left"][1]
    for now_s in (1.0, 1.5, 2.0, 2.5):
        stopped.hold(1, 3.0)
        stopped.serve(now_s + 0.5)
    assert stopped.states.engine["left"][1] == waited
    assert stopped.serve()
    run, whole = stopped.result(), serve_on_replicas(MACHINE, OFFERED, 3, HOOK)
    assert not np.isnan(run.served.ttft_s).any()
    late = (run.replica_of == 1) & (OFFERED.arrival_s < 1.0)
    assert np.nanmean(run.served.e2e_s[late]) > np.nanmean(whole.served.e2e_s[late])


def test_tables_say_what_each_tenant_has_where():
    part = running()
    tenants = ReplicaTenants(part, HOOK, OFFERED)
    assert set(tenants.names) == {one.tenant for one in REQUESTS}
    part.serve(1.0)
    waiting = tenants.waiting()
    assert waiting.sum() == part.hooks.core.engine["waiting"].sum()
    part.serve()
    column = tenants.of_request
    where = part.result().replica_of
    for k in range(3):
        for i in range(len(tenants.names)):
            rows = (where == k) & (column == i)
            prompts = OFFERED.prompt_tokens[rows].sum()
            answers = part.result().served.output_tokens[rows].sum()
            assert tenants.work()[k, i] == prompts + DECODE_WORK * answers
            assert tenants.demand()[k, i] == prompts + OFFERED.output_tokens[rows].sum()


def test_terms_hold_on_the_replica_that_is_told():
    part = running()
    tenants = ReplicaTenants(part, HOOK, OFFERED)
    before = part.hooks.core.tenants["weight"].copy()
    terms = {name: TenantTerms(weight=2.0 + i, floor=0.1) for i, name in enumerate(tenants.names)}
    tenants.promise(1, Contract(tenants=terms), {tenants.names[0]: TenantPart(0.5)})
    after = part.hooks.core.tenants
    assert np.array_equal(after["weight"][[0, 2]], before[[0, 2]])
    own = after["floor"][1] > 0
    wanted = {(0.05, 1.0), *((0.1, 2.0 + i) for i in range(1, len(terms)))}
    found = zip(after["floor"][1][own].tolist(), after["weight"][1][own].tolist(), strict=True)
    assert set(found) == wanted
