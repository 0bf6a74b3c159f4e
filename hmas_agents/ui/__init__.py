"""How does a person see the ledger in a browser? The local web page behind `hmas ui`.

`server` answers, `guard` refuses what comes from elsewhere, `ledgers` reads the files,
`timeline`, `decision_view` and `comparison` say what a page shows, `prompt_routes` edits
prompts, and `page/` is the page itself: plain HTML, CSS and JavaScript modules.
"""
