"""The table, for terminals and for docs/benchmarks.md."""

import datetime
import platform
from importlib.metadata import version
from pathlib import Path

COLUMNS = [
    ("model", 34),
    ("Concrete ML", 12),
    ("Asterism", 10),
    ("ratio", 8),
    ("plan", 8),
    ("keygen", 18),
    ("keys", 20),
    ("request", 20),
    ("reply", 20),
    ("accuracy", 15),
]


def time_text(seconds):
    if seconds is None:
        return "–"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1 or unit == "us":
            return f"{seconds * factor:.3g} {unit}"
    return "–"


def bytes_text(count):
    if count is None:
        return "–"
    if not count:
        return "none"
    for size, unit in ((1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def milli(ours, key):
    return ours[key] / 1e3 if key in ours else None


def cells(entry, theirs, ours):
    run, own = theirs.get("run_s"), milli(ours, "server_ms")
    both = lambda text, theirs, ours: f"{text(theirs)} / {text(ours)}"
    accuracy = lambda value: "–" if value is None else f"{value:.3f}"
    return [
        entry.says,
        time_text(run),
        time_text(own),
        f"{run / own:.3g}" if run and own else "–",
        ours.get("plan", "–"),
        both(time_text, theirs.get("keygen_s"), milli(ours, "keygen_ms")),
        both(bytes_text, theirs.get("key_bytes"), ours.get("key_bytes")),
        both(bytes_text, theirs.get("request_bytes"), ours.get("request_bytes")),
        both(bytes_text, theirs.get("reply_bytes"), ours.get("reply_bytes")),
        both(accuracy, theirs.get("accuracy"), ours.get("accuracy_encrypted")),
    ]


def as_text(lines, header=True):
    rows = [[name for name, _ in COLUMNS]] if header else []
    rows += [cells(*line) for line in lines]
    text = ["  ".join(cell.ljust(width) for cell, (_, width) in zip(row, COLUMNS)).rstrip() for row in rows]
    text += [f"    {system}: {found['reason']}" for _, system, found in remarks(lines)]
    return "\n".join(text)


def remarks(lines):
    for entry, theirs, ours in lines:
        for system, found in (("Concrete ML", theirs), ("Asterism", ours)):
            if "reason" in found:
                yield entry, system, found


def processor():
    try:
        info = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    name = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.machine())
    flags = next((line for line in info if line.startswith("flags")), "").split()
    return name + (", AVX-512" if "avx512f" in flags else "")


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def details(entry, theirs, ours):
    steps = lambda values: " + ".join(time_text(value) for value in values)
    agreement = f"{ours['agreement']:.4f} of {ours['rows']}" if "agreement" in ours else "–"
    return [
        f"`{entry.name}`",
        str(len(theirs["rows"])),
        f"{theirs.get('agreed', '–')}",
        time_text(theirs.get("compile_s")),
        steps([theirs.get("encrypt_s"), theirs.get("run_s"), theirs.get("decrypt_s")]),
        steps([milli(ours, "encrypt_ms"), milli(ours, "server_ms"), milli(ours, "decrypt_ms")]),
        time_text(milli(ours, "floor_ms")),
        agreement,
        f"{ours['accuracy_encrypted']:.3f} / {ours['accuracy_clear']:.3f}" if "agreement" in ours else "–",
    ]


def as_markdown(lines, options):
    loads = [theirs["load"] for _, theirs, _ in lines]
    stated = [f"- `{entry.name}`, {system}: {found['reason']}." for entry, system, found in remarks(lines)]
    parts = [
        "# Encrypted prediction beside Concrete ML",
        f"Written by `benches/compare/concrete_ml/run` on {datetime.date.today().isoformat()}: one run, one machine "
        f"({processor()}, {options.threads} threads for each system; load average {min(loads):.1f} to {max(loads):.1f} "
        f"before each model, so others were at work too where it is above {options.threads}), Concrete ML {version('concrete-ml')}, Python "
        f"{platform.python_version()}. Pairs of figures are Concrete ML's and Asterism's.",
        "## One row",
        table([name for name, _ in COLUMNS], [cells(*line) for line in lines]),
        "Latency is the server's work for one encrypted row: the median. Keys are what the server must hold for a client. Accuracy "
        "is Concrete ML's of its quantised model in the clear, over the whole test set, and Asterism's of the rows that it "
        "predicted under encryption: all, or those that fitted in 30 s; the next table has the trained model's accuracy on the same rows.",
        "## The steps",
        table(
            [
                "model",
                "rows, Concrete ML",
                "of them as in the clear",
                "Concrete ML compiles",
                "encrypt + run + decrypt, Concrete ML",
                "the same, Asterism",
                "Asterism's floor",
                "rows as in the clear, Asterism",
                "accuracy encrypted / trained model, Asterism",
            ],
            [details(*line) for line in lines],
        ),
        "\"As in the clear\" is each system's own quantised model. The floor is the count of products times the measured time of one, shared "
        "among the threads.",
    ]
    if stated:
        parts += [
            "## Stopped, or not asked",
            "Figures of a model that was stopped are those of the rows that were done by then.",
            "\n".join(stated),
        ]
    parts += [
        "## How it is compared",
        "- The split is stratified, 70 to 30, with a fixed seed; both systems see the same rows. Logistic regression and "
        "networks get standardised features.\n"
        "- XGBoost models: Concrete ML trains them on rows that it has quantised to 6 bits; Asterism imports that same model, "
        "unchanged, and predicts the same integers. Other models are of the same sizes, trained by each system itself on the same rows.\n"
        "- Concrete ML runs with its defaults (error probability included) at 6 bits for trees, 8 for logistic regression, 4 for weights and "
        "activations of networks; fully encrypted (`circuit.run`), not simulated.\n"
        "- Scores under encryption are rounded (`announced_error` of `asterism fhe bench`); what that does to accuracy, the last column "
        "of the second table shows.\n"
        "- The two promise different things. Concrete ML's circuits work on keys and messages of its own TFHE parameters; "
        "Asterism's plans use no bootstrapping, send larger requests, and some (see "
        "`edges_are_thresholds` in `asterism fhe explain`) show clients the values that a model splits on.",
    ]
    return "\n\n".join(parts) + "\n"
