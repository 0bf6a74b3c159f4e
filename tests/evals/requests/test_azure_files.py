"""Are the public traces found, fetched whole or not at all, and checked?"""

import httpx
import pytest

from evals.requests import azure_files
from evals.requests.azure_files import SOURCE, AzureFile, fetch_azure, find_azure
from evals.requests.trace import TraceError

SMALL = AzureFile("AzureLLMInferenceTrace_code.csv", 2)
GOOD = (
    b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    b"2023-11-16 18:17:03.9,1,2\r\n2023-11-16 18:17:04.0,3,4"
)


def fetch(tmp_path, answer):
    asked = []

    def handle(request):
        asked.append(str(request.url))
        return answer(request)

    with httpx.Client(transport=httpx.MockTransport(handle)) as client:
        fetch_azure(SMALL, tmp_path, lambda done, total: None, client)
    return tmp_path / SMALL.name, asked


def test_a_good_file_is_stored_under_its_name(tmp_path):
    path, asked = fetch(tmp_path / "new", lambda _: httpx.Response(200, content=GOOD))
    assert path.read_bytes() == GOOD
    assert asked == [f"{SOURCE}/{SMALL.name}"]
    assert [p.name for p in path.parent.iterdir()] == [SMALL.name]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>", "expected the header"),
        (b"", "expected the header"),
        (GOOD.rsplit(b"\r\n", 1)[0], "expected 2 rows as published, got 1"),
    ],
)
def test_a_file_that_is_not_as_published_is_refused_and_the_old_one_kept(tmp_path, content, says):
    (tmp_path / SMALL.name).write_bytes(b"old")
    with pytest.raises(TraceError, match=says):
        fetch(tmp_path, lambda _: httpx.Response(200, content=content))
    assert (tmp_path / SMALL.name).read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_network_the_error_says_what_to_do(tmp_path):
    def unreachable(request):
        raise httpx.ConnectError("no route to host", request=request)

    with pytest.raises(TraceError, match=r"no route to host.*HMAS_TRACES.*take another trace"):
        fetch(tmp_path, unreachable)
    with pytest.raises(TraceError, match="404"):
        fetch(tmp_path, lambda _: httpx.Response(404))
    assert list(tmp_path.iterdir()) == []


def test_traces_are_found_anywhere_below_the_named_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(azure_files, "DEFAULT_FOLDER", tmp_path / "default")
    monkeypatch.setenv("HMAS_TRACES", str(tmp_path / "named"))
    (tmp_path / "named" / "deep").mkdir(parents=True)
    assert find_azure("azure-code") is None
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / SMALL.name).touch()
    assert find_azure("azure-code") == tmp_path / "default" / SMALL.name
    (tmp_path / "named" / "deep" / SMALL.name).touch()
    assert find_azure("azure-code") == tmp_path / "named" / "deep" / SMALL.name


def test_a_named_folder_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HMAS_TRACES", str(tmp_path / "typo"))
    with pytest.raises(TraceError, match="HMAS_TRACES"):
        find_azure("azure-conv")
