# SPDX-License-Identifier: Apache-2.0
"""What is made of the measurements: ratios of pairs with their intervals, and the page. Nothing here runs a program."""
import json
import random
import statistics

RESAMPLES = 2000


def median(values):
    return statistics.median(values)


def paired_ratio(pairs, seed=1):
    """(median, low, high) of a / b over the pairs: a percentile bootstrap of whole pairs, 95 %. None without a pair."""
    ratios = [a / b for a, b in pairs]
    if not ratios:
        return None
    rng = random.Random(seed)
    medians = sorted(median(rng.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return median(ratios), medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)]


def llama_bench_tps(text, prompt, gen, depth):
    """Tokens per second of one test in what `llama-bench -o json` printed: the median of its repetitions."""
    for test in json.loads(text):
        if (test["n_prompt"], test["n_gen"], test["n_depth"]) == (prompt, gen, depth):
            return median(test["samples_ts"])
    raise ValueError(f"llama-bench printed no test of {prompt} + {gen} tokens at depth {depth}")


def batched_bench_tps(text, batch):
    """{"prefill", "decode"} tokens per second of a batch in what `llama-batched-bench --output-format jsonl` printed."""
    for line in text.splitlines():
        if line.startswith("{"):
            test = json.loads(line)
            if test["pl"] == batch:
                return {"prefill": test["speed_pp"], "decode": test["speed_tg"]}
    raise ValueError(f"llama-batched-bench printed no batch of {batch}")


def assay_trials(result):
    """[{"prefill", "decode"}] tokens per second of each trial of a result of assay bench."""
    return [{"prefill": t["prefill_tps"], "decode": t["decode_tps"]} for t in result["trials"]]


def share(result, phase, batch):
    """assay's share of what the device attains, by the probes of the same process."""
    limits = result["limits"]
    if phase == "prefill":
        return f"{100 * limits['mfu']:.0f} % of FLOP/s"
    text = f"{100 * limits['mbu']:.0f} % of B/s"
    if limits.get("bytes_per_s_median"):
        text += f" ({100 * limits['mbu'] * limits['bytes_per_s'] / limits['bytes_per_s_median']:.0f} % of its median)"
    return text if batch == 1 else f"{text}, {100 * limits['decode_mfu']:.0f} % of FLOP/s"


def digits(value):
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def ratio_text(ratio):
    return f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"


def lines_of(row):
    """The table's lines of a row, as lists of cells: one per measure and peer.
    row: {"title", "unit", "measures": [{"what", "phase", "batch", "assay": [..], "peers": {name: [..]}}], "result",
    "failures": {program: reason}}; a list has a number per pair, the larger the better, or None where a run failed."""
    lines = []
    for measure in row["measures"]:
        own = [v for v in measure["assay"] if v is not None]
        assay = "failed" if "assay" in row["failures"] else figure(own, row["unit"])
        limit = share(row["result"], measure["phase"], measure["batch"]) if own and measure["phase"] in ("prefill", "decode") else ""
        for peer, values in measure["peers"].items():
            pairs = [(a, b) for a, b in zip(measure["assay"], values) if a is not None and b is not None]
            ratio = paired_ratio(pairs)
            theirs = figure([v for v in values if v is not None], row["unit"])
            lines.append([row["title"], measure["what"], peer, assay, theirs if peer not in row["failures"] else "failed",
                          ratio_text(ratio) if ratio else "", str(len(pairs)), limit])
    return lines


def figure(values, unit):
    """Rates are shown as they are; of times the row holds the inverse, so that a larger ratio is better for assay."""
    if not values:
        return ""
    return f"{digits(1 / median(values))} s" if unit == "s" else digits(median(values))


HEAD = ["model", "what", "peer", "assay", "peer's", "assay / peer", "pairs", "assay's share"]


def table(rows):
    lines = [HEAD, ["---"] * len(HEAD)]
    for row in rows:
        lines += lines_of(row)
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def failures(rows):
    return [f"- {row['name']}: {program}: {reason}"
            for row in rows for program, reason in row["failures"].items()]


def known(rows, key, dtype=None):
    """What the probes of the processes with all threads and every instruction say, where they say something."""
    limits = [row["result"]["limits"] for row in rows if row["result"] and row["threads"] == row["cores"] and not row["isa"]]
    return [each[key] for each in limits if each.get(key) and (dtype is None or each["flops_dtype"] == dtype)]


def best(rows, key, dtype=None):
    return max(known(rows, key, dtype), default=None)


def machine(rows):
    """Facts of the host, and the best that the probes of any process read, with all threads."""
    result = next((row["result"] for row in rows if row["result"]), None)
    if not result:
        return []
    host, device = result["host"], result["device"]
    lines = [f"- {host['cpu']} ({device['isa']}), {host['cores']} cores, {host['memory_bytes'] / 2**30:.0f} GiB, "
             f"{host['os']}, {host['kernel']}, {result['environment']['virtualization'] or 'no virtual machine'}"]
    read = best(rows, "bytes_per_s")
    if read:
        medians = known(rows, "bytes_per_s_median")
        lines.append(f"- memory is read at {read / 1e9:.1f} GB/s (assay's probe, the best of all processes)" +
                     (f", in the median repetition of the median process at {median(medians) / 1e9:.1f} GB/s" if medians else ""))
    products = [(d, best(rows, "flops", d)) for d in sorted({r["result"]["limits"]["flops_dtype"] for r in rows if r["result"]})]
    reached = [f"{flops / 1e9:.0f} GFLOP/s ({dtype})" for dtype, flops in products if flops]
    return lines + (["- a large matrix product reaches " + ", ".join(reached)] if reached else [])


def page(rows, facts):
    """facts: {"date", "versions": [..], "command", "minutes", "notes": [..]}."""
    text = ["<!-- written by ./dev peers; do not edit -->", "# assay and its peers on a CPU", "",
            f"Measured on {facts['date']} by `{facts['command']}` in {facts['minutes']:.0f} minutes, on one machine:", ""]
    text += machine(rows) + [f"- {version}" for version in facts["versions"]]
    text += ["", "All programs run one after the other, a pair at a time (assay, peer, assay, peer, ...), on the same threads and",
             "the same file (PyTorch: random weights of the same sizes). A figure is the median over the pairs, in tokens per",
             "second unless it has a unit; the ratio is the median of the pairs' ratios with a 95 % bootstrap interval over the",
             "pairs, above 1 where assay is faster. The last column is what assay gets of the bandwidth or the matrix product",
             "that it measured in the same process.", ""]
    text += table(rows) + [""]
    failed = failures(rows)
    if failed:
        text += ["Not measured:", ""] + failed + [""]
    return "\n".join(text + facts["notes"]) + "\n"
