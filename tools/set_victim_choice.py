"""May an agent choose which request is preempted? Called by the memory agent."""

from tools.tool import limit_tool

set_victim_choice = limit_tool("choose_victims")
