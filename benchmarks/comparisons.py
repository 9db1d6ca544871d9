"""Real comparisons as games: who is played, at which beta, how surely; and how much of the comparisons is a cycle.

    python benchmarks/comparisons.py            # a reduced number of draws, into benchmarks/quick
    python benchmarks/comparisons.py --full     # the committed tables: five minutes
    python benchmarks/comparisons.py --smoke    # few draws, for tests

    equilibria  the equilibrium against beta, each item by name, with bands over bootstrap draws of the comparisons
    cyclic      the share of the log-odds that no reward explains, with an interval and what Bradley-Terry would show
    peers       rewards of Bradley-Terry against those of choix and evalica (extra ``peers``), and the seconds of each
    speed       seconds of `describe`, of a fit and of games at ``beta = 0``, in one thread

Sets: chess (three players, a cycle), baseball (American League East, 1987), citations (journals of statistics) and
Burlington (mayoral election, 2009), whose counts are in tests/data with their sources. If the environment variable
WINDGAMES_LLMFAO holds the path of ``llmfao.csv`` of dustalov/evalica: 8,931 verdicts on 59 language models, where 784
of 1,711 pairs were never compared. For these a low-rank model fills in what is missing; the others are taken as they
were counted. Draws take comparisons as independent, although a ballot makes several, and several people judged each
answer.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tyro
from scipy.optimize import brentq
from scipy.stats import chi2, ncx2
from study import QUICK, RESULTS, ROOT, Rows, Scale, Study, announce, draw, run_study, show
from threadpoolctl import threadpool_limits

import windgames as wg

COUNTS = {
    "chess": "chess",
    "baseball 1987": "baseball_1987",
    "citations": "citations",
    "Burlington 2009": "burlington_2009",
}
MODELS = "language models"
VARIABLE = "WINDGAMES_LLMFAO"
PRIOR = 0.5
"""Wins that are added on both sides of each pair, so that no pair that met is certain."""
LEVEL = 0.9
"""Of intervals and bands."""
RANK, SHRINK = 6, 10.0
"""Rank and prior of the model of the language models; a grid of both has its largest held-out likelihood there."""
PRIORS = (1.0, 3.0, 10.0, 30.0)
"""Of the cyclic part whose predictions are told: the one of largest held-out likelihood."""
NAMED = 6
"""How many items of a set the table of equilibria names: those that are played most."""


def load(name: str) -> wg.Comparisons:
    if name == MODELS:
        return wg.Comparisons.from_arena(pd.read_csv(os.environ[VARIABLE]), ("left", "right", "winner"))
    data = json.loads((ROOT / "tests" / "data" / f"{COUNTS[name]}.json").read_text())
    return wg.Comparisons.from_counts(data["wins"], names=data["names"])


def sets(scale: Scale) -> list[dict[str, Any]]:
    """Return the sets that are there; a file counts by its content, wherever it lies."""
    found: list[dict[str, Any]] = [{"set": name} for name in COUNTS]
    if os.environ.get(VARIABLE):
        found.insert(0, {"set": MODELS, "file": hashlib.sha256(Path(os.environ[VARIABLE]).read_bytes()).hexdigest()})
    return found


def interval(values: np.ndarray) -> np.ndarray:
    return np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


# -- equilibria ----------------------------------------------------------------------------------------------


def equilibria_configs(scale: Scale) -> list[dict[str, Any]]:
    grid = [*np.geomspace(1, 1e-3, scale.pick(3, 13, 13)).tolist(), 0.0]
    few, many = scale.pick((2, 10), (20, 200), (100, 1000))
    return [one | {"beta": grid, "draws": few if one["set"] == MODELS else many} for one in sets(scale)]


def equilibria(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Solve the game of the comparisons, and those of all draws as one batch."""
    c = load(config["set"])

    def fitted(draw: wg.Comparisons) -> wg.Preference:
        return draw.low_rank(RANK, SHRINK, rng=0, folds=0)

    sparse = config["set"] == MODELS
    preference = fitted(c) if sparse else c.empirical(PRIOR)
    draws = c.resample(config["draws"], rng, PRIOR, fitted if sparse else None)
    uniform = np.full(len(c), 1 / len(c))
    policy, drawn = [], []
    for beta in config["beta"]:
        policy.append(wg.equilibrium(wg.WinRateGame(preference, uniform, beta)).policy)
        drawn.append(wg.equilibrium(wg.WinRateGame(draws, uniform, beta)).policy)
    most = np.argsort(-np.max(policy, axis=0), kind="stable")[:NAMED]
    rows = []
    for beta, one, all_draws in zip(config["beta"], policy, drawn, strict=True):
        low, high = interval(all_draws)
        rows += [
            {
                "set": config["set"],
                "beta": beta,
                "item": str(c.names[k]),
                "policy": one[k],
                "low": low[k],
                "high": high[k],
                "played_in": np.mean(all_draws[:, k] > 1e-6),
                "draws": config["draws"],
            }
            for k in most
        ]
    return rows


def report_equilibria(table: pd.DataFrame) -> None:
    end = table[(table.beta == 0) & ((table.policy > 0.01) | (table.played_in > 0.25))]
    alone = end[end.policy > 0.99]
    show(
        "Equilibria at beta = 0, by name, with bootstrap intervals",
        end.drop(columns=["beta", "draws"]),
        f"{len(alone)} of {table.set.nunique()} sets have a single winner, {', '.join(alone.item)}; in the draws "
        + ", ".join(f"{row.item} is played in {row.played_in:.0%}" for row in alone.itertuples())
        + ".",
    )


# -- how cyclic ----------------------------------------------------------------------------------------------


def cyclic_configs(scale: Scale) -> list[dict[str, Any]]:
    draws = scale.pick(20, 200, 1000)
    return [
        one | {"draws": draws, "folds": scale.pick(2, 5, 5), "priors": PRIORS[::3] if scale.smoke else PRIORS}
        for one in sets(scale)
    ]


def energies(c: wg.Comparisons) -> tuple[float, float]:
    """Return the sums of squares, over comparisons, of the cyclic part of the log-odds and of their gradient."""
    p = c.empirical(PRIOR)
    i, j, won, lost = c.pairs()
    P = p.matrix()[i, j]
    total = float((won + lost) @ np.log(P / (1 - P)) ** 2)
    share = wg.describe(p).cyclic_share
    return share * total, (1 - share) * total


def bradley_terry_draws(c: wg.Comparisons, draws: int, rng: np.random.Generator) -> Iterator[wg.Comparisons]:
    """Yield comparisons of the same pairs, as often, that a Bradley-Terry model with ties makes."""
    fit = c.bradley_terry("davidson", prior=PRIOR).fit
    i, j, won, lost = c.pairs()
    d, total = fit.reward[i] - fit.reward[j], np.round(won + lost).astype(int)
    odds = np.stack([np.exp(d / 2), np.exp(-d / 2), np.full_like(d, fit.tie_parameter)], axis=1)
    for _ in range(draws):
        win, loss, tie = rng.multinomial(total, odds / odds.sum(axis=1, keepdims=True)).T
        wins, ties = np.zeros((2, len(c), len(c)))
        wins[i, j], wins[j, i], ties[i, j], ties[j, i] = win, loss, tie, tie
        yield wg.Comparisons.from_counts(wins, ties)


def less_noise(seen: float, noise: np.ndarray) -> tuple[float, float, float]:
    r"""Return the cyclic part without noise: an estimate and the ends of an interval.

    Without a cyclic part its sum of squares is about a multiple of a chi-squared variable, whose mean and variance the
    draws give; with one, of a noncentral one. The interval holds the parts for which what was seen is no surprise.
    """
    mean, scale = noise.mean(), noise.var() / (2 * noise.mean())
    x, freedom = seen / scale, mean / scale

    def end(level: float) -> float:
        if chi2.cdf(x, freedom) <= level:
            return 0.0
        top = 1.0
        while ncx2.cdf(x, freedom, top) > level:
            top *= 2
        return scale * brentq(lambda part: ncx2.cdf(x, freedom, part) - level, 1e-9, top)

    return max(seen - mean, 0.0), end((1 + LEVEL) / 2), end((1 - LEVEL) / 2)


def without_noise(
    c: wg.Comparisons, draws: int, rng: np.random.Generator
) -> tuple[tuple[float, float, float], float, np.ndarray]:
    """Return the cyclic share of what comparisons are drawn from, with an interval, that seen, and those of noise."""
    seen, gradient = energies(c)
    noise = np.array([energies(draw) for draw in bradley_terry_draws(c, draws, rng)])
    fit = c.bradley_terry("davidson", prior=PRIOR).fit.expected_scores().matrix()
    i, j, won, lost = c.pairs()
    smoothed = (fit[i, j] * (won + lost) + PRIOR) / (won + lost + 2 * PRIOR)
    # what noise adds to the gradient, it adds to that of the draws
    truth = float((won + lost) @ np.log(smoothed / (1 - smoothed)) ** 2)
    gradient_left = max(gradient - (noise[:, 1].mean() - truth), 0.0)
    part, low, high = (x / (x + gradient_left) if x else 0.0 for x in less_noise(seen, noise[:, 0]))
    return (part, low, high), seen / (seen + gradient), noise[:, 0] / noise.sum(axis=1)


def cyclic(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Estimate the cyclic share, its interval, what noise alone would show, and whether a cycle predicts anything."""
    c = load(config["set"])
    (part, low, high), share, shares = without_noise(c, config["draws"], rng)
    seed = int(rng.integers(2**31))
    fits = [c.low_rank(RANK, prior, seed, "logistic", config["folds"]).fit for prior in config["priors"]]
    gains = max(fits, key=lambda fit: fit.held_out)
    return [
        {
            "set": config["set"],
            "items": len(c),
            "comparisons": int(c.wins.sum() + c.ties.sum() / 2),
            "never_compared": int(c.missing.sum()) // 2,
            "share": share,
            "noise": float(np.median(shares)),
            "noise_low": interval(shares)[0],
            "noise_high": interval(shares)[1],
            "as_large_by_noise": float((1 + np.sum(shares >= share)) / (1 + len(shares))),
            "corrected": part,
            "low": low,
            "high": high,
            "gain": gains.gain,
            "gain_error": gains.gain_error,
            "prior": gains.prior,
            "draws": config["draws"],
        }
    ]


def report_cyclic(table: pd.DataFrame) -> None:
    sure = table[table.as_large_by_noise < 0.05]
    gain = table[table.gain > 2 * table.gain_error]
    show(
        "Share of the log-odds that no reward explains",
        table.drop(columns=["items", "draws", "noise_low", "noise_high", "prior"]),
        f"More cyclic than a Bradley-Terry model's comparisons would look (5%): {', '.join(sure.set) or 'none'}. "
        f"A low-rank model predicts left-out comparisons better by two standard errors: "
        f"{', '.join(gain.set) or 'none'}.",
    )


# -- the same by others --------------------------------------------------------------------------------------


def choix(c: wg.Comparisons) -> np.ndarray:
    """Return the rewards that choix finds; it takes the comparisons one by one, or their counts as a matrix."""
    return importlib.import_module("choix").ilsr_pairwise_dense(c.shares().toarray(), tol=1e-10, max_iter=10_000)


def evalica(c: wg.Comparisons) -> np.ndarray:
    library, shares = importlib.import_module("evalica"), c.shares().tocoo()
    i, j = shares.coords
    names = np.arange(len(c))
    winners = [library.Winner.X] * len(i)
    found = library.bradley_terry(names[i], names[j], winners, weights=shares.data, tolerance=1e-12, limit=100_000)
    return np.log(found.scores.reindex(names).to_numpy())


PEERS: dict[str, Callable[[wg.Comparisons], np.ndarray]] = {"choix": choix, "evalica": evalica}


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def timed(run: Callable[[], Any], times: int = 3) -> tuple[Any, float]:
    """Return a result, and the shortest time of a few."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        out = run()
        took.append(time.perf_counter() - begun)
    return out, min(took)


def peers_configs(scale: Scale) -> list[dict[str, Any]]:
    versions = {name: version(name) for name in PEERS if version(name)}
    return [one | {"peers": versions} for one in sets(scale)]


def peers(config: dict[str, Any], _rng: np.random.Generator) -> Rows:
    """Fit the same comparisons, ties counted half, and tell how far the rewards are from ours and whose fit is better.

    Rewards are of mean zero. `likelihood_less` is by how many nats the log-likelihood of a fit is below ours.
    """
    c = load(config["set"])
    ours, seconds = timed(lambda: c.bradley_terry())
    best = ours.fit.log_likelihood
    rows = [{"fit": f"windgames {wg.__version__}", "furthest": 0.0, "likelihood_less": 0.0, "seconds": seconds}]
    for name, number in config["peers"].items():
        reward, seconds = timed(lambda: PEERS[name](c))  # noqa: B023
        reward = reward - reward.mean()
        rows.append(
            {
                "fit": f"{name} {number}",
                "furthest": float(np.max(np.abs(reward - ours.fit.reward))),
                "likelihood_less": best - c.log_likelihood(wg.BradleyTerryPreference(reward)),
                "seconds": seconds,
            }
        )
    return [{"set": config["set"], "items": len(c), "log_likelihood": best} | row for row in rows]


def report_peers(table: pd.DataFrame) -> None:
    others = table[~table.fit.str.startswith("windgames")]
    missing = ", ".join(name for name in PEERS if not others.fit.str.startswith(name).any())
    show(
        "Bradley-Terry by windgames and by others",
        table,
        f"{len(others)} fits of others are within {others.furthest.max():.1e} of ours in every reward, and none is "
        f"likelier by more than {max(0.0, -others.likelihood_less.min()):.1e} nats."
        if len(others)
        else f"Skipped: {missing} (not installed)",
    )


# -- how fast ------------------------------------------------------------------------------------------------


def cycles(m: int, of: int, rng: np.random.Generator) -> wg.MatrixPreference:
    """Return `of` random responses of which there are `m` copies altogether."""
    x = rng.normal(size=(of, of))
    P, copy = 1 / (1 + np.exp(x.T - x)), rng.integers(0, of, m)
    return wg.MatrixPreference(P[np.ix_(copy, copy)])


def tasks(scale: Scale) -> dict[str, list[int]]:
    return {
        "describe a matrix": scale.pick([50], [1000], [1000, 5000]),
        "describe a Bradley-Terry preference": scale.pick([50], [1000], [1000, 5000]),
        "fit Bradley-Terry, ten battles each": scale.pick([50], [1000], [1000, 10_000]),
        "beta = 0, nine responses many times": scale.pick([50], [300], [1500, 3000]),
        "beta = 0": scale.pick([20], [50, 300], [50, 300, 1000]),
        "beta = 0, a Condorcet winner": scale.pick([20], [50, 300], [50, 300, 1000]),
    }


def speed_configs(scale: Scale) -> list[dict[str, Any]]:
    return [{"task": task, "m": m} for task, sizes in tasks(scale).items() for m in sizes]


def speed(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Time one task, of which data are made before, in one thread."""
    task, m = config["task"], config["m"]
    uniform = np.full(m, 1 / m)
    if task.startswith("describe"):
        fitted = wg.BradleyTerryPreference(rng.normal(size=m))
        p = wg.MatrixPreference(fitted.matrix()) if "matrix" in task else wg.BradleyTerryPreference(fitted.reward)
        run: Callable[[], Any] = lambda: wg.describe(p)  # noqa: E731
    elif task.startswith("fit"):
        i, j = rng.integers(0, m, (2, 10 * m))
        c = wg.Comparisons.from_pairs(i[i != j], j[i != j], names=range(m))
        run = lambda: c.bradley_terry(prior=1.0)  # noqa: E731
    else:
        q = cycles(m, 9 if "nine" in task else m, rng)
        if "Condorcet" in task:
            matrix = np.array(q.matrix())
            matrix[0], matrix[:, 0], matrix[0, 0] = 0.9, 0.1, 0.5
            q = wg.MatrixPreference(matrix)
        run = lambda: wg.equilibrium(wg.WinRateGame(q, uniform, 0.0))  # noqa: E731
    with threadpool_limits(1):
        return [config | {"seconds": timed(run)[1]}]


def report_speed(table: pd.DataFrame) -> None:
    slowest = table.loc[table.seconds.idxmax()]
    show("Seconds in one thread", table, f"The slowest: {slowest.task}, m = {slowest.m}, {slowest.seconds:.2g} s.")


# -- command line --------------------------------------------------------------------------------------------

STUDIES = {
    "equilibria": Study(
        equilibria_configs,
        equilibria,
        report_equilibria,
        question="Which items does the equilibrium play at which beta, and how certain is that?",
        minutes=(0.5, 2),
    ),
    "cyclic": Study(
        cyclic_configs,
        cyclic,
        report_cyclic,
        question="What share of the log-odds does no reward explain, beyond noise?",
        minutes=(0.5, 2),
    ),
    "peers": Study(
        peers_configs,
        peers,
        report_peers,
        question="Do others find the same rewards?",
        minutes=(0.1, 0.1),
        one_job=True,
    ),
    "speed": Study(
        speed_configs,
        speed,
        report_speed,
        question="How long do descriptions, fits and winners take?",
        minutes=(0.1, 0.3),
        one_job=True,
    ),
}


@dataclass
class Config:
    """What to run."""

    study: Literal["all"] | Literal[*STUDIES] = "all"  # type: ignore[valid-type]
    """Study to run."""
    smoke: bool = False
    """Whether to take few draws, for tests."""
    full: bool = False
    """Whether to take the draws of the committed tables."""
    fresh: bool = False
    """Whether to compute cells anew that are saved."""
    jobs: int = 1
    """Number of processes."""
    results: Path | None = None
    """Output folder of tables and pictures; None for benchmarks/quick or, with --full, for benchmarks/results and
    figures."""
    pictures: bool = True
    """Whether to draw the figure at the end."""


def main(config: Config) -> None:
    if config.smoke and config.full:
        raise SystemExit("--smoke and --full exclude each other.")
    results = config.results or (RESULTS if config.full else QUICK)
    results.mkdir(parents=True, exist_ok=True)
    if not os.environ.get(VARIABLE):
        print(f"Skipped: {MODELS} ({VARIABLE} is not set to a file)")
    names = list(STUDIES) if config.study == "all" else [config.study]
    scale = Scale(config.smoke, config.full)
    announce({name: STUDIES[name] for name in names}, scale, results, "comparisons", pictures=False)
    for name in names:
        run_study(
            STUDIES[name],
            f"comparisons_{name}",
            f"comparisons_{name}",
            scale,
            results,
            asdict(config) | {"results": results},
            fresh=config.fresh,
            jobs=config.jobs,
        )
    if config.pictures and config.study == "all":
        draw(results, ["comparisons"])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
