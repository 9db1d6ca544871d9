r"""Laplacians of graphs of comparisons: :math:`L = \sum_{ij} w_{ij}(e_i-e_j)(e_i-e_j)^\top`, dense or sparse."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.linalg.lapack import dpocon, dpotrf, dpotrs
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg, splu

DENSE = 1000
"""Up to this many responses a Laplacian is factorised as a dense matrix."""


def laplacian(m: int, i: np.ndarray, j: np.ndarray, weight: np.ndarray) -> sparse.csr_array:
    """Return the Laplacian of the pairs ``(i, j)``, each given once."""
    off = sparse.coo_array((weight, (i, j)), shape=(m, m))
    off = (off + off.T).tocsr()
    return (sparse.diags_array(off.sum(axis=1)) - off).tocsr()


def solve_laplacian(
    m: int, i: np.ndarray, j: np.ndarray, weight: np.ndarray, right: np.ndarray, ridge: np.ndarray | float = 0.0
) -> np.ndarray:
    r"""Return `x` with :math:`(L + \mathrm{diag}(\text{ridge}))x = \text{right}`.

    Without a ridge the Laplacian does not see a constant on a connected component; `x` is then the solution of mean
    zero on each. Large systems are solved by conjugate gradients, and by a sparse factorisation where those stall.
    """
    L = laplacian(m, i, j, weight)
    label = None
    if np.any(ridge):
        L = L + sparse.diags_array(np.broadcast_to(np.asarray(ridge, dtype=float), m))
    else:
        label = connected_components(L, directed=False)[1]
        right = _centred(right, label)
    diagonal = L.diagonal()
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    if m > DENSE:
        x, stalled = cg(L, right, rtol=1e-13, maxiter=1000, M=sparse.diags_array(scale**2))
    if m <= DENSE or stalled:
        if label is not None:  # the response of largest diagonal is held at zero in each component
            order = np.lexsort((-diagonal, label))
            first = order[np.unique(label[order], return_index=True)[1]]
            held = np.zeros(m)
            held[first] = np.where(diagonal[first] > 0, diagonal[first], 1.0)
            L = L + sparse.diags_array(held)
        if m <= DENSE:
            x = _solve_dense(L.toarray() * scale * scale[:, None], scale * right) * scale
        else:
            x = splu(L.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(right)
    return x if label is None else _centred(x, label)


def _solve_dense(A: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the solution of a positive definite system of unit diagonal, or say that its weights differ too much."""
    lower, info = dpotrf(A, lower=1)
    if info or not dpocon(lower, float(np.max(np.sum(np.abs(A), axis=0))), uplo="L")[0] > np.finfo(float).eps:
        raise ValueError(
            "The counts differ too much in size for double precision: some of the weakest bind groups together that "
            "are bound inside by counts 1e12 times larger. Leave the weakest out."
        )
    return dpotrs(lower, right, lower=1)[0]


def groups(graph: sparse.csr_array, connection: str) -> list[np.ndarray]:
    """Return the ``"weak"`` or ``"strong"`` components of a directed graph, largest first."""
    label = connected_components(graph, directed=True, connection=connection)[1]
    order = np.argsort(label, kind="stable")
    found = np.split(order, np.cumsum(np.bincount(label))[:-1])
    return sorted(found, key=lambda group: (-len(group), group[0]))


def _mean(x: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.bincount(label, x) / np.bincount(label)


def _centred(x: np.ndarray, label: np.ndarray) -> np.ndarray:
    return x - _mean(x, label)[label]
