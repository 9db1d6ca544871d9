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
    "SPPO": (wg.sppo(0.4), "SPPO: circles"),
    "Nash-MD": (wg.nash_md(0.4), "Nash-MD: stops near it"),
    "WIND": (wg.wind(), "WIND: linear"),
    "extragradient": (wg.extragradient(), "extragradient: linear"),
}

traces = {
    name: wg.solve(game, rule, tol=1e-7, max_steps=STEPS, reference_solution=star, record_policies=True).trace
    for name, (rule, _) in RULES.items()
}

# %%
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])

fig, (simplex, rates) = plt.subplots(1, 2, figsize=(8.0, 3.7), width_ratios=(1, 1.2))
simplex.set_aspect("equal")
simplex.axis("off")
simplex.plot(*CORNERS[[0, 1, 2, 0]].T, color="0.6", linewidth=1.0)
for corner, text, where in zip(CORNERS, "abc", ((-10, -4), (10, -4), (0, 8)), strict=True):
    simplex.annotate(f"${text}$", corner, where, textcoords="offset points", ha="center", fontsize=12)
for name, trace in traces.items():
    width = 0.7 if name == "SPPO" else 1.5
    simplex.plot(*(np.exp(trace.log_policies) @ CORNERS).T, color=style.METHODS[name][0], linewidth=width)
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
simplex.set_title("$a$ beats $b$ beats $c$ beats $a$", pad=14)

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
rates.legend(loc="lower right", bbox_to_anchor=(1.0, 0.33), fontsize=8.5)
style.save(fig, "overview")
