"""Do the trace readers take good lines, name bad ones, and refuse useless files?"""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.requests.readers import FORMATS
from evals.requests.trace import TraceError

FILES = [name for name in FORMATS if name != "servegen"]  # whose traces are folders
AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
BURST_HEADER = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
AZURE_ROW = "2023-11-16 18:15:46.6805900,374,44"
BURST_ROW = "5,ChatGPT,472,18,490,Conversation log"
MOONCAKE_ROW = (
    '{"timestamp": 27482, "input_length": 600, "output_length": 52, "hash_ids": [46, 47]}'
)


def write(tmp_path: Path, *lines: str, newline: str = "\n") -> Path:
    path = tmp_path / "trace.txt"
    path.write_text(newline.join(lines), encoding="utf-8", newline="")
    return path


def test_azure_keeps_seven_fractional_digits_and_starts_at_zero(tmp_path):
    path = write(tmp_path, AZURE_HEADER, AZURE_ROW, "2023-11-16 18:15:46.6805901,396,109")
    trace = FORMATS["azure"](path)
    assert [r.arrival_s for r in trace.requests] == [0.0, pytest.approx(1e-7, abs=3e-7)]
    assert [(r.prompt_tokens, r.output_tokens) for r in trace.requests] == [(374, 44), (396, 109)]
    assert trace.malformed == ()


def test_azure_reads_windows_line_ends_byte_order_marks_and_a_missing_last_newline(tmp_path):
    rows = [AZURE_ROW, "2023-11-16 18:15:50.9951690,396,109"]
    path = write(tmp_path, "\ufeff" + AZURE_HEADER, *rows, newline="\r\n")
    trace = FORMATS["azure"](path)
    assert [r.arrival_s for r in trace.requests] == [0.0, pytest.approx(4.314579, abs=1e-6)]


def test_rows_out_of_order_are_sorted_and_counted(tmp_path):
    rows = ["9,m,2,2,4,x", "5,m,1,1,2,x", "9,m,3,3,6,x", "8,m,4,4,8,x"]
    trace = FORMATS["burstgpt"](write(tmp_path, BURST_HEADER, *rows))
    assert [r.prompt_tokens for r in trace.requests] == [1, 4, 2, 3]
    assert trace.out_of_order == 2
    in_order = FORMATS["burstgpt"](write(tmp_path, BURST_HEADER, rows[1], rows[0], rows[2]))
    assert in_order.out_of_order == 0


def test_mooncake_blocks_become_the_prefix(tmp_path):
    trace = FORMATS["mooncake"](write(tmp_path, MOONCAKE_ROW))
    assert trace.requests[0].prefix == (46, 47)
    assert trace.requests[0].prompt_tokens == 600
    assert trace.requests[0].arrival_s == 0.0


def test_burstgpt_leaves_out_and_counts_failed_requests(tmp_path):
    path = write(tmp_path, BURST_HEADER, BURST_ROW, "6,GPT-4,100,0,100,API log")
    trace = FORMATS["burstgpt"](path)
    assert len(trace.requests) == 1
    assert trace.failed == 1
    assert trace.malformed == ()


def test_burstgpt_takes_release_2_with_columns_in_between_and_empty_sessions(tmp_path):
    header = BURST_HEADER.replace("Timestamp,", "Timestamp,Session ID,Elapsed time,")
    rows = [
        "19440110.0,1722ac82-0a46-4bf0-aa08-89794e7a2b3f,43,GPT-4,906,446,1352,Conversation log",
        "19440161.5,,2,ChatGPT,36,29,65,API log",
    ]
    trace = FORMATS["burstgpt"](write(tmp_path, header, *rows))
    assert [(r.arrival_s, r.prompt_tokens, r.output_tokens) for r in trace.requests] == [
        (0.0, 906, 446),
        (51.5, 36, 29),
    ]
    assert trace.malformed == ()


def test_a_header_may_be_quoted_and_below_empty_lines(tmp_path):
    quoted = ",".join(f'"{name}"' for name in BURST_HEADER.split(","))
    path = write(tmp_path, "", quoted, '"5","GPT-4","472","18","490","API log"')
    assert FORMATS["burstgpt"](path).requests[0].output_tokens == 18


def test_empty_lines_are_no_lines_but_are_counted_in_line_numbers(tmp_path):
    path = write(tmp_path, "", MOONCAKE_ROW, "", "  ", "{", "")
    trace = FORMATS["mooncake"](path)
    assert len(trace.requests) == 1
    (line,) = trace.malformed
    assert line.startswith(f"{path}:5: line: not JSON: ")
    assert line.endswith(" at column 2")


def test_mooncake_takes_prompts_whose_last_block_is_not_named(tmp_path):
    row = MOONCAKE_ROW.replace("46, 47", "46")  # 600 tokens: one block of 512, and 88 more
    assert FORMATS["mooncake"](write(tmp_path, row)).requests[0].prefix == (46,)


def test_a_gzipped_file_is_read_as_it_is_and_one_that_is_cut_off_is_an_error(tmp_path):
    path = tmp_path / "trace.jsonl.gz"
    packed = gzip.compress("\r\n".join([MOONCAKE_ROW] * 50).encode())
    path.write_bytes(packed)
    assert len(FORMATS["mooncake"](path).requests) == 50
    path.write_bytes(packed[:-9])
    with pytest.raises(TraceError, match=r"trace\.jsonl\.gz: cannot be read: "):
        FORMATS["mooncake"](path)


@pytest.mark.parametrize(
    ("name", "lines", "says"),
    [
        ("azure", [AZURE_HEADER, AZURE_ROW, "yesterday,1,2"], ":3: TIMESTAMP: "),
        ("azure", [AZURE_HEADER, AZURE_ROW, "2023-13-16 18:15:46.0,1,2"], ":3: TIMESTAMP: "),
        ("azure", [AZURE_HEADER, AZURE_ROW, "2023-11-16 18:15:46.0,x,2"], ":3: ContextTokens: "),
        ("azure", [AZURE_HEADER, AZURE_ROW, "2023-11-16 18:15:46.0,1,0"], ":3: GeneratedTokens: "),
        ("azure", [AZURE_HEADER, AZURE_ROW, "2023-11-16 18:15:46.0,1"], ":3: GeneratedTokens: "),
        ("azure", [AZURE_HEADER, AZURE_ROW, "2023-11-16 18:15:46.0,-5,2"], ":3: ContextTokens: "),
        ("mooncake", [MOONCAKE_ROW, "{"], ":2: line: not JSON"),
        ("mooncake", [MOONCAKE_ROW, "[]"], ":2: line: expected an object"),
        ("mooncake", [MOONCAKE_ROW, MOONCAKE_ROW.replace("27482", "NaN")], ":2: timestamp: "),
        ("mooncake", [MOONCAKE_ROW, MOONCAKE_ROW.replace("600", "1.5")], ":2: input_length: "),
        ("mooncake", [MOONCAKE_ROW, MOONCAKE_ROW.replace("52", "true")], ":2: output_length: "),
        ("mooncake", [MOONCAKE_ROW, MOONCAKE_ROW.replace("46, 47", "1, 2, 3")], ":2: hash_ids: "),
        ("mooncake", [MOONCAKE_ROW, MOONCAKE_ROW.replace("hash_ids", "h")], ":2: hash_ids: "),
        ("burstgpt", [BURST_HEADER, BURST_ROW, "nan,m,1,1,2,x"], ":3: Timestamp: "),
        ("burstgpt", [BURST_HEADER, BURST_ROW, "1,m,0,1,1,x"], ":3: Request tokens: "),
        ("burstgpt", [BURST_HEADER, BURST_ROW, "1,m,1,many,2,x"], ":3: Response tokens: "),
        ("burstgpt", [BURST_HEADER, BURST_ROW, "1,m,1,1,?,x"], ":3: Total tokens: "),
    ],
)
def test_a_bad_line_is_named_and_the_rest_is_used(tmp_path, name, lines, says):
    path = write(tmp_path, *lines)
    trace = FORMATS[name](path)
    assert len(trace.requests) == 1
    assert len(trace.malformed) == 1
    assert trace.malformed[0].startswith(f"{path}{says}")


@pytest.mark.parametrize(
    ("name", "lines", "says"),
    [
        ("azure", ["time,ContextTokens,GeneratedTokens", AZURE_ROW], ":1: TIMESTAMP: column"),
        ("azure", [], ":1: TIMESTAMP: column missing"),
        ("azure", [AZURE_HEADER, "x,y,z"], ":2: TIMESTAMP"),
        ("azure", [AZURE_HEADER], "no usable request"),
        ("burstgpt", [AZURE_HEADER, AZURE_ROW], ":1: Timestamp: column missing"),
        ("burstgpt", [BURST_HEADER, "6,m,100,0,100,x"], "1 failed"),
        ("mooncake", ["not json"], ":1: line: not JSON"),
    ],
)
def test_a_useless_file_is_an_error_that_names_it(tmp_path, name, lines, says):
    path = write(tmp_path, *lines)
    with pytest.raises(TraceError) as error:
        FORMATS[name](path)
    assert str(path) in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_and_a_folder_are_named(tmp_path, name):
    with pytest.raises(TraceError, match=r"none\.csv: cannot be read: No such file"):
        FORMATS[name](tmp_path / "none.csv")
    with pytest.raises(TraceError, match="cannot be read: Is a directory"):
        FORMATS[name](tmp_path)


@pytest.mark.parametrize("name", FILES)
@given(data=st.binary(max_size=300))
def test_no_file_makes_a_reader_crash(tmp_path_factory, name, data):
    path = tmp_path_factory.mktemp("fuzz") / "trace"
    header = {"azure": AZURE_HEADER, "burstgpt": BURST_HEADER, "mooncake": ""}[name]
    path.write_bytes(header.encode() + b"\n" + data)
    try:
        trace = FORMATS[name](path)
    except TraceError:
        return
    assert trace.requests[0].arrival_s == 0


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(1, 10**5), st.integers(1, 10**4)), min_size=1
    )
)
def test_what_is_written_as_mooncake_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("mooncake") / "trace.jsonl"
    keys = ("timestamp", "input_length", "output_length")
    path.write_text(
        "\n".join(json.dumps(dict(zip(keys, row, strict=True), hash_ids=[])) for row in rows)
    )
    trace = FORMATS["mooncake"](path)
    ordered = sorted(rows, key=lambda row: row[0])
    assert [(r.prompt_tokens, r.output_tokens) for r in trace.requests] == [
        row[1:] for row in ordered
    ]
    assert trace.requests[-1].arrival_s == pytest.approx((ordered[-1][0] - ordered[0][0]) / 1000)
