"""The models that are compared: their data, Concrete ML's estimator, and what Asterism is told to train."""

from dataclasses import dataclass, field

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_classification
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

SEED = 7
BITS = 6


@dataclass
class Entry:
    """One line of the table."""

    name: str
    says: str
    data: str
    # "xgboost", "logistic", "network" or "forest", and its sizes.
    kind: str
    sizes: dict = field(default_factory=dict)
    # Rows under encryption with Concrete ML, at most.
    rows: int = 3
    # Whether Concrete ML is asked at all; the synthetic family goes on where it would take hours.
    concrete: bool = True


def synthetic(features, trees, depth, concrete):
    return Entry(
        f"synthetic-{features}-{trees}x{depth}",
        f"XGBoost, {features} features, {trees} trees of depth {depth}",
        f"synthetic-{features}",
        "xgboost",
        {"trees": trees, "depth": depth},
        1,
        concrete,
    )


ENTRIES = [
    Entry("logistic-30", "logistic regression, 30 features", "breast_cancer", "logistic", rows=50),
    Entry("trees-100x2", "XGBoost, 100 trees of depth 2", "breast_cancer", "xgboost", {"trees": 100, "depth": 2}),
    Entry("trees-50x3", "XGBoost, 50 trees of depth 3", "breast_cancer", "xgboost", {"trees": 50, "depth": 3}),
    Entry("trees-100x6", "XGBoost, 100 trees of depth 6", "breast_cancer", "xgboost", {"trees": 100, "depth": 6}, 2),
    Entry("forest-50x4", "random forest, 50 trees of depth 4, 3 classes", "wine", "forest", {"trees": 50, "depth": 4}, 2),
    Entry("mlp-30-16-2", "network 30-16-2", "breast_cancer", "network", {"hidden": 16}),
    Entry("digits-trees", "XGBoost, 10 classes, 20 rounds of depth 3", "digits", "xgboost", {"trees": 20, "depth": 3}, 1),
    Entry("digits-mlp", "network 64-32-10", "digits", "network", {"hidden": 32}, 1),
    synthetic(10, 20, 3, True),
    synthetic(30, 50, 4, True),
    synthetic(100, 50, 4, False),
    synthetic(30, 200, 4, False),
    synthetic(30, 50, 6, False),
    synthetic(100, 300, 6, False),
]


def split(entry):
    """The stratified 70/30 split, the same for everybody. Networks and linear models get standardised features."""
    if entry.data == "breast_cancer":
        x, y = load_breast_cancer(return_X_y=True)
    elif entry.data == "wine":
        x, y = load_wine(return_X_y=True)
    elif entry.data == "digits":
        x, y = load_digits(return_X_y=True)
    else:
        features = int(entry.data.split("-")[1])
        x, y = make_classification(
            n_samples=2000, n_features=features, n_informative=features // 2, n_redundant=0, random_state=SEED
        )
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.3, random_state=SEED, stratify=y)
    if entry.kind in ("logistic", "network"):
        scaler = StandardScaler().fit(x_train)
        x_train, x_test = scaler.transform(x_train), scaler.transform(x_test)
    wide = np.float32 if entry.kind == "network" else np.float64
    return x_train.astype(wide), x_test.astype(wide), y_train, y_test


def estimator(entry):
    """Concrete ML's model."""
    from concrete.ml import sklearn as cml

    sizes = entry.sizes
    if entry.kind == "logistic":
        return cml.LogisticRegression(n_bits=8)
    if entry.kind == "xgboost":
        return cml.XGBClassifier(
            n_bits=BITS, n_estimators=sizes["trees"], max_depth=sizes["depth"], random_state=SEED, n_jobs=1
        )
    if entry.kind == "forest":
        return cml.RandomForestClassifier(
            n_bits=BITS, n_estimators=sizes["trees"], max_depth=sizes["depth"], random_state=SEED
        )
    import torch

    torch.manual_seed(SEED)
    features = {"breast_cancer": 30, "digits": 64}[entry.data]
    return cml.NeuralNetClassifier(
        module__n_layers=2,
        # The hidden layer has int(features * this) units.
        module__n_hidden_neurons_multiplier=(sizes["hidden"] + 0.5) / features,
        module__n_w_bits=4,
        module__n_a_bits=4,
        max_epochs=50,
        verbose=0,
    )


def asterism_arguments(entry):
    """What `asterism fhe bench` trains on the same rows; XGBoost models are imported instead."""
    sizes = entry.sizes
    if entry.kind == "logistic":
        return ["--algorithm", "logistic"]
    if entry.kind == "network":
        return ["--algorithm", "neural", "--hyper", f"hidden={sizes['hidden']}"]
    return ["--algorithm", "forest", "--hyper", f"trees={sizes['trees']}", "--hyper", f"depth={sizes['depth']}"]


def named(name):
    return next(entry for entry in ENTRIES if entry.name == name)
