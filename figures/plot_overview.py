"""The picture of the README: rules on a game of three responses that beat each other in a circle.

It has no table: it runs the rules, which takes a second.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

import windgames as wg

preference = wg.MatrixPreference([[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]])
game = wg.WinRateGame(preference, ref=[0.6, 0.3, 0.1], beta=0.1)
star = wg.equilibrium(game)

STEPS = 200
RULES = {
    "SPPO": (wg.sppo(0.4), "SPPO: circles, no limit"),
    "Nash-MD": (wg.nash_md(0.4), "Nash-MD: stops at a distance"),
    "WIND": (wg.wind(), "WIND: linear, at the last iterate"),
    "extragradient": (wg.extragradient(), "extragradient: linear, faster"),
}

paths, traces = {}, {}
for name, (rule, _) in RULES.items():
    paths[name] = [game.ref]
    run = wg.solve(
        game,
        rule,
        tol=1e-7,
        max_steps=STEPS,
        reference_solution=star,
        callback=lambda step, log_policy, path=paths[name]: path.append(np.exp(log_policy)),
    )
    traces[name] = run.trace

# %%
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])

fig, (simplex, rates) = plt.subplots(1, 2, figsize=(9.0, 3.9), width_ratios=(1, 1.25))
simplex.set_aspect("equal")
simplex.axis("off")
simplex.plot(*CORNERS[[0, 1, 2, 0]].T, color="0.6", linewidth=1.0)
for corner, text, where in zip(CORNERS, "abc", ((-10, -4), (10, -4), (0, 8)), strict=True):
    simplex.annotate(f"${text}$", corner, where, textcoords="offset points", ha="center", fontsize=12)
for name, path in paths.items():
    width = 0.7 if name == "SPPO" else 1.5
    simplex.plot(*(np.array(path) @ CORNERS).T, color=style.METHODS[name][0], linewidth=width)
simplex.plot(*(game.ref @ CORNERS), "ko", markersize=5)
simplex.annotate("reference", game.ref @ CORNERS, (-6, -13), textcoords="offset points", fontsize=9)
simplex.plot(*(star.policy @ CORNERS), "k*", markersize=11, zorder=5)
simplex.annotate(
    "equilibrium",
    star.policy @ CORNERS,
    (86, 62),
    textcoords="offset points",
    fontsize=9,
    arrowprops={"arrowstyle": "-", "color": "0.4"},
)
simplex.set_title("Policies on three responses: $a$ beats $b$ beats $c$ beats $a$")

for name, (_, text) in RULES.items():
    trace, colour = traces[name], style.METHODS[name][0]
    rates.plot(trace.steps, trace.kl_from_solution, color=colour, label=text)
    if name in ("WIND", "extragradient"):
        rates.plot(trace.steps, trace.bound, color=colour, **style.BOUND)
rates.plot([], [], color="0.3", label="proven bound", **style.BOUND)
rates.set(
    yscale="log",
    xlim=(0, STEPS),
    ylim=(1e-14, 3),
    xlabel="step $t$",
    ylabel=r"distance to the equilibrium, $KL(\pi^*\|\pi_t)$",
    title=rf"How fast they get there ($\beta={game.beta:g}$)",
)
rates.legend(loc="lower right", bbox_to_anchor=(1.0, 0.33))
style.save(fig, "overview")
