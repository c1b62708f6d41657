"""Features and classes in; a generator out, and features that it made of each class.

A class-conditional diffusion model is trained on stored features (`diffusion/`), candidates are
drawn from it and judged against real features that it never saw (`quality.py`), and what it is
worth is told beside the cheapest that could do as well (`measures.py`). Read `run.py` first.

For training without OOD data, `synthetic.py` makes features that lie just beyond given ones
(`shell.py`).
"""
