"""What ServeGen's files look like: a model with a few small clients, written by the test."""

import json
from pathlib import Path

# Ten minutes each: 60 requests Poisson, none, 120 in bursts, and in the second hour 6.
WINDOWS = (
    "0,0.1,1.0,Gamma,1.0,10.0",
    "600,0,0,,0,0",
    "1200,0.2,3.0,Weibull,0.4,1.5",
    "3600,0.01,1.0,Gamma,1.0,100.0",
)
CHAT = ({100: 0.5, 300: 0.5}, {400: 1.0})
LATER = ({7: 1.0}, {9: 1.0})


def write_client(
    folder: Path, number: int, windows=WINDOWS, spans=None, *, reasons: bool = False
) -> None:
    """A client; `spans` has prompt and answer shares by start, by default chats that change."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"chunk-{number}-trace.csv").write_text("\n".join(windows) + "\n")
    document = {
        str(start): {"input_tokens": str(prompts), "output_tokens": str(answers)}
        | ({"reason_ratio": "{0.5: 1.0}"} if reasons else {})
        for start, (prompts, answers) in (spans or {0: CHAT, 1800: ({}, {}), 3600: LATER}).items()
    }
    (folder / f"chunk-{number}-dataset.json").write_text(json.dumps(document))


def write_model(folder: Path) -> Path:
    """Three clients: one that chats, one that sends documents, one in the second hour only."""
    write_client(folder, 3)
    write_client(folder, 7, spans={0: ({5000: 1.0}, {50: 0.9, 90: 0.1})})
    write_client(folder, 12, windows=WINDOWS[3:], reasons=True)
    return folder
