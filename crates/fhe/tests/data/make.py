"""Trains the models of this folder: python make.py, with xgboost and scikit-learn. Margins come from XGBoost itself."""
import json
import numpy as np
import xgboost as xgb
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.model_selection import train_test_split

for name, load, depth, rounds in [("breast_cancer", load_breast_cancer, 2, 30), ("wine", load_wine, 3, 6)]:
    x, y = load(return_X_y=True)
    xtr, xte, ytr, yte = train_test_split(x, y, test_size=0.3, random_state=42, stratify=y)
    xtr[::17, 3] = np.nan
    model = xgb.XGBClassifier(n_estimators=rounds, max_depth=depth, learning_rate=0.3, random_state=0).fit(xtr, ytr)
    model.save_model(f"{name}.json")
    rows = xte[:40].copy()
    rows[::9, 3] = np.nan
    margins = model.predict(rows, output_margin=True).reshape(len(rows), -1)
    text = [[None if np.isnan(v) else float(v) for v in row] for row in rows]
    with open(f"{name}.expected.json", "w") as out:
        json.dump({"xgboost": xgb.__version__, "rows": text, "margins": margins.astype(float).tolist()}, out)
