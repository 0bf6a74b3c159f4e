"""Do members that are looked up come and go with the answer, and stay while there is none?"""

import threading
from collections.abc import Mapping

import pytest

from serving.engines.live import LiveEngine
from serving.engines.protocol import EngineUnavailable
from serving.fleet.addresses import DnsName
from serving.fleet.dns_name import find_addresses
from serving.fleet.found_replicas import EVERY_S, FoundReplicas


class Names:
    """What is looked up; None is no answer."""

    def __init__(self, urls: Mapping[str, str] | None) -> None:
        self.urls, self.asked, self.now_s = urls, 0, 0.0

    def find(self) -> Mapping[str, str]:
        self.asked += 1
        if self.urls is None:
            raise EngineUnavailable("does not resolve")
        return self.urls

    def replicas(self) -> FoundReplicas:
        return FoundReplicas("dns://x:1", self.find, lambda url: LiveEngine(url, "t"), self.time)

    def time(self) -> float:
        return self.now_s


def test_members_are_looked_up_again_after_seconds_and_keep_their_engines():
    names = Names({"a": "http://a", "b": "http://b"})
    found = names.replicas()
    first = found.replicas()
    assert set(first) == {"a", "b"}
    names.urls = {"b": "http://b", "c": "http://c"}
    assert found.replicas() == first
    assert names.asked == 1
    names.now_s += EVERY_S
    second = found.replicas()
    assert set(second) == {"b", "c"}
    assert second["b"] is first["b"]


def test_a_name_at_another_address_has_a_new_engine():
    names = Names({"pod-0": "http://10.0.0.1"})
    found = names.replicas()
    first = found.replicas()["pod-0"]
    names.urls, names.now_s = {"pod-0": "http://10.0.0.2"}, EVERY_S
    assert found.replicas()["pod-0"] is not first


def test_without_an_answer_the_last_good_one_is_kept_and_said_once(caplog):
    names = Names({"a": "http://a"})
    found = names.replicas()
    found.replicas()
    names.urls = None
    for _ in range(3):
        names.now_s += EVERY_S
        assert set(found.replicas()) == {"a"}
    assert caplog.messages == ["dns://x:1: does not resolve: the last answer is used"]
    names.urls, names.now_s = {"b": "http://b"}, names.now_s + EVERY_S
    assert set(found.replicas()) == {"b"}
    assert caplog.messages[1:] == ["dns://x:1: found again"]


def test_one_that_was_never_found_is_not_available():
    with pytest.raises(EngineUnavailable, match="dns://x:1: does not resolve"):
        Names(None).replicas().replicas()


def test_a_look_that_takes_long_goes_on_in_the_background():
    names, gate = Names({"a": "http://a"}), threading.Event()

    def slow() -> Mapping[str, str]:
        gate.wait(60)
        return names.find()

    found = FoundReplicas("x", slow, lambda url: LiveEngine(url, "t"), names.time, wait_s=0.01)
    gate.set()
    found.replicas()
    gate.clear()
    names.urls, names.now_s = {"b": "http://b"}, EVERY_S
    assert set(found.replicas()) == {"a"}
    gate.set()
    while set(found.replicas()) != {"b"}:
        pass


def test_each_address_of_a_name_is_a_replica():
    assert find_addresses(DnsName("127.0.0.3", 80)) == {"127.0.0.3:80": "http://127.0.0.3:80"}
    assert find_addresses(DnsName("::1", 80)) == {"[::1]:80": "http://[::1]:80"}
    assert "127.0.0.1:80" in find_addresses(DnsName("localhost", 80))


def test_a_name_that_does_not_resolve_is_said():
    with pytest.raises(EngineUnavailable, match="does not resolve"):
        find_addresses(DnsName("no-such-host.invalid", 80))
