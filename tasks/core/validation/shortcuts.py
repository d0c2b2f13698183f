"""Properties of the files that give the classes away, so that a model may learn them and nothing else."""

import pandas as pd
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

SHORTCUTS = {
    "format": ["format"],
    "mode": ["mode"],
    "size": ["width", "height"],
    "brightness": ["brightness"],
    "saturation": ["saturation"],
}
SHORTCUT_SAMPLE = 5000  # images are enough to see a shortcut that matters
FOLDS = 5


def shortcut_skills(images: pd.DataFrame) -> dict[str, float]:
    """How well the classes can be told apart by one trivial property alone.

    A decision tree learns the label from that property, and is tried on images it hasn't seen.

    Returns:
        For each property its skill: 0 no better than guessing, 1 perfect (balanced accuracy, rescaled).
    """
    enough = images.groupby("label")["label"].transform("size") >= FOLDS
    sample = images.loc[images.loc[enough, "sha256"].sort_values().index[:SHORTCUT_SAMPLE]]
    sample = sample[sample.groupby("label")["label"].transform("size") >= FOLDS]
    classes = sample["label"].nunique()
    if classes < 2:
        return dict.fromkeys(SHORTCUTS, 0.0)
    return {name: _skill(sample, columns, classes) for name, columns in SHORTCUTS.items()}


def _skill(sample: pd.DataFrame, columns: list[str], classes: int) -> float:
    coded = sample[columns].apply(
        lambda column: column if column.dtype.kind in "if" else pd.factorize(column)[0]
    )
    if (coded.nunique() <= 1).all():
        return 0.0
    tree = DecisionTreeClassifier(
        max_leaf_nodes=4 * classes, min_samples_leaf=2, class_weight="balanced", random_state=0
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    guessed = cross_val_predict(tree, coded.to_numpy(float), sample["label"], cv=folds)
    return max(0.0, float(balanced_accuracy_score(sample["label"], guessed, adjusted=True)))
