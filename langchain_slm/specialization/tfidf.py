"""TF-IDF terms of a text, and the linear classifier fitted on them.

Only `fit` needs scikit-learn (extra `convert`). Refuses to hold a model: `heads` does,
as plain numbers.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from langchain_slm.errors import MissingExtraError, NoExamplesError

# A word of one example cannot generalise, and it is the likeliest to be a name.
MIN_COUNT = 2
# What nearly every input has is the prompt's own wording; without it an input that
# shares nothing else with the examples has no known word, and the head abstains.
MAX_SHARE = 0.95
# An artefact at both caps has 4 MB and loads in under 100 ms.
MAX_TERMS = 20_000
MAX_WEIGHTS = 400_000
# Measured on package docstrings by package (2 to 6 labels, 200 and 500 examples): 1 loses
# 0-4 points of accuracy to 10; 100 gains none and crowds the confidences at 1. Character
# n-grams gained 1-3 points more, for five times the terms.
INVERSE_REGULARISATION = 10.0
# Enough for lbfgs to converge at that strength; the library's 100 is not always.
MAX_ITERATIONS = 1000
# Six digits move a probability by about 1e-6 and halve the artefact. Rounded before
# calibration: what is tested is what runs.
SIGNIFICANT_DIGITS = 6

# Chinese and Japanese put no blanks between words: each character is a word there, and
# the pairs are the words.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class Fit(NamedTuple):
    """A fitted classifier, rounded, under the names of a head's fields.

    Attributes:
        vocabulary: Its terms.
        idf: Inverse document frequency of each term.
        weights: Shape (n_labels, n_terms).
        bias: One per label.
    """

    vocabulary: tuple[str, ...]
    idf: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]


def terms_of(text: str) -> list[str]:
    """Return the words of `text` and its pairs of neighbours, in one case and form."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    return words + [f"{first} {second}" for first, second in pairwise(words)]


def fit(texts: list[str], targets: list[int], *, n_labels: int, seed: int) -> Fit:
    """Fit a multinomial logistic regression on sublinear TF-IDF of `texts`.

    Args:
        texts: One per example.
        targets: Index of each text's label; each of `range(n_labels)` occurs.
        n_labels: At least 2.
        seed: Handed to the solver.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
        NoExamplesError: If the texts share no terms that tell them apart.
    """
    try:
        from sklearn import feature_extraction, linear_model
    except ImportError as error:
        msg = "training a head needs scikit-learn: pip install 'langchain-slm[convert]'"
        raise MissingExtraError(msg, extra="convert") from error
    vectorizer = feature_extraction.text.TfidfVectorizer(
        analyzer=terms_of,
        sublinear_tf=True,
        min_df=MIN_COUNT,
        max_df=MAX_SHARE,
        max_features=min(MAX_TERMS, MAX_WEIGHTS // n_labels),
    )
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise _no_shared_words(len(texts)) from error
    classifier = linear_model.LogisticRegression(
        C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS, random_state=seed
    ).fit(features, targets)
    weights = [_rounded(row) for row in classifier.coef_.tolist()]
    bias = _rounded(classifier.intercept_.tolist())
    if n_labels == 2:  # noqa: PLR2004 - two labels share one row in scikit-learn
        weights, bias = [(0.0,) * len(weights[0]), *weights], (0.0, *bias)
    return Fit(
        vocabulary=tuple(vectorizer.get_feature_names_out().tolist()),
        idf=_rounded(vectorizer.idf_.tolist()),
        weights=tuple(weights),
        bias=bias,
    )


def softmax(scores: Sequence[float]) -> tuple[float, ...]:
    """Return the probabilities of labels with these scores; at least one score."""
    top = max(scores)  # subtracted first: exp of a large score overflows
    powers = [math.exp(score - top) for score in scores]
    total = sum(powers)
    return tuple(power / total for power in powers)


def _rounded(values: list[float]) -> tuple[float, ...]:
    return tuple(float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values)


def _no_shared_words(examples: int) -> NoExamplesError:
    msg = (
        f"head: the inputs of {examples} training examples share no words that tell them "
        "apart. Keep the reference at this site."
    )
    return NoExamplesError(msg, usable=examples)
