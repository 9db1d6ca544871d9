r"""The central path of a constant-sum game with entropy, by a predictor-corrector method (theory 6.7).

For each :math:`\mu>0` there is one :math:`x` in the simplex with

.. math:: t_i = v - (Ax)_i + \beta\log(x_i/\rho_i) > 0,\qquad x_it_i = \mu,

where :math:`A=P-\frac12`. As :math:`\mu\to0` these points converge to the equilibrium of the win-rate game, or at
``beta = 0`` to a winner of largest support. Unlike the path in beta, this one takes some ten steps whatever beta and
the reference are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg.lapack import dgetrf, dgetrs

MAX_STEPS = 80
"""Steps after which a context stops where it is; many more than have ever been needed."""
CG_FROM = 200
"""Number of responses from which on the systems of a single context are tried by conjugate gradients."""
CG_STEPS = 30
"""Most iterations of conjugate gradients, at two products each; a factorisation costs as much as about thirty."""
CG_TOLERANCE = 1e-5
"""Error of a solution by conjugate gradients, relative to the right-hand side."""


def central_path(
    A: np.ndarray,
    log_ref: np.ndarray,
    beta: np.ndarray,
    stop: np.ndarray,
    accept: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Follow the path of each context from the uniform policy until :math:`m\mu` is at most `stop`.

    Parameters
    ----------
    A : array, shape ``(n, m, m)`` or ``(1, m, m)`` for all contexts
        Preferences less a half.
    log_ref : array, shape ``(n, m)``
        Finite log-probabilities; they have no effect where ``beta = 0``.
    beta, stop : array, shape ``(n,)``
    accept : callable, optional
        ``accept(i, x, t)`` is called with the contexts `i` that are still on their way, and returns which of them may
        stop.

    Returns
    -------
    x, t : array, shape ``(n, m)``
        Policy and slack.
    systems : array of int, shape ``(n,)``
        Number of linear systems that were set up.
    """
    n, m = log_ref.shape
    x, price = np.full((n, m), 1 / m), beta[:, None]
    level = batched_matvec(A, x) - price * (np.log(x) - log_ref)
    top = np.max(level, axis=-1, keepdims=True)
    v = top + np.maximum(np.ptp(level, axis=-1, keepdims=True), 1e-3)
    t = v - level
    systems, active = np.zeros(n, dtype=int), np.arange(n)
    use_cg = m >= CG_FROM and n == 1
    for _ in range(MAX_STEPS):
        active = active[np.sum(x[active] * t[active], axis=-1) > stop[active]]
        if not active.size:
            break
        i = active
        matrix, xi, ti, cost = (A if len(A) == 1 else A[i]), x[i], t[i], price[i]
        mu = np.mean(xi * ti, axis=-1, keepdims=True)
        off = v[i] - batched_matvec(matrix, xi) + cost * (np.log(xi) - log_ref[i]) - ti
        # far along the path systems become singular: such steps are not taken
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            solve = _System(matrix, (cost + ti) / xi, use_cg)
            ones = solve(np.ones_like(xi))
            dx, dt, _ = _step(solve, ones, off, xi, ti, np.zeros_like(xi))
            size = _step_size(xi, dx, ti, dt, 1.0)
            left = np.mean((xi + size * dx) * (ti + size * dt), axis=-1, keepdims=True)
            # the corrector aims at the centre the more, the less far the predictor gets, and adds its second-order term
            dx, dt, dv = _step(solve, ones, off, xi, ti, (left / mu) ** 3 * mu - dx * dt)
            size = _step_size(xi, dx, ti, dt, 0.99)
        sane = np.all(np.isfinite(dx) & np.isfinite(dt), axis=-1) & (size[:, 0] > 1e-10)
        systems[i] += 1
        use_cg = solve.use_cg
        i, size, dx, dt, dv = i[sane], size[sane], dx[sane], dt[sane], dv[sane]
        x[i], t[i], v[i] = x[i] + size * dx, t[i] + size * dt, v[i] + size * dv
        active = i if accept is None else i[~accept(i, x[i], t[i])]
    return x, t, systems


def _step(
    solve: _System, ones: np.ndarray, off: np.ndarray, x: np.ndarray, t: np.ndarray, products: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the steps of `x`, `t` and `v` that take `off` to zero and ``x t`` to `products`, to first order."""
    dx = solve(-off + (products - x * t) / x)
    dv = np.sum(dx, axis=-1, keepdims=True) / np.sum(ones, axis=-1, keepdims=True)
    dx -= dv * ones
    return dx, (products - x * t - t * dx) / x, dv


def batched_matvec(A: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return ``A x`` in every context, for one matrix per context or one for all."""
    return x @ A[0].T if len(A) == 1 else (A @ x[..., None])[..., 0]


def _step_size(x: np.ndarray, dx: np.ndarray, t: np.ndarray, dt: np.ndarray, share: float) -> np.ndarray:
    """Return the largest step up to 1 that goes at most `share` of the way to where `x` or `t` has a zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.minimum(np.where(dx < 0, -x / dx, np.inf), np.where(dt < 0, -t / dt, np.inf))
    return np.minimum(1.0, share * np.min(room, axis=-1, keepdims=True))


class _System:
    r"""Solves :math:`(\mathrm{diag}(e)-A)x=g` for several `g`, one context per row."""

    def __init__(self, A: np.ndarray, e: np.ndarray, use_cg: bool) -> None:
        self.A, self.e, self.use_cg = A, e, use_cg
        self.factors: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, g: np.ndarray) -> np.ndarray:
        if self.use_cg:
            root = 1 / np.sqrt(self.e[0])
            b = root * g[0]
            y = conjugate_gradients(self.A[0], root, b, CG_TOLERANCE * float(np.linalg.norm(b)))
            if y is not None:
                return (root * y)[None]
            self.use_cg = False
        if not self.factors:
            index = np.arange(self.e.shape[-1])
            for k, e in enumerate(self.e):
                matrix = -self.A[k if len(self.A) > 1 else 0]
                matrix[index, index] += e
                self.factors.append(dgetrf(matrix)[:2])
        return np.stack([dgetrs(*lu, b)[0] for lu, b in zip(self.factors, g, strict=True)])


def conjugate_gradients(
    A: np.ndarray, root: np.ndarray, b: np.ndarray, error: float, normal: np.ndarray | None = None
) -> np.ndarray | None:
    r"""Solve :math:`(I-K)y=b` up to `error` by conjugate gradients, or return None where they are slow.

    :math:`K=RAR` with the diagonal `root` and `A` skew, on the complement of the unit vector `normal` if there is one.
    The method runs on :math:`(I+K^\top K)y=(I+K)b`, whose residual bounds the error (theory 6.7.4).
    """

    def apply_K(y: np.ndarray) -> np.ndarray:
        y = root * (A @ (root * y))
        return y if normal is None else y - normal * (normal @ y)

    y, left = np.zeros_like(b), b + apply_K(b)
    move, size = left.copy(), float(left @ left)
    for _ in range(CG_STEPS):
        if size <= error**2:
            return y
        image = move - apply_K(apply_K(move))
        length = size / float(move @ image)
        y += length * move
        left -= length * image
        before, size = size, float(left @ left)
        move = left + (size / before) * move
    return y if size <= error**2 else None
