"""What an evaluation writes, made up, for tests of what is made of it."""

from __future__ import annotations

from typing import Any

LABELS = ["angry", "happy", "neutral", "sad"]


def brief(ua: float, clips: int = 700) -> dict[str, Any]:
    return {"clips": clips, "speakers": 12, "ua": ua, "ua_interval": [ua - 0.04, ua + 0.04]}


def series(values: list[float]) -> dict[str, Any]:
    rows = [brief(value) for value in values]
    return {"clips": 200, **{key: [row[key] for row in rows] for key in ("ua", "ua_interval")}}


def described(ua: float, certain_accuracy: float | None = 0.9) -> dict[str, Any]:
    return {
        **brief(ua),
        **{"wa": ua, "ece": 0.0312, "certain_share": 0.4, "certain_accuracy": certain_accuracy},
        **{"certain_interval": [0.85, 0.95], "recall": [0.9, 0.8, 0.7, 0.6], "confusion": [[1, 2, 3, 4]] * 4},
    }


def changed(difference: float) -> dict[str, Any]:
    return {"difference": difference, "difference_interval": [difference - 0.01, difference + 0.01]}


def corpus(cold: float, warm: float | None, *, home: bool) -> dict[str, Any]:
    figures: dict[str, Any] = {"home": home, "cold": described(cold), "warm": warm and described(warm)}
    figures["seconds_heard"] = {"seconds": [0.8, 1.6, 2.4, 3.2, None], **series([cold - 0.1] * 4 + [cold])}
    if warm is not None:
        spans = [[0, 0], [1, 2], [3, 5], [6, 10], [11, 20], [21, None]]
        figures["gain"] = changed(warm - cold)
        figures["utterances_heard"] = {"spans": spans, **series([cold] + [warm] * 5)}
        figures["mostly_neutral"] = changed(0.015)
        figures["wrong_voice"] = changed(-0.005)
    return figures


def pooled(ua: float) -> dict[str, Any]:
    bins = [(place + 1) / 15 for place in range(3, 15)]
    rows = [{"up_to": b, "answers": 70, "confidence": b - 0.03, "right": b - 0.05} for b in bins]
    return {
        **described(ua),
        "reliability": rows,
        "promises": [{"risk": risk, "coverage": 0.5, "wrong": risk / 2} for risk in (0.05, 0.1, 0.15, 0.2, 0.3)],
        "risk_coverage": [{"coverage": n / 20, "risk": n / 100} for n in range(1, 21)],
    }


def evaluation(model: str = "tiny") -> dict[str, Any]:
    corpora = {
        "cremad": corpus(0.8, 0.88, home=True),
        "emodb": corpus(0.93, 0.95, home=True),
        **{name: corpus(0.62, 0.74, home=False) for name in ("ased", "emovo", "nemo", "ravdess")},
        "urdu": corpus(0.5, None, home=False),
    }
    conditions = ("noise at 20 dB", "noise at 10 dB", "noise at 0 dB", "room", "-60 dBFS", "clipped", "telephone band")
    conditions += ("telephone codec", "10 % slower", "10 % faster", "first 0.4 s", "first 0.8 s")
    answers = ("ua", "certain_share", "certain_accuracy")
    rows = [{"name": name, **{key: described(0.75)[key] for key in answers}, **changed(-0.03)} for name in conditions]
    kinds = [{"kind": kind, "sounds": 10, "answers": 25, "confident": 0} for kind in ("recordings", "silence")]
    return {
        "model": model,
        "labels": LABELS,
        "default_risk": 0.15,
        "warm_after_utterances": 10,
        "orders": 3,
        "corpora": corpora,
        "pooled": {
            "home": {"cold": pooled(0.82), "warm": pooled(0.9)},
            "away": {"cold": pooled(0.6), "warm": pooled(0.72)},
        },
        "robustness": {"corpora": ["cremad", "emodb"], **brief(0.8, 600), "conditions": rows},
        "words": {**brief(0.9, 600), **changed(0.1)},
        "non_speech": {"sounds": 20, "answers": 50, "confident_share": 0.0, "kinds": kinds},
        "environment": {"python": "3"},
    }
