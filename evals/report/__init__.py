"""How is a run shown? A terminal table, Markdown, and one self-contained HTML page."""

from evals.report.page import CaseReport, write_report, write_suite_report
from evals.report.table import markdown_table, terminal_table

__all__ = [
    "CaseReport",
    "markdown_table",
    "terminal_table",
    "write_report",
    "write_suite_report",
]
