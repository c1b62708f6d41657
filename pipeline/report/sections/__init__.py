"""One file a kind of folder: what the page shows of it.

Each has one function of the folder and the settings that gives a `Section`; `suite_table` is a part
of `suite`. What the folder lacks is said in the section, not left out.
"""
