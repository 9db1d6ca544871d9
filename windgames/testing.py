"""Random games for property-based tests, and a battery for anybody's own rule.

Needs hypothesis: ``pip install windgames[testing]``. The strategies lean on the awkward cases: ties, duplicated
responses, 0/1 tournaments with odd cycles, one response, reference policies that all but exclude a response.

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
from typing import Any

import numpy as np

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("windgames.testing needs hypothesis: install windgames[testing].") from error

from ._array import kl, to_numpy
from .equilibria import equilibrium
from .games import BestOfNGame, Game, LogWinRateGame, WinRateGame, check_game
from .preferences import BradleyTerryPreference, LowRankPreference, MatrixPreference, Preference, RewardPreference
from .solve import solve
from .updates import Rule

MATRICES = ("logistic", "uniform", "tournament", "cycle", "bradley-terry", "reward", "ties", "duplicates")

_seeds = st.integers(0, 2**32 - 1)


def random_matrix(kind: str, m: int, rng: np.random.Generator) -> np.ndarray:
    """Return a constant-sum matrix of one of the kinds in `MATRICES`."""
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
    skew = (skew - skew.T) / 2
    largest = np.max(np.abs(a @ skew @ a.T))
    # where all scores are rounding, none is made of them
    return a, skew * (rng.choice([1.0, 0.1]) * 0.5 / largest if largest > 1e-9 else 0.0)


def random_reference(m: int, rng: np.random.Generator, batch: tuple[int, ...] = ()) -> np.ndarray:
    """Return a reference policy of full support: uniform, Dirichlet, or all but degenerate."""
    concentration = rng.choice([0.05, 1.0, 1e6])
    ref = rng.dirichlet(np.full(m, concentration), batch or None)
    ref = np.maximum(ref, 1e-30)
    return ref / ref.sum(axis=-1, keepdims=True)


@st.composite
def matrices(draw: st.DrawFn, max_responses: int = 7, min_responses: int = 1) -> np.ndarray:
    """Constant-sum preference matrices."""
    kind = draw(st.sampled_from(MATRICES))
    m = draw(st.integers(min_responses, max_responses))
    return random_matrix(kind, m, np.random.default_rng(draw(_seeds)))


@st.composite
def rewards(draw: st.DrawFn, max_responses: int = 7, min_responses: int = 1) -> np.ndarray:
    """Rewards with many ties or none."""
    m = draw(st.integers(min_responses, max_responses))
    rng = np.random.default_rng(draw(_seeds))
    if draw(st.booleans()):
        return rng.normal(size=m)
    return rng.integers(0, draw(st.integers(1, max(1, m))), m).astype(float)


@st.composite
def preferences(
    draw: st.DrawFn, max_responses: int = 7, constant_sum: bool | None = None, min_responses: int = 1
) -> Preference:
    """Preferences of every class; `constant_sum` None leaves it open (then also weak ties and general matrices)."""
    kinds = ["matrix", "reward", "bradley-terry", "low-rank"]
    if constant_sum is not True:
        kinds += ["weak", "general"]
    if constant_sum is False:
        kinds = ["weak", "general"]
    kind = draw(st.sampled_from(kinds))
    if kind == "matrix":
        return MatrixPreference(draw(matrices(max_responses, min_responses)))
    if kind in ("reward", "weak"):
        ties = "half" if kind == "reward" else "weak"
        return RewardPreference(draw(rewards(max_responses, min_responses)), ties=ties)
    if kind == "bradley-terry":
        scale = draw(st.sampled_from([0.05, 1.0, 10.0]))
        return BradleyTerryPreference(draw(rewards(max_responses, min_responses)), scale)
    m = draw(st.integers(min_responses, max_responses))
    rng = np.random.default_rng(draw(_seeds))
    if kind == "low-rank":
        return LowRankPreference(*random_embedding(m, draw(st.integers(1, 4)), rng))
    return MatrixPreference(rng.uniform(0.05, 1, (m, m)))


@st.composite
def policies(draw: st.DrawFn, m: int, batch: tuple[int, ...] = ()) -> np.ndarray:
    """Normalised log-probabilities of full support, from flat to all but degenerate."""
    rng = np.random.default_rng(draw(_seeds))
    x = rng.normal(size=(*batch, m)) * draw(st.sampled_from([0.0, 1.0, 10.0]))
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def betas(low: float = 1e-3, high: float = 10.0) -> st.SearchStrategy[float]:
    """Regularisation strengths, uniform in the logarithm."""
    return st.floats(np.log10(low), np.log10(high)).map(lambda x: float(10**x))


@st.composite
def games(
    draw: st.DrawFn,
    kind: str = "win-rate",
    max_responses: int = 7,
    beta: st.SearchStrategy[float] | None = None,
    min_responses: int = 1,
) -> Game:
    """Games of one kind: ``"win-rate"``, ``"log"`` or ``"best-of-n"``; log games default to ``beta > 1``."""
    if beta is None:
        beta = betas() if kind == "win-rate" else betas(1.01, 10)
    if kind == "best-of-n":
        preference: Preference = RewardPreference(draw(rewards(max_responses, min_responses)))
    else:
        open_or_sum = True if kind == "win-rate" else None
        preference = draw(preferences(max_responses, open_or_sum, min_responses))
    ref = random_reference(preference.n_responses, np.random.default_rng(draw(_seeds)))
    value = draw(beta)
    if kind == "win-rate":
        return WinRateGame(preference, ref, value)
    if kind == "log":
        return LogWinRateGame(preference, ref, value)
    if kind == "best-of-n":
        return BestOfNGame(preference, ref, draw(st.sampled_from([1.5, 2.0, 3.0, 8.0])), value)
    raise ValueError(f"kind must be 'win-rate', 'log' or 'best-of-n', but it is {kind!r}.")


# -- the battery for rules ---------------------------------------------------------------------------------


def check_rule(rule: Rule, examples: Iterable[Game], *, steps: int = 30, rtol: float = 1e-9) -> list[str]:
    r"""Put a rule through every property that it declares, on each game that it accepts.

    Checked, each against the game and never against the rule itself:

    - a declared fixed point ``"equilibrium"`` is fixed to `rtol`;
    - a declared guarantee holds for the quantity it names, at each of the first `steps` steps from the reference;
    - a permutation of the responses permutes the iterates;
    - a batch of two contexts gives what the contexts give alone;
    - other array libraries that are installed (torch, array_api_strict) give the same;
    - inputs stay unmodified.

    Parameters
    ----------
    rule : Rule
    examples : iterable of Game
        numpy games without contexts. A rule may refuse some (ValueError), not all.
    steps : int
    rtol : float

    Returns
    -------
    list of str
        What was checked, one line a game.

    Raises
    ------
    AssertionError
        With a sentence that names the property, the game and the numbers.
    """
    report, refused = [], "."
    for game in [examples] if isinstance(examples, Game) else examples:
        check_game(game)
        if game.batch_shape != ():
            raise ValueError(f"check_rule takes games without contexts, but {game!r} has {game.batch_shape}.")
        try:
            plan = rule.plan(game)
        except ValueError as error:
            refused = f": {error}"
            continue
        checked = []
        before = game.log_ref.copy()
        first = _steps(game, rule, 2)
        _require(np.array_equal(before, game.log_ref), f"{rule.name} modified the reference of {game!r}.")
        found = equilibrium(game) if np.all(to_numpy(game.beta) > 0) else None
        if found is not None and plan.fixed_point == "equilibrium":
            moved = solve(game, rule, tol=0, max_steps=1, start=found.log_policy).log_policy
            distance = float(np.max(kl(found.log_policy, moved)))
            _require(
                distance <= (1e3 * rtol) ** 2, f"{rule.name} moves the equilibrium of {game!r} by KL {distance:.2e}."
            )
            checked.append("fixed point")
        if found is not None and plan.guarantee is not None:
            trace = solve(game, rule, tol=0, max_steps=steps, reference_solution=found).trace
            assert trace is not None
            if trace.bound is not None:
                excess = np.max(getattr(trace, trace.bound_on) - trace.bound * (1 + rtol))
                _require(excess <= 1e-11, f"{rule.name} breaks {plan.guarantee.statement} by {excess:.2e} on {game!r}.")
                checked.append("bound")
        order = np.arange(game.n_responses)[::-1]
        mirrored = _steps(_rebuild(game, lambda x, k, o=order: x[np.ix_(*(o,) * k)]), rule, 2)
        _close(mirrored, first[order], rtol, f"{rule.name} does not commute with a permutation of {game!r}.")
        twice = _steps(_rebuild(game, lambda x, k: np.stack([x, x])), rule, 2)
        _close(twice, np.stack([first, first]), rtol, f"{rule.name} treats a batch of {game!r} otherwise than a loop.")
        checked += ["permutation", "batch", "inputs"]
        for name in ("array_api_strict", "torch"):
            try:
                library = __import__(name)
            except ImportError:
                continue
            other = _steps(_rebuild(game, lambda x, k, lib=library: lib.asarray(x.copy())), rule, 2)
            _close(to_numpy(other), first, rtol, f"{rule.name} gives something else in {name} on {game!r}.")
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
    ref = change(game.ref, 1)
    return game.replace(preference=preference, ref=ref)


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


def _close(a: Any, b: Any, rtol: float, sentence: str) -> None:
    a, b = to_numpy(a), to_numpy(b)
    same = np.allclose(a, b, rtol=rtol, atol=rtol)
    _require(same, f"{sentence} Largest difference {np.nanmax(np.abs(a - b)):.2e}." if not same else sentence)
