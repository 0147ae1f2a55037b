"""What tritonclient gets by the Open Inference Protocol is what the service answers by its own contract."""
import csv
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

DATA = pathlib.Path("examples/breast_cancer.csv")
LABEL = "diagnosis"
ROWS = 24


def four_free_ports():
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            base = first.getsockname()[1]
        try:
            for port in range(base, base + 4):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return base
        except (OSError, OverflowError):
            continue


class Asterism:
    """A constellation in a directory that goes away with it."""

    def __init__(self, binary, data):
        self.binary, self.data, self.port = binary, data, four_free_ports()
        self.process = subprocess.Popen([binary, "--data", data, "up", "--port", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            if subprocess.run(self.command("models", "list"), capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit("the services did not start")

    def command(self, *args):
        return [self.binary, "--json", "--data", self.data, "--addr", f"127.0.0.1:{self.port}", *map(str, args)]

    def run(self, *args):
        done = subprocess.run(self.command(*args), capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"asterism {' '.join(map(str, args))}: {done.stdout}{done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]

    def token(self):
        return (pathlib.Path(self.data) / "admin.token").read_text().strip()


def tensor(name, values, datatype):
    wrapped = triton.InferInput(name, list(values.shape), datatype)
    wrapped.set_data_from_numpy(values)
    return wrapped


def main(binary):
    with tempfile.TemporaryDirectory() as data:
        asterism = Asterism(binary, data)
        try:
            check(asterism, pathlib.Path(data))
        finally:
            asterism.process.terminate()
            asterism.process.wait(timeout=30)


def check(asterism, scratch):
    dataset = asterism.run("datasets", "upload", DATA)[-1]["name"]
    model = asterism.run("models", "train", dataset, "--label", LABEL, "--algorithm", "trees", "--param", "depth=3", "--param", "trees=20")[-1]["name"]
    client = triton.InferenceServerClient(f"127.0.0.1:{asterism.port + 2}")
    headers = {"authorization": f"Bearer {asterism.token()}"}

    assert client.is_server_live(headers=headers) and client.is_server_ready(headers=headers)
    assert client.get_server_metadata(headers=headers).name == "asterism-inference"
    assert client.is_model_ready(model, headers=headers)
    metadata = client.get_model_metadata(model, headers=headers)
    features = metadata.inputs[0].shape[1]
    assert (metadata.inputs[0].name, features, list(metadata.versions)) == ("input", 30, ["clear"])
    print("server and model metadata: ok")

    with DATA.open() as file:
        table = list(csv.DictReader(file))[:ROWS]
    names = [name for name in table[0] if name != LABEL]
    rows = np.array([[float(row[name]) for name in names] for row in table])
    few = scratch / "rows.csv"
    with few.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([row[name] for name in names] for row in table)
    expected = asterism.run("predict", model, "--file", few)
    expected = [line for line in expected if "class" in line][:ROWS]
    for datatype, kind in [("FP64", np.float64), ("FP32", np.float32)]:
        answer = client.infer(model, [tensor("input", rows.astype(kind), datatype)], headers=headers, request_id="seven")
        classes = [name.decode() for name in answer.as_numpy("class")]
        probabilities = answer.as_numpy("probabilities")
        assert probabilities.shape == (ROWS, 2) and np.allclose(probabilities.sum(axis=1), 1)
        assert answer.get_response().id == "seven"
        if kind is np.float64:
            assert classes == [line["class"] for line in expected]
    wanted = [triton.InferRequestedOutput("class")]
    answer = client.infer(model, [tensor("input", rows, "FP64")], outputs=wanted, headers=headers)
    assert answer.as_numpy("probabilities") is None and len(answer.as_numpy("class")) == ROWS
    print(f"{ROWS} rows in the clear, FP64 and FP32: ok")

    for bad, text in [
        (tensor("input", rows[:, :29], "FP64"), "29"),
        (tensor("other", rows, "FP64"), "input"),
        (tensor("input", rows.astype(np.int32), "INT32"), "FP32"),
    ]:
        try:
            client.infer(model, [bad], headers=headers)
            raise SystemExit("what does not fit was not refused")
        except InferenceServerException as refused:
            assert refused.status() == "StatusCode.INVALID_ARGUMENT" and text in refused.message(), refused
    try:
        client.infer(model, [tensor("input", rows, "FP64")])
        raise SystemExit("a stranger was not refused")
    except InferenceServerException as refused:
        assert refused.status() == "StatusCode.UNAUTHENTICATED", refused
    print("what does not fit is refused: ok")

    asterism.run("fhe", "compile", model, "--plan", "paths")
    assert list(client.get_model_metadata(model, headers=headers).versions) == ["clear", "encrypted"]
    bundle, keys = scratch / "bundle.json", scratch / "keys"
    asterism.run("fhe", "bundle", model, "--out", bundle)
    asterism.run("fhe", "keygen", "--bundle", bundle, "--out", keys)
    # The service's own verb registers the evaluation key; a key is named by its digest.
    asterism.run("fhe", "predict", model, "--file", few, "--keys", keys)
    key = "evaluationKeys/" + subprocess.run(["sha256sum", keys / "evaluation.key"], capture_output=True, text=True).stdout.split()[0]
    queries = []
    for row in range(3):
        query = scratch / f"query-{row}"
        asterism.run("fhe", "encrypt", "--bundle", bundle, "--key", keys / "secret.key", "--csv", few, "--row", row, "--out", query)
        queries.append(query)
    ask = tensor("query", np.array([query.read_bytes() for query in queries], dtype=object), "BYTES")
    answer = client.infer(model, [ask], model_version="encrypted", headers=headers, parameters={"evaluation_key": key})
    for row, (query, reply) in enumerate(zip(queries, answer.as_numpy("reply"))):
        file = scratch / f"reply-{row}"
        file.write_bytes(reply)
        made = asterism.run("fhe", "decrypt", "--bundle", bundle, "--key", keys / "secret.key", "--query", query, "--reply", file)[-1]
        assert made["class"] == expected[row]["class"], (made, expected[row])
    receipts = [json.loads(receipt) for receipt in answer.as_numpy("receipt")]
    assert all(receipt["key"] == "reply-signer" and receipt["signature"] for receipt in receipts)
    print("3 encrypted rows, decrypted to the same classes, with receipts: ok")


if __name__ == "__main__":
    main(sys.argv[1])
