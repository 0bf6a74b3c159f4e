"""Who proposes? The LLM policy agent over the long horizon, rule agents over the short."""
