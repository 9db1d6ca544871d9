r"""`equilibrium`: the equilibrium of a game, computed directly, with its certificates.

One Newton method serves every game with ``beta > 0``. The unknown is :math:`z=\log\pi`, the residual
:math:`r(z) = z - \log\rho - u(z)/\beta` up to a constant, and a step solves (theory 6.1)

.. math:: \left(I - \tfrac1\beta(I - 1q^\top)M\right)dz = -(r - q^\top r), \qquad q=\pi,\; M = \partial u/\partial z.

Preferences differ only in how the system is solved: by an LU factorisation, or for one large context by conjugate
gradients (theory 6.7); for rewards by a bidiagonal recursion in the cumulative masses (theory 6.2); for low-rank scores
in the dimension of the embeddings (theory 6.5). Where Newton's method fails from the reference, the path in
:math:`\tau = 1/\beta` is followed from :math:`\tau=0`, whose equilibrium is the reference, with adaptive strides. Dense
games with small beta start at the end of the central path instead (theory 6.7). Where all that fails, a rule with a
convergence theorem runs until Newton's method takes over. All contexts advance together, each on its own path.
"""

from __future__ import annotations

import numpy as np

from .._array import Array, to_numpy
from ..games import Game
from ..solution import Solution
from .certificate import DEFAULT_TOL, certify, check_arguments
from .contexts import beta_of_contexts, in_chunks, make_problem, method_name, problem_class
from .newton import solve_newton
from .winners import solve_winners


def equilibrium(game: Game, tol: float | None = None, start: Array | Solution | None = None) -> Solution:
    r"""Return the equilibrium of a game, with a proof of how close the answer is.

    - Win-rate game, ``beta > 0``: the unique equilibrium (theory 2.1). The certificates bound the distance to it.
    - Log-win-rate games, ``beta`` above the contraction constant: the unique equilibrium of full support (theory 3.7).
    - Log-win-rate games of a reward with weak ties, at a ``beta`` so small that theory 3.9 puts all equilibria on the
      responses of largest reward: the reference restricted to these, the only one.
    - Other log-win-rate games at smaller ``beta``: the equilibrium that best responses reach from the reference, for
      weak ties the one nearest to it (theory 3.10), with its support. Where best responses cycle, it is the one at the
      end of the path in beta, or else the nearest to the reference that Newton's method finds from random policies.
      Others may exist; the status says so, and `converged` rests on the residual alone.
    - ``beta = 0``: of all winners (:math:`P\pi\le\frac12`) the KL projection of the reference, which is the limit of
      the equilibria of the win-rate game as ``beta -> 0`` (theory 2.6). For a reward that is the reference restricted
      to the best responses.

    Parameters
    ----------
    game : Game
        All contexts are solved together.
    tol : float, optional
        A context counts as converged if its residual :math:`h(\pi, BR(\pi))`, and at ``beta = 0`` its gap, is at most
        `tol`, with an allowance for the rounding of double precision added to it (some ``1e-15 (1 + 1/beta)``). If
        None, `tol` is 1e-10, and where rounding alone exceeds that, a context counts as converged if each probability
        is proven to 1e-12 (theory 6.10). A status that says "not converged" names the `tol` that can be met.
    start : array, shape ``(..., m)``, or Solution, optional
        Normalised log-probabilities near the equilibrium, or the solution of a similar game. It saves steps, and where
        the equilibrium is unique it changes nothing else. Where it is not, best responses start here instead of at the
        reference. At ``beta = 0`` it is not used. For many values of beta see `equilibrium_path`.

    Returns
    -------
    Solution
        In the array library and on the device of the game, in float64. `steps` counts linear systems.

    Raises
    ------
    ValueError
        If `tol` is not positive, `start` is not a policy of the game, or ``beta = 0`` in a log-win-rate game whose
        matrix is not constant-sum: symmetric equilibria of a general bimatrix game are not computed here.

    Examples
    --------
    >>> import windgames as wg
    >>> rock_paper_scissors = wg.MatrixPreference([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
    >>> solution = wg.equilibrium(wg.WinRateGame(rock_paper_scissors, [0.6, 0.3, 0.1], beta=0.1))
    >>> print(solution.policy.round(3), solution.converged)
    [0.296 0.444 0.26 ] True
    """
    tol = check_arguments(game, tol)
    local = game.to_numpy()
    start = getattr(start, "log_policy", start)
    guess = None if start is None else to_numpy(game.check_policy(start, "start")).astype(float)
    beta = beta_of_contexts(local)
    out, systems = np.empty((beta.size, game.n_responses)), np.zeros(beta.size, dtype=int)
    methods = []
    unregularised, regularised = np.flatnonzero(beta == 0), np.flatnonzero(beta > 0)
    if unregularised.size:
        methods.append(solve_winners(local, unregularised, out, systems))
    if regularised.size:

        def solve_chunk(chunk: np.ndarray) -> None:
            problem = make_problem(local, chunk, beta[chunk])
            if guess is not None:
                problem.start_from(guess.reshape(-1, game.n_responses)[chunk])
            z, systems[chunk] = solve_newton(problem, tol or DEFAULT_TOL)
            out[chunk] = problem.expand(z)

        in_chunks(problem_class(local), local, regularised, solve_chunk)
        methods.append(method_name(local))
    origin = "the reference" if start is None else "the start"
    return certify(game, local, out, systems, tol, " and ".join(methods), origin)
