# %% [markdown]
# # The two games at small beta
# Total variation between the log-win-rate equilibrium (weak ties) and the win-rate equilibrium (half ties),
# the largest and the median over contexts, with the bound of the largest and of the median dashed.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("bandit_distance")
names = list(table.environment.unique())
FLOOR = 1e-16

# %%
fig, axes = plt.subplots(1, len(names), figsize=(2.35 * len(names) + 0.6, 3.1), sharey=True, squeeze=False)
for axis, name in zip(axes[0], names, strict=True):
    rows = table[table.environment == name].sort_values("beta")
    for column, colour, words in (
        ("", style.BLUE, "worst context"),
        ("_median", style.ORANGE, "median context"),
    ):
        seen = rows[rows[f"distance{column}"] > FLOOR]
        axis.plot(seen.beta, seen[f"distance{column}"], color=colour, alpha=0.55, marker=".", label=words)
        bound = rows[rows[f"bound{column}"] > FLOOR]
        axis.plot(
            bound.beta,
            bound[f"bound{column}"],
            color="k" if not column else "0.45",
            label=f"bound, {words}",
            zorder=3,
            **style.BOUND,
        )
    axis.set(xscale="log", yscale="log", xlabel=r"$\beta$", title=name, xlim=(0.01, 2.4), ylim=(FLOOR, 3))
axes[0, 0].set_ylabel("total variation between the equilibria")
axes[0, -1].legend(loc="lower right")

# %%
style.save(fig, "bandit_distance", style.table_path("bandit_distance"))
