"""Errors that a user can mend; commands print them as one line and exit with 2."""


class InputError(ValueError):
    """The input or a setting is wrong; the message says what, where and how to mend it."""


class RowRejected(Exception):
    """One molecule cannot be processed; the message is the reason kept in `rejected`."""
