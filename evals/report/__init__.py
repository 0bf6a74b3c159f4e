"""How is a run shown? Terminal tables, Markdown, and one self-contained HTML page."""
