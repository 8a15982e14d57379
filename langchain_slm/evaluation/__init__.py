"""Stage S4, evidence: evaluators judge one output, experiments run them over a split."""
