"""How is a run shown? Terminal tables, Markdown, and one self-contained HTML page."""

from evals.report.page import MOST_ARMS_DRAWN, CaseReport, write_report, write_suite_report
from evals.report.table import markdown_report, markdown_table, terminal_report, terminal_table

__all__ = [
    "MOST_ARMS_DRAWN",
    "CaseReport",
    "markdown_report",
    "markdown_table",
    "terminal_report",
    "terminal_table",
    "write_report",
    "write_suite_report",
]
