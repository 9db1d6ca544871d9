r"""`sensitivity`: the derivative of an equilibrium with respect to the data of its game.

By the implicit function theorem (theory 6.4) a tangent solves the Newton system of theory 6.1,

.. math:: \mathcal A\,\dot z = (I-\mathbf 1q^\top)\bigl(\tfrac{d}{dt}\log\rho + \dot u/\beta - u\dot\beta/\beta^2\bigr),

where :math:`\dot u` is the change of the payoff at a fixed policy. A gradient solves the transposed system.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from .._array import Array, is_array_api_obj, like, to_numpy
from .._validation import as_float, first_index, in_context
from ..games import WinRateGame
from ..preferences import RewardPreference
from ..solution import Solution
from .contexts import beta_of_contexts, make_problem
from .problems import Problem, System, centred

SKEW = {"matrix": "P + P^T = 1", "skew": "J + J^T = 0"}
"""Data whose tangents must be skew, with the equation that other tangents would violate."""


def sensitivity(solution: Solution) -> Sensitivity:
    r"""Return the derivative of an equilibrium with respect to the data of its game.

    The data are `log_ref` and `beta`, and those of the preference: `matrix` (`MatrixPreference`), `reward`
    (`BradleyTerryPreference`), `embedding` and `skew` (`LowRankPreference`). A `RewardPreference` has none: only the
    order of its rewards matters, so the equilibrium is constant until two rewards change places, and jumps there.

    In a win-rate game the derivative always exists, and in the norm :math:`\sqrt{\sum\pi x^2}` the equilibrium moves at
    most as far as the best response to a fixed opponent (theory 6.4). In log-win-rate and best-of-n games it exists
    unless the Newton system is singular; where there are several equilibria it is the derivative of this one.

    Parameters
    ----------
    solution : Solution
        From `equilibrium`, or from any run that converged. Derivatives are as accurate as the policy.

    Returns
    -------
    Sensitivity
        With methods `jvp` and `vjp`, which share one factorisation of the Newton system.

    Raises
    ------
    ValueError
        If the solution did not converge, if ``beta = 0`` (an equilibrium need be neither unique nor continuous there,
        theory 2.6), or if some response is not played (an equilibrium on the boundary).

    Examples
    --------
    >>> import windgames as wg
    >>> game = wg.WinRateGame(wg.BradleyTerryPreference([0.0, 1.0, 2.0]), ref=[0.5, 0.3, 0.2], beta=0.1)
    >>> moved = wg.sensitivity(wg.equilibrium(game))
    >>> print(moved.jvp(reward=[0.0, 0.0, 1.0]).round(2))  # of log_policy, if the third reward grows
    [-0.7  -1.66  0.29]
    >>> print(moved.vjp([0.0, 0.0, 1.0])["reward"].round(2))  # of the third log-probability
    [-0.05 -0.24  0.29]
    """
    if not isinstance(solution, Solution):
        raise ValueError(
            f"solution must be a Solution, but it is a {type(solution).__name__}: sensitivity(equilibrium(game))."
        )
    local = solution.game.to_numpy()
    where = first_index(beta_of_contexts(local).reshape(local.batch_shape) == 0)
    if where is not None:
        raise ValueError(
            f"At beta = 0{in_context(where)} the equilibrium need be neither unique nor continuous in the game (theory "
            f"2.6), so it has no derivative. Take beta > 0."
        )
    where = first_index(~np.asarray(solution.converged))
    if where is not None:
        raise ValueError(
            f"The solution did not converge{in_context(where)}: residual {float(solution.residual[where]):.2e}. Only "
            f"an equilibrium has a derivative; solve the game to a smaller tol first."
        )
    log_policy = to_numpy(solution.log_policy).astype(float)
    where = first_index(log_policy == -inf)
    if where is not None:
        raise ValueError(
            f"Response {where[-1]}{in_context(where[:-1])} is not played: the equilibrium lies on the boundary (theory "
            f"2.2), where the logarithm of the policy has no derivative. Drop the response, or raise beta."
        )
    beta = beta_of_contexts(local)
    problem = make_problem(local, np.arange(beta.size), beta)
    z = problem.merge(log_policy.reshape(beta.size, -1))
    u = problem.payoff(z, problem.rows)
    return Sensitivity(solution, problem, z, u)


@dataclass(frozen=True, repr=False)
class Sensitivity:
    """The derivative of an equilibrium, made by `sensitivity`.

    It can be pickled; the factorisation is not, and is made again when it is needed.
    """

    solution: Solution
    _problem: Problem
    _z: np.ndarray
    _u: np.ndarray

    @cached_property
    def _system(self) -> System:
        return self._problem.system(self._z, self._u, self._problem.beta, self._problem.rows)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_system"}

    @property
    def data(self) -> tuple[str, ...]:
        """Names of the data that the equilibrium depends on smoothly: the arguments of `jvp` and the keys of `vjp`."""
        return (*self.solution.game.preference.data, "log_ref", "beta")

    def jvp(self, **tangents: Any) -> Array:
        r"""Return the tangent of the equilibrium's log-probabilities, shape ``(..., m)``.

        Parameters
        ----------
        **tangents : array
            By name, for some of the `data`, of a shape that broadcasts to that of the data in every context. The
            tangent of `log_ref` counts up to a constant, since the reference stays normalised. The tangent of a
            constant-sum matrix must be skew.

        Raises
        ------
        ValueError
            If a name is unknown, a shape does not fit, a number is not finite, a tangent that must be skew is not, or
            the Newton system is singular.
        """
        unknown = sorted(set(tangents) - set(self.data))
        if unknown or not tangents:
            raise ValueError(
                f"jvp takes tangents of {', '.join(self.data)}, but got {unknown or 'none'}.{self._why(unknown)}"
            )
        game, problem = self._problem.game, self._problem
        shapes = self._shapes()
        given = {name: self._read(name, x, shapes[name]) for name, x in tangents.items()}
        t = given.pop("log_ref", np.zeros(shapes["log_ref"]))
        price = problem.beta.reshape(game.batch_shape)[..., None]
        if "beta" in given:
            t = t - self._payoff() * given.pop("beta")[..., None] / price**2
        if given:
            with np.errstate(all="ignore"):
                t = t + game.preference.win_rate_jvp(*self._at(), **given) / price
        t = t.reshape(self._z.shape[0], -1)
        mean = problem.sums(problem.share * t)
        moved = t - problem.spread(mean) + problem.spread(self._solve(mean))
        return like(moved.reshape(shapes["log_ref"]), self.solution.game.log_ref)

    def vjp(self, cotangent: Any) -> dict[str, Array]:
        r"""Return the gradient of :math:`\langle\text{cotangent},\log\pi^*\rangle` with respect to each of the `data`.

        Each gradient has the shape of its data, summed over the contexts that share them. For a constant-sum matrix
        and for the skew matrix it is skew, since such data move in skew directions only. The gradient for `log_ref`
        sums to zero.

        Raises
        ------
        ValueError
            If the shape of the cotangent does not fit, it is not finite, or the Newton system is singular.
        """
        problem, game = self._problem, self._problem.game
        shapes = self._shapes()
        g = self._read("cotangent", cotangent, shapes["log_ref"]).reshape(self._z.shape[0], -1)
        total = problem.sums(g)
        back = g + problem.share * problem.spread(self._solve(total, transposed=True) - total)
        back = back.reshape(shapes["log_ref"])
        price = problem.beta.reshape(game.batch_shape)
        with np.errstate(all="ignore"):
            out = game.preference.win_rate_vjp(*self._at(), back / price[..., None])
        for name in SKEW.keys() & out.keys():
            if name == "skew" or isinstance(game, WinRateGame):
                out[name] = (out[name] - out[name].swapaxes(-1, -2)) / 2
        out["log_ref"] = back
        out["beta"] = -np.sum(back * self._payoff(), axis=-1) / price**2
        original = self.solution.game
        return {name: like(_sum_to(x, self._shape_of(name)), original.log_ref) for name, x in out.items()}

    def _solve(self, t: np.ndarray, transposed: bool = False) -> np.ndarray:
        with np.errstate(all="ignore"):
            x = self._system(t, transposed=transposed)
        if not np.all(np.isfinite(x)):
            where = np.unravel_index(int(np.argmin(np.all(np.isfinite(x), axis=-1))), self._problem.game.batch_shape)
            raise ValueError(
                f"The equilibrium{in_context(tuple(map(int, where)))} has no finite derivative: the Newton system is "
                f"singular, as where two equilibria of a log-win-rate game meet (theory 3.8), or the tangent is too "
                f"large for double precision. Change beta."
            )
        return x

    def _payoff(self) -> np.ndarray:
        """Return the payoff of each response less that of the policy."""
        return self._problem.spread(centred(np.exp(self._z), self._u)).reshape(self._shapes()["log_ref"])

    def _at(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the log-policy, and the logarithm of the win rates by which a log payoff divides their change."""
        shape, problem = self._shapes()["log_ref"], self._problem
        unit = np.zeros(shape) if isinstance(problem.game, WinRateGame) else problem.spread(self._u).reshape(shape)
        return problem.expand(self._z).reshape(shape), unit

    def _original(self, name: str) -> Any:
        preference = self.solution.game.preference
        if name in ("log_ref", "beta"):
            return getattr(self.solution.game, name)
        return preference.matrix() if name == "matrix" else getattr(preference, name)

    def _shape_of(self, name: str) -> tuple[int, ...]:
        x = self._original(name)
        return tuple(x.shape) if is_array_api_obj(x) else ()

    def _shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the data with all contexts."""
        batch = self._problem.game.batch_shape
        axes = {"matrix": 2, "embedding": 2, "skew": 2, "beta": 0}
        full = {}
        for name in self.data:
            shape = self._shape_of(name)
            full[name] = (*batch, *shape[len(shape) - axes.get(name, 1) :])
        return full

    def _read(self, name: str, x: Any, shape: tuple[int, ...]) -> np.ndarray:
        given = to_numpy(as_float(x, name)).astype(float)
        try:
            values = np.broadcast_to(given, shape)
        except ValueError:
            raise ValueError(f"{name} must fit the shape {shape}, but its shape is {given.shape}.") from None
        where = first_index(~np.isfinite(given))
        if where is not None:
            raise ValueError(f"{name} must be finite, but entry {where} is {given[where]}.")
        if name == "skew" or (name == "matrix" and isinstance(self._problem.game, WinRateGame)):
            odd = np.abs(values + values.swapaxes(-1, -2))
            if np.max(odd) > 1e-9 * max(1e-300, float(np.max(np.abs(values)))):
                at = tuple(map(int, np.unravel_index(np.argmax(odd), odd.shape)))
                raise ValueError(
                    f"The tangent of {name} must be skew to keep {SKEW[name]}, but entry {at} and its transpose add up "
                    f"to {odd[at]:.3g}. Pass (X - X^T)/2."
                )
        return values

    def _why(self, unknown: list[str]) -> str:
        if "reward" in unknown and isinstance(self.solution.game.preference, RewardPreference):
            return (
                " Only the order of the rewards matters to a RewardPreference: the derivative is zero, and where two "
                "rewards change places the equilibrium jumps. Use a BradleyTerryPreference for a smooth dependence."
            )
        return ""

    def __repr__(self) -> str:
        return f"Sensitivity of the equilibrium of {self.solution.game!r} to {', '.join(self.data)}"


def _sum_to(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the sum over the axes along which data of this shape were broadcast."""
    x = x.sum(axis=tuple(range(x.ndim - len(shape))))
    return x.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] != 1), keepdims=True)
