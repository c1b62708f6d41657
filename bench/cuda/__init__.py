"""What only a GPU shows: results against float64, speed, memory and training of the CUDA paths.

`python -m bench.cuda CONFORMERS` runs the checks of `right`, `tiles`, `speed`, `training` and
`microbatches`; the last two import Ray, which need not run.
`python -m bench.cuda.molecules CONFORMERS` makes that file, and needs RDKit; the checks do
without. ../cuda.md has what was found so far.
"""
