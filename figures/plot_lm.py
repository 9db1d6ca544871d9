# %% [markdown]
# # Trained transformers against their equilibrium
# Above: how much of the initial KL(π*‖π) is left, against generated tokens (dotted: 5%). Below: the gap, against
# seconds. Mean over seeds, with the range of the seeds shaded; three judges.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("lm_methods")
judges = list(table.judge.unique())

# %%
fig, axes = plt.subplots(2, len(judges), figsize=(2.9 * len(judges) + 0.4, 5.4), sharey="row", squeeze=False)
for column, judge in zip(axes.T, judges, strict=True):
    for axis, x, y in zip(column, ("tokens", "seconds"), ("fraction", "gap"), strict=True):
        for name, rows in table[(table.judge == judge) & (table["round"] > 0)].groupby("method", sort=False):
            mean = rows.groupby("round")[[x, y]].mean()
            spread = rows.groupby("round")[y].agg(["min", "max"])
            line = style.method(name, markevery=(3, 6), label=name)
            axis.plot(mean[x], mean[y], **line)
            axis.fill_between(mean[x], spread["min"], spread["max"], color=line["color"], alpha=0.15, linewidth=0)
        axis.set(xscale="log", yscale="log", xlabel={"tokens": "generated tokens", "seconds": "seconds"}[x])
    column[0].set(title=judge, ylim=(0.015, 80))
    column[0].axhline(0.05, color="0.5", linestyle=":", linewidth=1)
axes[0, 0].set_ylabel(r"$KL(\pi^*\|\pi)$, fraction of the initial one")
axes[1, 0].set_ylabel("gap")
handles, labels = axes[0, 0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
assert np.isfinite(table.fraction).all()

# %%
style.save(fig, "lm", style.table_path("lm_methods"))
