# %% [markdown]
# # Distance to the equilibrium against queries
# The median over seeds and its 95% bootstrap interval, each learner at the best of the steps tried. The first picture
# has the learners that are compared most often, the second, an appendix, all the others. Black: what is proven for WIND
# with every response, at its step and with falling steps; dotted, what no learner undercuts on every game whose judge
# tosses coins.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("bandit_queries")
curve = table[table.part == "curve"]
final = table[(table.part == "reach") & (table.threshold == table.threshold.min())]
best = final.loc[final.groupby(["world", "learner"], sort=False).final_kl.idxmin()]
worlds = list(dict.fromkeys(table.world))
LABEL = r"$KL(\pi^*\,\|\,\pi)$ to the equilibrium"
MAIN = {
    "WIND": "WIND: 8 own draws, judged against each other",
    "WIND, all responses": "WIND: every response, judged against one draw",
    "WIND, decaying": "the same with the falling steps of theory 7.7",
    "REINFORCE, self-play": "REINFORCE on comparisons with itself",
    "SPPO": "SPPO (no pull to the reference)",
    "J-BOND": "J-BOND (no pull to the reference)",
}
VARIANTS = {
    "WIND": "WIND: 8 own draws, judged against each other",
    "WIND, independent": "independent: each against one other draw",
    "WIND, mixture": "mixture: drawn from (π + ρ)/2, reweighted",
    "WIND, unseen = 1/2": "unseen = 1/2: a response not drawn counts as a tie",
    "WIND, reused": "reused: the same answers serve 4 rounds",
}
OTHERS = {
    "extragradient": "extragradient, every response",
    "Nash-MD": "Nash-MD, every response",
    "best-of-n distillation": "best-of-4, likelihood (no pull)",
    "iterative BOND": "iterative BOND (no pull)",
    "REINFORCE": "REINFORCE on the reward",
}


# %%
def lines(axis, world, learners):
    """Draw the learners of a world; return their handles."""
    for name, words in learners.items():
        for row in best[(best.world == world) & (best.learner == name)].itertuples():
            one = curve[(curve.world == world) & (curve.learner == name) & (curve.step == row.step)]
            one = one[one.queries > 0]
            look = style.method(name, markersize=4, markevery=4)
            axis.plot(one.queries, one.kl, label=words, **look)
            axis.fill_between(one.queries, one.kl_low, one.kl_high, color=look["color"], alpha=0.2, linewidth=0)
    axis.set(xscale="log", yscale="log", ylim=(1e-4, 30))


def proven(axis, world):
    """Draw the bounds of theory 7.7 with the error of 7.11, and the lower bound of 7.12 where it applies."""
    for learner, words, look in (
        ("WIND, all responses", "proven for every response (7.7, 7.11)", style.BOUND),
        ("WIND, decaying", "proven for falling steps", style.BOUND | {"linestyle": "-."}),
    ):
        rows = table[
            (table.part == "bound") & (table.world == world) & (table.learner == learner) & (table.queries > 0)
        ]
        if len(rows):  # of the step that is drawn or, where nothing is proven of that one, of the smallest
            drawn = best[(best.world == world) & (best.learner == learner)].step.iloc[0]
            rows = rows[rows.step == (drawn if drawn in set(rows.step) else rows.step.min())]
            axis.plot(rows.queries, rows.kl, color="k", label=words, **look)
    below = table[(table.part == "lower") & (table.world == world)].sort_values("queries")
    if len(below):
        axis.plot(below.queries, below.kl, "k:", marker="", label="no learner does better on all games (7.12)")


def legend(fig, axes, **place):
    found = {}
    for axis in axes:
        handles, words = axis.get_legend_handles_labels()
        found |= dict(zip(words, handles, strict=True))
    return fig.legend(found.values(), found.keys(), **place)


# %%
columns = min(3, len(worlds))
rows = -(-len(worlds) // columns)
fig, axes = plt.subplots(rows, columns, figsize=(9, 2.9 * rows + 0.8), sharex=True, sharey=True, squeeze=False)
for axis, world in zip(axes.flat, worlds, strict=False):
    lines(axis, world, MAIN)
    proven(axis, world)
    axis.set_ylim(1e-5, 30)
    axis.set_title(f"preference: {world}")
spare = axes.flat[len(worlds) :]
for axis in spare:
    axis.axis("off")
for axis in axes[:, 0]:
    axis.set_ylabel(LABEL)
for axis in axes.flat[max(0, len(worlds) - columns) : len(worlds)]:
    axis.set_xlabel("comparisons asked for, per seed")
    axis.tick_params(labelbottom=True)
if len(spare):
    found = {}
    for axis in axes.flat:
        handles, words = axis.get_legend_handles_labels()
        found |= dict(zip(words, handles, strict=True))
    spare[-1].legend(found.values(), found.keys(), loc="center", title="shaded: 95% interval of the median")
else:
    legend(fig, axes.flat, loc="outside lower center", ncols=2)
style.save(fig, "bandit_queries", style.table_path("bandit_queries"))

# %%
fig, axes = plt.subplots(len(worlds), 2, figsize=(9, 2.2 * len(worlds) + 1.2), sharex=True, sharey=True, squeeze=False)
for row, world in zip(axes, worlds, strict=True):
    lines(row[0], world, VARIANTS)
    lines(row[1], world, OTHERS)
    row[0].set_ylabel(f"{world}\n{LABEL}")
for column, words in enumerate(("WIND's variants", "other learners")):
    axes[0, column].set_title(words)
    axes[-1, column].set_xlabel("comparisons asked for, per seed")
    handles, words = axes[0, column].get_legend_handles_labels()
    if handles:  # where there is room
        axes[min(2, len(worlds) - 1), column].legend(handles, words, loc="lower left", fontsize=7.5)
style.save(fig, "bandit_queries_rest", style.table_path("bandit_queries"))
