"""The candidates of the digits demo: the axes of the grid, and the scikit-learn models behind them.

The only file that imports scikit-learn, and only inside functions, so that the peer never loads a
numeric library. Everything random is seeded and every fit runs in one thread: the order in which
threads add floats changes the last bits, and scores are compared with `==`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Final, Protocol

from p2psched.model.errors import UsageError

FOLDS: Final = 5
SEED: Final = 2011
INK_MAX: Final = 16.0  # pixels are 0..16; models with one learning rate for all want 0..1
# Networks and logistic models stop at these bounds: the bound is part of the candidate.
NETWORK_ROUNDS_MAX: Final = 60
LOGISTIC_ROUNDS_MAX: Final = 200

Value = int | float | str
Setting = tuple[str, Value]

# 12 points a family. Sizes are chosen so that the 300 tasks take some 35 s of one core in all.
AXES: Final[Mapping[str, Mapping[str, Sequence[Value]]]] = MappingProxyType(
    {
        "support-vectors": {"C": (0.3, 1.0, 3.0, 10.0), "gamma": (0.01, 0.03, 0.1)},
        "nearest-neighbours": {"k": (1, 2, 3, 4, 6, 8), "weights": ("uniform", "distance")},
        "logistic-regression": {"C": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0), "scale": ("ink", "unit")},
        "random-forest": {"features": (4, 8, 16), "trees": (50, 100, 150, 200)},
        "neural-network": {"alpha": (0.0001, 0.01), "hidden": (32, 64, 96), "rate": (0.002, 0.01)},
    }
)


class Classifier(Protocol):
    """What every model here can do. The arrays are numpy's."""

    def fit(self, images: object, labels: object, /) -> object: ...
    def predict(self, images: object, /) -> Sequence[int]: ...


def settings_of(family: str) -> list[tuple[Setting, ...]]:
    """Every point of a family's grid; settings sorted by name."""
    axes = sorted(AXES[family].items())
    names = [name for name, _ in axes]
    return [
        tuple(zip(names, values, strict=True)) for values in product(*(axis for _, axis in axes))
    ]


def evaluate(
    family: str, settings: Mapping[str, Value], fold: int
) -> tuple[list[int], list[int], float]:
    """Train on four fifths of the images; the true and the answered digits of the other fifth,
    and the seconds that the fit took. Raises UsageError if there is no such family, or if
    scikit-learn is missing."""
    if family not in AXES:
        raise UsageError(f"no such family: {family!r}; there are {', '.join(AXES)}")
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import StratifiedKFold
        from threadpoolctl import threadpool_limits

        model = _build(family, settings)
    except ImportError as exc:
        raise UsageError(
            f"the demo needs scikit-learn ({exc}): pip install 'p2psched[demo]'"
        ) from exc
    images, labels = load_digits(return_X_y=True)
    images = images / INK_MAX
    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(images, labels)
    learn, test = list(parts)[fold]
    # After the imports above: the limit reaches only libraries that are loaded already.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "did not converge": see the bounds above
        began = time.perf_counter()
        model.fit(images[learn], labels[learn])
        fit_s = time.perf_counter() - began
        answers = [int(digit) for digit in model.predict(images[test])]
    return [int(digit) for digit in labels[test]], answers, fit_s


def _build(family: str, settings: Mapping[str, Value]) -> Classifier:
    match family:
        case "support-vectors":
            from sklearn.svm import SVC

            model: Classifier = SVC(C=settings["C"], gamma=settings["gamma"])
        case "nearest-neighbours":
            from sklearn.neighbors import KNeighborsClassifier

            model = KNeighborsClassifier(settings["k"], weights=settings["weights"], n_jobs=1)
        case "logistic-regression":
            model = _logistic(settings)
        case "random-forest":
            from sklearn.ensemble import RandomForestClassifier

            model = RandomForestClassifier(
                settings["trees"], max_features=settings["features"], n_jobs=1, random_state=SEED
            )
        case _:
            assert family == "neural-network", family
            from sklearn.neural_network import MLPClassifier

            model = MLPClassifier(
                (settings["hidden"],),
                alpha=settings["alpha"],
                learning_rate_init=settings["rate"],
                max_iter=NETWORK_ROUNDS_MAX,
                random_state=SEED,
            )
    return model


def _logistic(settings: Mapping[str, Value]) -> Classifier:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    plain: Classifier = LogisticRegression(C=settings["C"], max_iter=LOGISTIC_ROUNDS_MAX)
    if settings["scale"] == "ink":
        return plain
    scaled: Classifier = make_pipeline(StandardScaler(), plain)
    return scaled
