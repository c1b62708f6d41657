"""Files of any format, from bytes to rows of text.

In them `columns` then finds which column is what, and `raw_rows` makes rows of one form.

In: a file's address and format. Out: a `Content` (its columns, and its rows piece by piece, each
with its place in the file), whose rows are those that the file has at any size: a row that
cannot be read comes out as `Refused`. Read `content.py` first, then `formats.py` one room up.
"""
