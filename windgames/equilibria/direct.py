r"""equilibrium(game): direct, fast, and never called converged beyond what its residual proves.

One Newton method serves every game with ``beta > 0``. The unknown is :math:`z=\log\pi`, the residual
:math:`r(z) = z - \log\rho - u(z)/\beta` up to a constant, and a step solves (theory 6.1)

.. math:: \left(I - \tfrac1\beta(I - 1q^\top)M\right)dz = -(r - q^\top r), \qquad q=\pi,\; M = \partial u/\partial z.

Preferences differ only in how the system is solved: dense by an LU factorisation, rewards by a bidiagonal
recursion in the cumulative masses (theory 6.2), low-rank scores in as many dimensions as they have (theory 6.5), one
large dense context by a few products with the matrix, where a few do (theory 6.7).
Where Newton fails from the reference, the path in :math:`\tau = 1/\beta` is followed from :math:`\tau=0`, whose
equilibrium is the reference, with adaptive steps; dense games of low price begin near the equilibrium instead, at the
end of the central path (theory 6.7); where all that fails, the rule with a theorem runs until Newton takes over. All
contexts advance in lock-step, each on its own path.
"""

from __future__ import annotations

import numpy as np

from .._array import Array, to_numpy
from ..games import Game
from ..solve import Solution
from .common import (
    certify,
    check_arguments,
    flat_beta,
    in_chunks,
    make_problem,
    method_name,
    problem_class,
    solve_unregularised,
)
from .newton import solve_newton


def equilibrium(game: Game, tol: float = 1e-10, start: Array | Solution | None = None) -> Solution:
    r"""Return the equilibrium of a game, with the proof of how close it is.

    - Win-rate game, ``beta > 0``: the unique equilibrium (theory 2.1). The certificates bound the distance to it.
    - Log-win-rate games, ``beta`` above the contraction constant: the unique equilibrium of full support (theory 3.7).
    - Log-win-rate games at smaller ``beta``: the equilibrium that the best-response map reaches from the reference,
      for weak ties the one nearest to it (theory 3.10), with its support; where best responses cycle, the one at the
      end of the path in beta, and where that folds, the nearest to the reference that Newton finds from random
      policies. Others may exist; the status says so, and `converged` rests on the residual alone.
    - ``beta = 0``: of all winners (:math:`P\pi\le\frac12`) the KL projection of the reference, the limit of the
      regularised equilibria of the win-rate game (theory 2.6); with a uniform reference that of maximum entropy. For
      a reward that is the reference restricted to the best responses.

    Parameters
    ----------
    game : Game
        Contexts are solved together, without a Python loop over them where ``beta > 0``.
    tol : float
        Residual :math:`h(\pi, BR(\pi))` in log space at which a context counts as converged; at ``beta = 0`` the gap.
    start : array, shape ``(..., m)``, or Solution, optional
        Normalised log-probabilities near the equilibrium, or the solution of a similar game: saves steps, and changes
        nothing else where the equilibrium is unique. Where others may exist, best responses start from here and not
        from the reference; at ``beta = 0`` it is not used. For many values of beta see `equilibrium_path`.

    Returns
    -------
    Solution
        In the array library and on the device of the game, float64. `steps` counts linear systems.

    Raises
    ------
    ValueError
        If `start` is not a policy of the game, or if ``beta = 0`` in a log-win-rate game whose matrix is not
        constant-sum: a symmetric equilibrium of a general bimatrix game is not computed here.
    """
    tol = check_arguments(game, tol)
    local = game.to_numpy()
    start = getattr(start, "log_policy", start)
    given = None if start is None else to_numpy(game.check_policy(start, "start")).astype(float)
    beta = flat_beta(local)
    out, steps = np.empty((beta.size, game.n_responses)), np.zeros(beta.size, dtype=int)
    methods = []
    free, rows = np.flatnonzero(beta == 0), np.flatnonzero(beta > 0)
    if free.size:
        methods.append(solve_unregularised(local, free, out))
    if rows.size:

        def solve_chunk(chunk: np.ndarray) -> None:
            problem = make_problem(local, chunk, beta[chunk])
            if given is not None:
                problem.start_from(given.reshape(-1, game.n_responses)[chunk])
            z, steps[chunk] = solve_newton(problem, tol)
            out[chunk] = problem.expand(z)

        in_chunks(problem_class(local), local, rows, solve_chunk)
        methods.append(method_name(local))
    origin = "the reference" if start is None else "the start"
    return certify(game, local, out, steps, tol, " and ".join(methods), origin)
