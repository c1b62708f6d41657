"""Any output folder to one HTML page that needs no network.

In: a folder of a scored library, a screen, a training, an evaluation, a comparison, a suite, or one
that holds several. Out: one file with inline SVG, for a browser, a phone or a printer.

Read first: `run` (what jobs.report calls), `folders` (which file tells what a folder is),
`sections` (one file a kind of folder), `blocks` (what a section is made of), `figures` (charts; its
`plot` says why they are not matplotlib's), `page` and `templates/`.
"""
