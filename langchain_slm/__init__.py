"""Rewrite a LangGraph graph so that each node calls the cheapest model that passes."""
