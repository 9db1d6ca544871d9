"""Random games for property-based tests, and a test battery for any update rule.

Needs hypothesis: ``pip install windgames[testing]``. The strategies favour the awkward cases: ties, duplicated
responses, 0/1 tournaments with odd cycles, a single response, reference policies that nearly exclude a response. They
draw short decimals, so that counterexamples shrink to small numbers; one of up to six responses is printed as the call
that makes it.

Examples
--------
>>> from hypothesis import given
>>> from windgames.testing import games
>>> @given(games())
... def test_equilibrium(game):
...     assert windgames.equilibrium(game).converged.all()
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from math import log10
from typing import Any

import numpy as np

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "windgames.testing needs hypothesis: install windgames[testing], in a checkout by pip install '.[testing]'."
    ) from error

from ._array import kl, to_numpy
from ._validation import one_of
from .equilibria import equilibrium
from .games import BestOfNGame, Game, LogWinRateGame, WinRateGame, check_game
from .preferences import BradleyTerryPreference, LowRankPreference, MatrixPreference, Preference, RewardPreference
from .solve import solve
from .updates import Rule, is_rule, plan_of

MATRICES = ("ties", "uniform", "tournament", "cycle", "reward", "bradley-terry", "logistic", "duplicates")
"""Kinds of constant-sum matrices; counterexamples shrink towards the first."""
KINDS = ("win-rate", "log-win-rate", "best-of-n")
"""Kinds of games."""
LARGE = 64
"""Policies of more entries than this are drawn by a seeded generator and do not shrink."""


def random_matrix(kind: str, m: int, rng: np.random.Generator) -> np.ndarray:
    """Return a constant-sum matrix of one of the kinds in `MATRICES`; ValueError for another kind."""
    if kind == "logistic":
        x = rng.normal(size=(m, m)) * rng.choice([0.1, 1.0, 5.0])
        return 1 / (1 + np.exp(-(x - x.T)))
    if kind == "uniform":
        upper = np.triu(rng.uniform(size=(m, m)), 1)
    elif kind == "tournament":
        upper = np.triu(rng.integers(0, 2, (m, m)).astype(float), 1)
    elif kind == "cycle":  # i beats the next (m - 1)/2 in the circle
        ahead = (np.arange(m) - np.arange(m)[:, None]) % m
        upper = np.triu((ahead <= (m - 1) // 2).astype(float), 1)
    elif kind == "bradley-terry":
        return to_numpy(BradleyTerryPreference(rng.normal(size=m), scale=rng.choice([0.05, 1.0])).matrix())
    elif kind == "reward":
        return to_numpy(RewardPreference(rng.integers(0, max(2, m // 2), m)).matrix())
    elif kind == "ties":
        return np.full((m, m), 0.5)
    elif kind == "duplicates":
        few = random_matrix("uniform", max(1, m // 2), rng)
        copy = rng.integers(0, len(few), m)
        return few[np.ix_(copy, copy)]
    else:
        raise ValueError(f"kind must be one of {MATRICES}, but it is {kind!r}.")
    return upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(m)


def random_embedding(m: int, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings, some of them duplicates, and a skew matrix, with scores in [-1/2, 1/2]."""
    a = rng.normal(size=(m, k))[rng.integers(0, m, m) if rng.uniform() < 0.3 else np.arange(m)]
    skew = rng.normal(size=(k, k))
    return a, _scaled_skew(a, (skew - skew.T) / 2, 0.5 * rng.choice([1.0, 0.1]))


def _scaled_skew(embedding: np.ndarray, skew: np.ndarray, size: float) -> np.ndarray:
    """Return the skew matrix scaled so that the largest score is `size`; zero where all scores are rounding."""
    largest = np.max(np.abs(embedding @ skew @ embedding.T))
    return skew * (size / largest if largest > 1e-9 else 0.0)


def random_reference(m: int, rng: np.random.Generator, batch: tuple[int, ...] = ()) -> np.ndarray:
    """Return a reference policy of full support: uniform, Dirichlet, or nearly degenerate."""
    concentration = rng.choice([0.05, 1.0, 1e6])
    ref = rng.dirichlet(np.full(m, concentration), batch or None)
    ref = np.maximum(ref, 1e-30)
    return ref / ref.sum(axis=-1, keepdims=True)


def _thousandths(low: int, high: int, unit: float = 1000) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda k: k / unit)


def _skew(draw: st.DrawFn, m: int, entries: st.SearchStrategy[int]) -> np.ndarray:
    """Draw a skew-symmetric matrix."""
    count = m * (m - 1) // 2
    upper = np.zeros((m, m))
    upper[np.triu_indices(m, 1)] = draw(st.lists(entries, min_size=count, max_size=count))
    return upper - upper.T


def _vector(draw: st.DrawFn, entries: st.SearchStrategy[Any], *shape: int) -> np.ndarray:
    count = int(np.prod(shape))
    return np.reshape(np.asarray(draw(st.lists(entries, min_size=count, max_size=count)), dtype=float), shape)


def _matrix(draw: st.DrawFn, kind: str, m: int) -> np.ndarray:
    if kind in ("ties", "cycle"):
        return random_matrix(kind, m, np.random.default_rng(0))
    if kind == "uniform":
        return (500 + _skew(draw, m, st.integers(-500, 500))) / 1000
    if kind == "tournament":
        return (1 + _skew(draw, m, st.sampled_from([1, -1]))) / 2
    if kind == "logistic":
        return 1 / (1 + np.exp(-_skew(draw, m, st.integers(-150, 150)) / 10))
    if kind == "duplicates":
        few = _matrix(draw, "uniform", max(1, m // 2))
        copy = _vector(draw, st.integers(0, len(few) - 1), m).astype(int)
        return few[np.ix_(copy, copy)]
    reward = draw(rewards(m, m))
    return to_numpy((RewardPreference(reward) if kind == "reward" else BradleyTerryPreference(reward)).matrix())


@st.composite
def matrices(draw: st.DrawFn, max_responses: int = 7, min_responses: int = 1) -> np.ndarray:
    """Constant-sum preference matrices."""
    return _matrix(draw, draw(st.sampled_from(MATRICES)), draw(st.integers(min_responses, max_responses)))


@st.composite
def rewards(draw: st.DrawFn, max_responses: int = 7, min_responses: int = 1) -> np.ndarray:
    """Rewards with many ties or few."""
    m = draw(st.integers(min_responses, max_responses))
    return _vector(draw, draw(st.sampled_from([st.integers(0, max(1, m // 2)), _thousandths(-300, 300, 100)])), m)


@st.composite
def references(draw: st.DrawFn, m: int) -> np.ndarray:
    """Reference policies of full support: uniform, of moderate spread, or nearly excluding some responses."""
    weights = st.sampled_from([st.just(1), st.integers(1, 9), st.integers(0, 30).map(lambda k: 10.0**-k)])
    w = _vector(draw, draw(weights), m)
    return w / w.sum()


@st.composite
def preferences(
    draw: st.DrawFn, max_responses: int = 7, constant_sum: bool | None = None, min_responses: int = 1
) -> Preference:
    """Preferences of every class; `constant_sum` None draws both kinds (weak ties and general matrices included)."""
    kinds = {None: 6, True: 4, False: 6}[constant_sum]
    every = ["matrix", "reward", "bradley-terry", "low-rank", "weak", "general"]
    kind = draw(st.sampled_from(every[4 if constant_sum is False else 0 : kinds]))
    if kind == "matrix":
        return MatrixPreference(draw(matrices(max_responses, min_responses)))
    if kind in ("reward", "weak"):
        ties = "half" if kind == "reward" else "weak"
        return RewardPreference(draw(rewards(max_responses, min_responses)), ties=ties)
    if kind == "bradley-terry":
        scale = draw(st.sampled_from([1.0, 0.05, 10.0]))
        return BradleyTerryPreference(draw(rewards(max_responses, min_responses)), scale)
    m = draw(st.integers(min_responses, max_responses))
    if kind == "general":
        return MatrixPreference(1 - _vector(draw, _thousandths(0, 950), m, m))
    k = draw(st.integers(1, 4))
    embedding, skew = _vector(draw, _thousandths(-30, 30, 10), m, k), _skew(draw, k, st.integers(-9, 9))
    return LowRankPreference(embedding, _scaled_skew(embedding, skew, draw(st.sampled_from([0.5, 0.05]))))


@st.composite
def policies(draw: st.DrawFn, m: int, batch: tuple[int, ...] = ()) -> np.ndarray:
    """Normalised log-probabilities of full support, from uniform to nearly degenerate."""
    scale = draw(st.sampled_from([0.0, 1.0, 10.0]))
    if m * int(np.prod(batch)) > LARGE:
        x = scale * np.random.default_rng(draw(st.integers(0, 2**32 - 1))).normal(size=(*batch, m))
    else:
        x = scale * _vector(draw, _thousandths(-30, 30, 10), *batch, m) if scale else np.zeros((*batch, m))
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def betas(low: float = 1e-3, high: float = 10.0) -> st.SearchStrategy[float]:
    """Regularisation strengths, uniform in the logarithm."""
    return st.floats(log10(low), log10(high)).map(lambda x: float(10**x))


@st.composite
def games(
    draw: st.DrawFn,
    kind: str = "win-rate",
    max_responses: int = 7,
    beta: st.SearchStrategy[float] | None = None,
    min_responses: int = 1,
) -> Game:
    """Games of one kind, one of `KINDS`.

    `beta` is a strategy; None takes `betas()` for win-rate games and `betas(1.01, 10)`, where the equilibrium is
    unique, for the others.
    """
    one_of(kind, "kind", KINDS)
    if beta is None:
        beta = betas() if kind == "win-rate" else betas(1.01, 10)
    if kind == "best-of-n":
        preference: Preference = RewardPreference(draw(rewards(max_responses, min_responses)))
    else:
        preference = draw(preferences(max_responses, True if kind == "win-rate" else None, min_responses))
    ref, value = draw(references(preference.n_responses)), draw(beta)
    if kind == "best-of-n":
        return BestOfNGame(preference, ref, draw(st.sampled_from([2.0, 1.5, 3.0, 8.0])), value)
    return (WinRateGame if kind == "win-rate" else LogWinRateGame)(preference, ref, value)


# -- the battery for rules ---------------------------------------------------------------------------------


def example_games(beta: float | None = None, n: float = 4.0) -> list[Game]:
    """Return small games of all three kinds with ties, a cycle, a tournament and a nearly degenerate reference.

    Parameters
    ----------
    beta : float, optional
        Value for all games; None takes several values, above 1 for log payoffs.
    n : float
        Number of draws of the best-of-n games.
    """
    rng = np.random.default_rng(7)
    out: list[Game] = []
    for kind, m, own in (("logistic", 5, 0.3), ("tournament", 6, 0.1), ("cycle", 3, 1.0), ("duplicates", 6, 0.05)):
        matrix = MatrixPreference(random_matrix(kind, m, rng))
        out.append(WinRateGame(matrix, random_reference(m, rng), own if beta is None else beta))
    reward, ref = [2.0, 1.0, 1.0, 0.0, 3.0], random_reference(5, rng)
    out.append(WinRateGame(RewardPreference(reward), ref, 0.1 if beta is None else beta))
    above_one = 1.5 if beta is None else beta
    out.append(LogWinRateGame(RewardPreference(reward, ties="weak"), ref, above_one))
    out.append(LogWinRateGame(MatrixPreference(rng.uniform(0.1, 1, (4, 4))), random_reference(4, rng), above_one))
    out.append(BestOfNGame(RewardPreference(reward), ref, n, above_one))
    return out


def check_rule(
    rule: Rule, examples: Iterable[Game] | Game | None = None, *, steps: int = 30, rtol: float = 1e-9
) -> list[str]:
    r"""Check every property that a rule declares, on each game that it accepts.

    Each property is checked against the game and never against the rule itself:

    - a declared fixed point ``"equilibrium"`` is fixed to `rtol`;
    - a declared guarantee holds for the quantity it names, at each of the first `steps` steps from the reference;
    - a permutation of the responses permutes the iterates;
    - a batch of two contexts gives what the contexts give alone;
    - other array libraries that are installed (torch, array_api_strict) give the same;
    - inputs stay unmodified.

    Parameters
    ----------
    rule : Rule
    examples : iterable of Game, or a Game, optional
        numpy games without contexts. A rule may refuse some (ValueError), not all. None takes `example_games`, with
        the rule's own `beta` and `n` if it has them.
    steps : int
        Length of the run on which a guarantee is checked.
    rtol : float
        Relative tolerance of all comparisons.

    Returns
    -------
    list of str
        The properties that were checked, one line per game.

    Raises
    ------
    AssertionError
        If a property fails; the message names the property, the game and the numbers.
    ValueError
        If `rule` is no rule, or a game has contexts.

    Examples
    --------
    >>> import windgames as wg
    >>> print(wg.testing.check_rule(wg.sppo(0.1))[0])
    WinRateGame(MatrixPreference(5 responses, constant-sum), beta=0.3): permutation, batch, inputs...
    """
    if not is_rule(rule):
        raise ValueError(f"rule must have a name and a plan(game), as windgames.wind() has, but it is {rule!r}.")
    if examples is None:
        examples = example_games(getattr(rule, "beta", None), getattr(rule, "n", 4.0))
    report, refused = [], "."
    for game in [examples] if isinstance(examples, Game) else examples:
        check_game(game)
        if game.batch_shape != ():
            raise ValueError(f"check_rule takes games without contexts, but {game!r} has {game.batch_shape}.")
        try:
            plan = plan_of(rule, game)
        except ValueError as error:
            refused = f": {error}"
            continue
        checked = []
        before = game.log_ref.copy()
        first = _steps(game, rule, 2)
        _require(np.array_equal(before, game.log_ref), f"{rule.name} modified the reference of {game!r}.")
        star = equilibrium(game) if np.all(to_numpy(game.beta) > 0) else None
        if star is not None and plan.fixed_point == "equilibrium":
            moved = solve(game, rule, tol=0, max_steps=1, start=star.log_policy).log_policy
            distance = float(np.max(kl(star.log_policy, moved)))
            _require(
                distance <= (1e3 * rtol) ** 2, f"{rule.name} moves the equilibrium of {game!r} by KL {distance:.2e}."
            )
            checked.append("fixed point")
        if star is not None and plan.guarantee is not None:
            trace = solve(game, rule, tol=0, max_steps=steps, reference_solution=star).trace
            assert trace is not None
            if trace.bound is not None:
                excess = np.max(getattr(trace, trace.bound_on) - trace.bound * (1 + rtol))
                _require(excess <= 1e-11, f"{rule.name} breaks {plan.guarantee.statement} by {excess:.2e} on {game!r}.")
                checked.append("bound")
        order = np.arange(game.n_responses)[::-1]
        mirrored = _steps(_rebuild(game, lambda x, k, o=order: x[np.ix_(*(o,) * k)]), rule, 2)
        _close(mirrored, first[order], rtol, f"{rule.name} does not commute with a permutation of {game!r}.")
        twice = _steps(_rebuild(game, lambda x, k: np.stack([x, x])), rule, 2)
        _close(
            twice,
            np.stack([first, first]),
            rtol,
            f"{rule.name} differs between a batch and a single context of {game!r}.",
        )
        checked += ["permutation", "batch", "inputs"]
        for name in ("array_api_strict", "torch"):
            try:
                library = import_module(name)
            except ImportError:
                continue
            other = _steps(_rebuild(game, lambda x, k, lib=library: lib.asarray(x.copy())), rule, 2)
            _close(to_numpy(other), first, rtol, f"{rule.name} differs between numpy and {name} on {game!r}.")
            checked.append(name)
        report.append(f"{game!r}: {', '.join(checked)}")
    _require(bool(report), f"{rule.name} refused every game it was given{refused}")
    return report


def _steps(game: Game, rule: Rule, count: int) -> Any:
    return solve(game, rule, tol=0, max_steps=count).log_policy


def _rebuild(game: Game, change: Any) -> Game:
    """Return the game with `change(array, number of response axes)` applied to its data."""
    p = game.preference
    if isinstance(p, RewardPreference):
        preference: Preference = RewardPreference(change(p.reward, 1), ties=p.ties)
    else:
        preference = MatrixPreference(change(to_numpy(p.matrix()), 2))
    return game.replace(preference=preference, log_ref=change(game.log_ref.astype(game.ref.dtype), 1))


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


def _close(a: Any, b: Any, rtol: float, sentence: str) -> None:
    a, b = to_numpy(a), to_numpy(b)
    same = np.allclose(a, b, rtol=rtol, atol=rtol)
    _require(same, f"{sentence} Largest difference {np.nanmax(np.abs(a - b)):.2e}." if not same else sentence)
