"""The arithmetic of a comparison: medians, spreads, ratios, fractions of a probed limit."""
import statistics

PROBE_TOLERANCE = 0.05 # a pair of probes that differ by more says that the machine changed meanwhile


def spread(values):
    """Median, least, most, and the distance of these two relative to the median."""
    median = statistics.median(values)
    low, high = min(values), max(values)
    return {"median": median, "min": low, "max": high,
            "spread": (high - low) / median if median else None, "runs": list(values)}


def probes_agree(before, after):
    return abs(before - after) <= PROBE_TOLERANCE * max(before, after)


def marked(probed):
    """A run of Shoal with its pair of probes, and what it says: the share of the limit that was
    reached, and whether the pair is close enough to count."""
    limit = (probed["before"] + probed["after"]) / 2
    return {**probed, "fraction": probed["rate"] / limit,
            "kept": probes_agree(probed["before"], probed["after"])}


def fraction_of(probed):
    """The fractions of all runs whose probes agree."""
    runs = [marked(p) for p in probed]
    kept = [run["fraction"] for run in runs if run["kept"]]
    answer = {"kept": len(kept), "of": len(runs), "runs": runs, "median": None}
    if kept:
        answer.update(median=statistics.median(kept), min=min(kept), max=max(kept))
    return answer


def ratios(ours, theirs):
    """Of the runs of the same round, so that a machine that drifts drifts for both."""
    return spread([a / b for a, b in zip(ours, theirs)])


def summarise(rows, first):
    """rows: {(case, threads): {program: {"tok_s": […], "probed": […]}}} with a value for every round;
    `first`: the program that the others are compared with. A list of plain dictionaries."""
    answer = []
    for (case, threads), programs in rows.items():
        ours = programs[first]
        entry = {"case": case, "threads": threads,
                 "tok_s": {name: spread(runs["tok_s"]) for name, runs in programs.items()},
                 "ratio": {name: ratios(ours["tok_s"], runs["tok_s"])
                           for name, runs in programs.items() if name != first}}
        if ours["probed"]:
            entry["fraction"] = fraction_of(ours["probed"])
        answer.append(entry)
    return answer


# --- the table ---

def speed_cell(s):
    return f"{s['median']:.1f} ({s['min']:.1f} … {s['max']:.1f})"


def ratio_cell(s):
    return f"{s['median']:.2f} ({s['min']:.2f} … {s['max']:.2f})"


def fraction_cell(entry):
    f = entry.get("fraction")
    if f is None:
        return "-"
    share = "no agreeing probes" if f["median"] is None else f"{100 * f['median']:.0f} %"
    return f"{share} ({f['kept']} of {f['of']} runs)"


def table(entries, first):
    """Markdown; a column of speeds for every program, then the ratios, then the fraction."""
    others = [name for name in entries[0]["tok_s"] if name != first]
    head = ["case", "threads", f"{first}, tok/s", *(f"{name}, tok/s" for name in others),
            *(f"{first} / {name}" for name in others), f"{first}, of the limit"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for e in entries:
        cells = [e["case"], str(e["threads"]), speed_cell(e["tok_s"][first]),
                 *(speed_cell(e["tok_s"][name]) for name in others),
                 *(ratio_cell(e["ratio"][name]) for name in others), fraction_cell(e)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
