"""`run(learner, game, oracle)`: train a learner and evaluate it along the way."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf

import numpy as np

from .._array import kl
from .._display import text_table
from ..equilibria import equilibrium
from ..games import Game
from ..oracles import BudgetExhausted, Oracle
from ..preferences import RewardPreference
from ..solution import Solution
from .learners import Learner
from .policies import Policy, Tabular


@dataclass(frozen=True, repr=False)
class Run:
    """The record of a learner's training, as `run` returns it."""

    learner: Learner
    game: Game
    steps: np.ndarray
    """Number of rounds before each record, shape ``(records,)``."""
    queries: np.ndarray
    """Queries per replicate, shape ``(records,)``."""
    draws: np.ndarray
    """Sampled responses per replicate, shape ``(records,)``."""
    seconds: np.ndarray
    """Seconds spent on learning, without evaluation, for all replicates together, shape ``(records,)``."""
    trace: dict[str, np.ndarray]
    """Recorded quantities by name, each of shape ``(records, ..., contexts)``."""
    theta: np.ndarray
    """Final parameters."""
    log_policy: np.ndarray
    """Final policy, shape ``(..., contexts, m)``."""
    status: str
    """A sentence that says how the run ended."""

    def mean(self, name: str) -> np.ndarray:
        """Return a quantity averaged over contexts, shape ``(records, replicates...)``."""
        return np.mean(self.trace[name], axis=-1)

    def __repr__(self) -> str:
        rows = [
            ("status", self.status),
            ("queries", f"{self.queries[-1]:,.0f}, responses sampled {self.draws[-1]:,.0f} (per replicate)"),
            ("seconds", f"{self.seconds[-1]:.2f}"),
            *((name, f"{np.mean(x[0]):.4g} -> {np.mean(x[-1]):.4g}") for name, x in self.trace.items()),
        ]
        return text_table(f"Run of {self.learner.name} on {self.game!r}", rows)


def run(
    learner: Learner,
    game: Game,
    oracle: Oracle,
    rng: np.random.Generator,
    *,
    rounds: float = inf,
    queries: float = inf,
    seconds: float = inf,
    evaluation_game: Game | None = None,
    solution: Solution | np.ndarray | None = None,
    policy: Policy | None = None,
    replicates: int | None = None,
    prompts: int | None = None,
    records: int = 40,
) -> Run:
    r"""Train a learner, and evaluate it along the way.

    Parameters
    ----------
    learner : Learner
    game : Game
        The game that the learner plans for: its `beta`, its reference and, for default step sizes, its constants.
    oracle : Oracle
        Answers the comparisons. Its preference may differ from that of `evaluation_game`.
    rng : numpy.random.Generator
    rounds, queries : int
        Stop after this many rounds, or as soon as this many queries per replicate are used.
    seconds : float
        Stop as soon as learning, without evaluation, has taken this long.
    evaluation_game : Game, optional
        The game whose certificates, win rates and divergences are recorded; `game` if None.
    solution : Solution or array, optional
        The equilibrium of `evaluation_game`; computed if None.
    policy : Tabular or LogLinear, optional
        The policy to train; a table that starts at the game's reference if None.
    replicates : int, optional
        Independent repetitions, run together on a leading axis.
    prompts : int, optional
        Number of contexts sampled in each round, the same in all replicates; all contexts if None.
    records : int
        Approximate number of evaluations, equally spaced in the logarithm of the progress.

    Returns
    -------
    Run
        With ``kl_from_solution``, ``kl_to_solution``, ``gap``, ``kl_certificate``, ``win_rate`` (against the
        reference), ``kl_ref``, ``entropy`` and, for rewards, ``top_mass``.

    Raises
    ------
    ValueError
        If nothing bounds the run (rounds, queries, seconds or the budget of the oracle), or if sizes do not fit.

    Examples
    --------
    >>> import numpy as np, windgames as wg
    >>> from windgames.bandits import Oracle, Regression, run
    >>> preference = wg.RewardPreference([[0.0, 1.0, 2.0, 3.0]])
    >>> game = wg.WinRateGame(preference, [[0.4, 0.3, 0.2, 0.1]], beta=0.2)
    >>> learned = run(Regression(wg.wind(0.2)), game, Oracle(preference), np.random.default_rng(0), rounds=200)
    >>> bool(learned.mean("kl_from_solution")[-1] < 0.1 * learned.mean("kl_from_solution")[0])
    True
    """
    if not (hasattr(learner, "start") and hasattr(learner, "step")):
        raise ValueError(f"learner must be one such as bandits.Regression(rule), but it is {learner!r}.")
    if not isinstance(oracle, Oracle):
        raise ValueError(f"oracle must be one such as bandits.Oracle(game.preference), but it is {oracle!r}.")
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng must be a generator, such as np.random.default_rng(0), but it is {rng!r}.")
    if min(rounds, queries, seconds, oracle.budget) == inf:
        raise ValueError("Nothing ends this run: pass rounds, queries, seconds, or an oracle with a budget.")
    evaluation_game = game if evaluation_game is None else evaluation_game
    if len(game.batch_shape) != 1 or evaluation_game.batch_shape != game.batch_shape:
        raise ValueError(
            f"A bandit has one axis of contexts, but the game has {game.batch_shape} and evaluation_game "
            f"{evaluation_game.batch_shape}. Give a single context an axis of length 1."
        )
    (contexts,) = game.batch_shape
    if oracle.preference.n_responses != game.n_responses or oracle.preference.batch_shape not in ((), (contexts,)):
        raise ValueError(f"The oracle answers about {oracle.preference!r}, but the game is {game!r}.")
    if prompts is not None and not 1 <= prompts <= contexts:
        raise ValueError(f"prompts must lie between 1 and {contexts}, but it is {prompts}.")
    if policy is None:
        policy = Tabular(np.broadcast_to(game.log_ref, (contexts, game.n_responses)))
    if not np.allclose(np.exp(policy.log_ref), np.exp(game.log_ref), atol=1e-6):
        raise ValueError("The policy's reference is not the game's: build it from game.log_ref.")
    if solution is None:
        solution = equilibrium(evaluation_game)
    star = solution.log_policy if isinstance(solution, Solution) else np.asarray(solution)
    batch = () if replicates is None else (replicates,)
    evaluate = _Evaluation(evaluation_game, star)
    state = learner.start(policy, game, batch)
    size, answered = max(1, int(np.prod(batch))), oracle.queries
    records_at: list[tuple[float, ...]] = [(0, 0, 0, 0.0)]
    evaluations = [evaluate(policy.log_policy(state["current"]))]
    step, spent, next_record, used = 0, 0.0, 0.0, 0.0
    status = "Finished."
    while step < rounds and used < queries and spent < seconds:
        clock = time.perf_counter()
        at = slice(None) if prompts is None else np.sort(rng.choice(contexts, prompts, replace=False))
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # checked below
                after = learner.step(state, policy, game, oracle, at, rng)
        except BudgetExhausted as stop:
            status = f"Stopped after {step} rounds: {stop}"
            break
        if not np.all(np.isfinite(after["current"])):
            status = f"Stopped after {step} rounds: the next step's parameters are not finite. Take smaller steps."
            break
        state = after
        spent += time.perf_counter() - clock
        step += 1
        used = (oracle.queries - answered) / size
        done = max(step / rounds, used / queries, spent / seconds)
        if done == 0:  # only the oracle's budget bounds the run
            done = oracle.queries / oracle.budget
        if done >= next_record or done >= 1:
            next_record = done * 1000 ** (1 / records)
            records_at.append((step, used, state["draws"] / size, spent))
            evaluations.append(evaluate(policy.log_policy(state["current"])))
    if records_at[-1][0] != step:
        records_at.append((step, used, state["draws"] / size, spent))
        evaluations.append(evaluate(policy.log_policy(state["current"])))
    steps, asked, drawn, clocks = (np.asarray(x, dtype=float) for x in zip(*records_at, strict=True))
    return Run(
        learner=learner,
        game=game,
        steps=steps.astype(int),
        queries=asked,
        draws=drawn,
        seconds=clocks,
        trace={name: np.stack([record[name] for record in evaluations]) for name in evaluations[0]},
        theta=state["current"],
        log_policy=policy.log_policy(state["current"]),
        status=status,
    )


class _Evaluation:
    """Measures policies by a game whose equilibrium is known."""

    def __init__(self, game: Game, star: np.ndarray) -> None:
        self.game, self.star = game, star
        shape = (*game.batch_shape, game.n_responses)
        self.log_ref = np.broadcast_to(game.log_ref, shape)
        self.against_ref = game.preference.win_rate(self.log_ref)
        p = game.preference
        self.top = np.broadcast_to(p.top, shape) if isinstance(p, RewardPreference) else None

    def __call__(self, log_policy: np.ndarray) -> dict[str, np.ndarray]:
        p = np.exp(log_policy)
        out = {
            "kl_from_solution": kl(np.broadcast_to(self.star, log_policy.shape), log_policy),
            "kl_to_solution": kl(log_policy, self.star),
            **self.game.measure(log_policy),
            "win_rate": np.sum(p * self.against_ref, axis=-1),
            "kl_ref": kl(log_policy, self.log_ref),
            "entropy": -np.sum(p * np.where(p > 0, log_policy, 0.0), axis=-1),
        }
        if self.top is not None:
            out["top_mass"] = np.sum(p * self.top, axis=-1)
        return out
