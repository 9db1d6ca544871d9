# %% [markdown]
# # Trained transformers against their equilibrium
# Above: how much of the initial KL(π*‖π) is left, against generated tokens. Below: the gap, against seconds. Mean over
# seeds, with the range of the seeds shaded; three judges.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("lm_methods")
judges = list(table.judge.unique())

# %%
fig, axes = plt.subplots(2, len(judges), figsize=(9, 6.6), sharey="row", squeeze=False)
for column, judge in zip(axes.T, judges, strict=True):
    for axis, x, y in zip(column, ("tokens", "seconds"), ("fraction", "gap"), strict=True):
        for name, rows in table[(table.judge == judge) & (table["round"] > 0)].groupby("method", sort=False):
            mean = rows.groupby("round")[[x, y]].mean()
            spread = rows.groupby("round")[y].agg(["min", "max"])
            line = style.method(name, markevery=(3, 6), label=name)
            axis.plot(mean[x], mean[y], **line)
            axis.fill_between(mean[x], spread["min"], spread["max"], color=line["color"], alpha=0.15, linewidth=0)
        axis.set(xscale="log", yscale="log", xlabel={"tokens": "generated tokens", "seconds": "seconds"}[x])
    column[0].set(title=f"judge: {judge}", ylim=(0.015, 80))
    for level, words in ((1.0, "the start"), (0.05, "5% of it")):
        column[0].axhline(level, color="0.35", linestyle=":", linewidth=1.2)
        if judge == judges[-1]:  # beside the last panel
            style.note(column[0], 1.02, level, words, va="center", transform=column[0].get_yaxis_transform())
axes[0, 0].set_ylabel(r"$KL(\pi^*\,\|\,\pi)$ left, of the initial one")
axes[1, 0].set_ylabel("gap: what a player could gain")
handles, labels = axes[0, 0].get_legend_handles_labels()
fig.legend(
    handles,
    labels,
    loc="outside lower center",
    ncols=min(4, len(labels)),
    title="mean over seeds, shaded: range of the seeds",
)
assert np.isfinite(table.fraction).all()

# %%
style.save(fig, "lm", style.table_path("lm_methods"))
