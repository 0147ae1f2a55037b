"""Runs both systems over the table of models, one after the other, and reports: see `run`."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from models import ENTRIES, asterism_arguments, named
from report import as_markdown, as_text

HERE = Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(prog="run", description="Compares Asterism with Concrete ML.")
    parser.add_argument("--only", help="these models, parted by commas")
    parser.add_argument("--rows", type=int, help="rows under encryption with Concrete ML, at most")
    parser.add_argument("--limit", type=int, default=600, help="seconds for Concrete ML and a model")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--record", type=Path, help="write all findings as lines of JSON to this file")
    parser.add_argument("--recorded", type=Path, help="run nothing: report what an earlier run wrote by --record")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    known = [entry.name for entry in ENTRIES]
    options.only = options.only.split(",") if options.only else known
    for name in options.only:
        if name not in known:
            parser.error(f"`{name}` is none of {', '.join(known)}")
    return options


def concrete(entry, options, directory):
    """What Concrete ML does with a model, within the limit."""
    rows = min(entry.rows, options.rows or entry.rows)
    found = {"rows": [], "load": os.getloadavg()[0]}
    errors = (directory / "errors").open("w+")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "measure.py"), entry.name, str(rows), str(directory)],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    began = time.monotonic()
    try:
        output, _ = process.communicate(timeout=options.limit)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        found["reason"] = f"stopped after {options.limit} s"
    found["total_s"] = time.monotonic() - began
    for line in output.splitlines():
        if line.startswith("{"):
            finding = json.loads(line)
            row = finding.pop("row", None)
            found.update(finding)
            if row:
                found["rows"].append(row)
    if process.returncode and "reason" not in found:
        errors.seek(0)
        last = errors.read().strip().splitlines()
        found["reason"] = last[-1][:200] if last else f"ended with {process.returncode}"
    if not entry.concrete:
        found["reason"] = "not asked: the family only shows how cost grows"
    for part in ("encrypt_s", "run_s", "decrypt_s"):
        if found["rows"]:
            found[part] = statistics.median(row[part] for row in found["rows"])
    return found


def asterism(entry, options, directory):
    """What Asterism does with the same model, or one of the same sizes trained on the same rows."""
    command = [os.environ["ASTERISM"], "fhe", "bench", "--json", "--threads", str(options.threads)]
    command += ["--test", str(directory / "test.csv"), "--label", "label"]
    if entry.kind == "xgboost":
        command += ["--import", str(directory / "model.json")]
    else:
        command += ["--train", str(directory / "train.csv"), *asterism_arguments(entry)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        return {"reason": process.stderr.strip()[-200:] or f"ended with {process.returncode}"}
    return json.loads(process.stdout.splitlines()[-1])


def main():
    options = arguments()
    lines = []
    if options.recorded:
        recorded = [json.loads(line) for line in options.recorded.read_text().splitlines()]
        lines = [(named(name), theirs, ours) for name, theirs, ours in recorded if name in options.only]
        print(as_text(lines))
        options.only = []
    for entry in ENTRIES:
        if entry.name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as directory:
            directory = Path(directory)
            theirs = concrete(entry, options, directory)
            exported = theirs.get("exported", False)
            ours = asterism(entry, options, directory) if exported else {"reason": "there is no split to run on"}
        lines.append((entry, theirs, ours))
        if options.record:
            with options.record.open("a") as record:
                record.write(json.dumps([entry.name, theirs, ours]) + "\n")
        print(as_text(lines[-1:], header=len(lines) == 1), flush=True)
    if options.write:
        path = HERE.parents[2] / "docs" / "benchmarks.md"
        path.write_text(as_markdown(lines, options))
        print(f"wrote {path.name}")
    return 0 if all("server_ms" in ours for _, _, ours in lines) else 1


sys.exit(main())
