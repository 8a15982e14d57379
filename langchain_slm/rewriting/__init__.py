"""A graph's sites, the copy of a graph that runs in a scope, and the call-time hook."""
