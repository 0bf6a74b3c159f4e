"""In what order do the agents work? LangGraph wiring only."""
