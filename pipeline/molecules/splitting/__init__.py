"""Any table of molecules to a DrugOOD-format split: by scaffold, size, cluster, column or time.

In: molecules, parsed. Out: a split file, and counts of all that was merged or left out. Read
`run.py` first.
"""
