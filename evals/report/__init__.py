"""How is a run shown? Terminal tables, Markdown, and one self-contained HTML page."""

from evals.report.arms_drawn import drawn_arms
from evals.report.case_section import CaseReport
from evals.report.page import write_load_figures, write_report, write_suite_report
from evals.report.table import markdown_report, markdown_table, terminal_report, terminal_table

__all__ = [
    "CaseReport",
    "drawn_arms",
    "markdown_report",
    "markdown_table",
    "terminal_report",
    "terminal_table",
    "write_load_figures",
    "write_report",
    "write_suite_report",
]
