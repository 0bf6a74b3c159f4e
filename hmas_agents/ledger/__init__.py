"""What was decided, from what, and what came of it? The decision ledger."""

from hmas_agents.ledger.reader import LedgerReader, Run, StoredDecision
from hmas_agents.ledger.schema import LedgerError
from hmas_agents.ledger.writer import Ledger

__all__ = ["Ledger", "LedgerError", "LedgerReader", "Run", "StoredDecision"]
