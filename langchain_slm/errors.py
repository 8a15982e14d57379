"""Every failure that this package expects. Pure: no I/O, no framework.

SLMError
├── MissingExtraError      an optional dependency is not installed
├── StoreError             the store cannot be used
│   ├── StoreLockedError   another process holds it past the busy time-out
│   ├── StoreCorruptError  the file is not a readable database; its bytes are kept
│   └── StoreVersionError  written by a newer version of this package
├── PlanError              the plan file cannot be used
│   ├── PlanEditedError    its content does not match its own hash
│   └── PlanOutdatedError  it was made for another version of the graph
├── CatalogError           models.toml cannot be used
├── SuiteError             a recorded suite cannot be read
├── GraphLoadError         `path.py:variable` does not give a graph
├── RewriteError           a graph or a site cannot be rewritten
│   └── SourceError        a source file is not edited, or not restored
├── NoCandidatesError      nothing to choose from
├── NoExamplesError        nothing to decide with
├── EndpointError          a model's endpoint does not answer as one
├── DeadlineExceededError  a request took longer than it may (also a TimeoutError)
├── BudgetExceededError    a request's attempts, or the dollars of a limit, are used up
└── AnswerError            a model's answer cannot be used
    ├── IncompleteAnswerError  there is none, or its end is missing
    └── BrokenStreamError  a stream failed after chunks were released
"""

from __future__ import annotations


class SLMError(Exception):
    """A failure with a message for people and its facts as attributes.

    Args:
        message: What happened, the values seen, and the way out.
        **fields: The facts of the message, kept in `fields`.

    Example:
        >>> error = SLMError("plan.json: no such file", path="plan.json")
        >>> error.fields["path"]
        'plan.json'
    """

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.fields = fields


class MissingExtraError(SLMError):
    """An optional dependency is not installed."""


class StoreError(SLMError):
    """The store cannot be used."""


class StoreLockedError(StoreError):
    """Another process holds the store past the busy time-out."""


class StoreCorruptError(StoreError):
    """The file is not a readable database; its bytes are left as they are."""


class StoreVersionError(StoreError):
    """The store was written by a newer version of this package."""


class PlanError(SLMError):
    """The plan cannot be used."""


class PlanEditedError(PlanError):
    """The plan's content does not match its own hash."""


class PlanOutdatedError(PlanError):
    """The plan was made for another version of the graph."""


class CatalogError(SLMError):
    """The catalogue of models cannot be used."""


class SuiteError(SLMError):
    """A recorded suite cannot be read."""


class GraphLoadError(SLMError):
    """A `path.py:variable` does not give a LangGraph graph."""


class RewriteError(SLMError):
    """A graph or a site cannot be rewritten."""


class SourceError(RewriteError):
    """A source file is not edited, or not restored; it is as it was."""


class NoCandidatesError(SLMError):
    """There is no model to choose from."""


class NoExamplesError(SLMError):
    """There is nothing to decide with."""


class EndpointError(SLMError):
    """A model's endpoint does not answer as one."""


class DeadlineExceededError(SLMError, TimeoutError):
    """A request took longer than its limits allow."""


class BudgetExceededError(SLMError):
    """The attempts of a request, or the dollars of a limit, are used up."""


class AnswerError(SLMError):
    """A model's answer cannot be used."""


class IncompleteAnswerError(AnswerError):
    """The last model to be asked gave no answer, or one whose end is missing."""


class BrokenStreamError(AnswerError):
    """A stream failed after chunks had been released to the app."""
