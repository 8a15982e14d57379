"""Cheaper candidates made from a site's own examples, the cheapest kind first.

`heads` trains closed-set classifiers, on the terms of `tfidf`. Refuses to judge what it
makes: `evaluation` does, on examples that no specialisation has seen.
"""
