"""Measures one model with Concrete ML, under real encryption: `measure.py MODEL ROWS DIRECTORY`.

Every finding is a line of JSON as soon as it is known, so that whoever stops this at a time limit keeps what was found. In
DIRECTORY it leaves the split as train.csv and test.csv and, of XGBoost models, the model itself.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from models import estimator, named, split


def tell(**findings):
    print(json.dumps(findings), flush=True)


def timed(work):
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def write_csv(path, x, y):
    header = ",".join([f"f{index}" for index in range(x.shape[1])] + ["label"])
    rows = (",".join([repr(float(value)) for value in row] + [str(int(label))]) for row, label in zip(x, y))
    path.write_text("\n".join([header, *rows]) + "\n")


def main():
    name, rows, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    entry = named(name)
    x_train, x_test, y_train, y_test = split(entry)
    write_csv(directory / "train.csv", x_train, y_train)
    write_csv(directory / "test.csv", x_test, y_test)

    model = estimator(entry)
    _, seconds = timed(lambda: model.fit(x_train, y_train))
    tell(fit_s=seconds)
    if entry.kind == "xgboost":
        # Concrete ML trains its trees on quantised rows: the model's thresholds are in these integers, and so are the rows
        # for whoever imports it.
        write_csv(directory / "test.csv", model.quantize_input(x_test), y_test)
        model.sklearn_model.save_model(str(directory / "model.json"))
    clear = model.predict(x_test)
    tell(accuracy=float((clear == y_test).mean()), test_rows=len(y_test), exported=True)
    if not entry.concrete:
        return

    _, seconds = timed(lambda: model.compile(x_train))
    tell(compile_s=seconds)
    circuit = model.fhe_circuit
    _, seconds = timed(lambda: circuit.keygen(force=True))
    tell(keygen_s=seconds, key_bytes=len(circuit.client.evaluation_keys.serialize()))

    agreed = 0
    for at in range(min(rows, len(x_test))):
        encrypted, encrypt = timed(lambda: circuit.encrypt(model.quantize_input(x_test[[at]])))
        result, run = timed(lambda: circuit.run(encrypted))
        decrypted, decrypt = timed(lambda: circuit.decrypt(result))
        scores = model.post_processing(model.dequantize_output(decrypted))
        agreed += int(np.argmax(scores) == clear[at])
        tell(
            row=dict(encrypt_s=encrypt, run_s=run, decrypt_s=decrypt),
            request_bytes=len(encrypted.serialize()),
            reply_bytes=len(result.serialize()),
            agreed=agreed,
        )


main()
