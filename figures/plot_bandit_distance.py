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
columns = min(3, len(names))
rows_of = -(-len(names) // columns)
fig, axes = plt.subplots(rows_of, columns, figsize=(9, 2.9 * rows_of + 0.6), sharex=True, sharey=True, squeeze=False)
for axis, name in zip(axes.flat, names, strict=False):
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
            label=f"bound of theory 4.2, {words}",
            zorder=3,
            **style.BOUND,
        )
    axis.set(xscale="log", yscale="log", xlabel=r"$\beta$", title=name, xlim=(0.01, 2.4), ylim=(FLOOR, 3))
    axis.tick_params(labelbottom=True)
for axis in axes[:, 0]:
    axis.set_ylabel("total variation\nbetween the two equilibria")
for axis in axes.flat[len(names) :]:
    axis.axis("off")
lines, words = axes[0, 0].get_legend_handles_labels()
if len(names) < axes.size:
    axes.flat[-1].legend(lines, words, loc="center", title="below 1e-16 nothing is drawn")
else:
    fig.legend(lines, words, loc="outside lower center", ncols=4, title="below 1e-16 nothing is drawn")

# %%
style.save(fig, "bandit_distance", style.table_path("bandit_distance"))
