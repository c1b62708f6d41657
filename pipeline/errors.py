"""Errors that a user can mend; commands print them as one line and exit with 2."""


class InputError(ValueError):
    """The input or a setting is wrong; the message says what, where and how to mend it."""


class DamagedShard(InputError):
    """A file of the store or of results is damaged; it was set aside, the next run makes it anew.

    A job that meets one starts over; see `pipeline.files.starting_over`.
    """


class RowRejected(Exception):
    """One molecule cannot be processed; the message is the reason kept in `rejected`."""
