"""Does the table for spreadsheets say what the results say, row by row?"""

import csv
import io

from evals.result.summary_table import COLUMNS, summary_csv
from tests.evals.load_samples import runs


def test_there_is_a_row_per_result_with_its_figures():
    results = runs({"vllm-fcfs": [1.0, 0.5, 0.25], "hmas": [1.0, 0.9, 0.8]}, bound_rps=20.0)
    results[0]["chosen"] = {"token_budget": 512, "max_num_seqs": 64}
    rows = list(csv.DictReader(io.StringIO(summary_csv(results))))
    assert len(rows) == len(results) == 12
    assert list(rows[0]) == list(COLUMNS)
    for row, result in zip(rows, results, strict=True):
        assert (row["arm"], row["seed"]) == (result["arm"], str(result["seed"]))
        assert float(row["goodput_rps"]) == round(result["goodput_rps"], 6)
        assert float(row["worst_window"]) == result["stability"]["worst"]
        assert float(row["ttft_p90_s"]) == round(result["ttft_s"]["p90"], 6)
        assert row["bound_rps"] == "20.0"
    assert rows[0]["chosen"] == "token_budget=512 max_num_seqs=64"


def test_what_a_live_result_does_not_know_stays_empty():
    (result, *_) = runs({"sglang": [1.0, 0.5, 0.25]})
    result["preemptions"] = None
    (row, *_) = csv.DictReader(io.StringIO(summary_csv([result])))
    assert (row["preemptions"], row["bound_rps"], row["chosen"]) == ("", "", "")
