"""Errors that a caller can act on: each message says what was found, what was expected and what to do."""

from __future__ import annotations


class QaEdgeError(Exception):
    """Base of all errors that qa-edge raises on purpose."""


class InputError(QaEdgeError):
    """A value given by the caller cannot be used: an empty question, a limit below one."""


class DataError(QaEdgeError):
    """A data file is missing, cut, of another shape, or was made from other data."""


class BundleError(QaEdgeError):
    """A bundle is missing a file, changed, or newer than this runtime."""


class EngineError(QaEdgeError):
    """An inference engine is missing, or refused the graph."""


class MissingExtraError(QaEdgeError):
    """A command needs an optional dependency; the message names the extra that brings it."""
