"""The commands, each `molsieve NAME` or `python -m jobs.NAME`.

A command's module has a function of its name, which calls the pipeline and tells the result; the
type of its parameter `settings` is where its flags come from.
"""
