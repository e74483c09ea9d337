"""What a card says about measured accuracy, confidence and robustness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_ser.bundle import Manifest
from export.card_text import certain, points, section, table, ua

_VOICES = {
    "gain": "the speaker's own, warm against cold",
    "mostly_neutral": "after up to 12 of the speaker's own, three in four neutral, against cold",
    "wrong_voice": "a stranger's of 20 utterances, against cold",
}


def accuracy(metrics: Mapping[str, Any]) -> str:
    """Return UA cold and warm by corpus."""
    corpora = metrics.get("corpora", {})
    if not corpora:
        return ""
    rows = [
        [name, voice, figures[voice]["speakers"], *_confidence(figures[voice], ua(figures[voice]))]
        for name, figures in corpora.items()
        for voice in ("cold", "warm")
        if figures[voice]
    ]
    kinds = {key: told for key, told in _VOICES.items() if any(key in figures for figures in corpora.values())}
    voices = [
        [name, *(points(figures.get(key)) for key in kinds)]
        for name, figures in corpora.items()
        if any(key in figures for key in kinds)
    ]
    home = ", ".join(name for name, figures in corpora.items() if figures.get("home"))
    return section(
        "Accuracy on speakers never heard",
        "UA: unweighted accuracy, the mean recall of the classes; 95 % intervals. *Cold*: each utterance with a fresh "
        f"voice profile. *Warm*: after {metrics['warm_after_utterances']} utterances of the same speaker, in random "
        f"order and without labels. *Home*: {home or 'none'}; other speakers of these corpora were trained on. The "
        "other corpora, *away*, were never heard.",
        table(["corpus", "voice", "speakers", "clips", "UA", "ECE", "certain answers: right (share of all)"], rows),
        "What a voice profile does to the same utterances, in points of UA:" if voices else "",
        table(["corpus", *kinds.values()], voices),
        _words(metrics.get("words")),
    )


def _confidence(figures: Mapping[str, Any], *more: str) -> list[object]:
    return [figures["clips"], *more, f"{figures['ece']:.3f}", certain(figures)]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _words(words: Mapping[str, Any] | None) -> str:
    if not words:
        return ""
    return (
        f"With a written sentence of the same emotion beside each of {words['clips']} clips (constructed pairs: nobody "
        f"ever said them so), UA is {ua(words)}, {points(words)} points against sound alone."
    )


def seconds_heard(metrics: Mapping[str, Any]) -> str:
    """Return UA by seconds of speech heard."""
    corpora = _having(metrics, "seconds_heard")
    if not corpora:
        return ""
    times = next(iter(corpora.values()))["seconds"]
    head = ["corpus", "clips", *("to the end" if seconds is None else f"{seconds:g} s" for seconds in times)]
    text = "UA, cold, after so many seconds of speech; every column holds the same clips, short ones to their end."
    return section("Accuracy against seconds heard", text, table(head, _rows(corpora)))


def utterances_heard(metrics: Mapping[str, Any]) -> str:
    """Return UA by utterances of the speaker heard before."""
    corpora = _having(metrics, "utterances_heard")
    if not corpora:
        return ""
    head = ["corpus", "clips", *(_span(low, high) for low, high in next(iter(corpora.values()))["spans"])]
    text = (
        "UA after so many other utterances of the speaker, drawn at random; every column holds the same clips, of "
        "speakers with clips enough."
    )
    return section("Accuracy against utterances of the speaker heard", text, table(head, _rows(corpora)))


def _having(metrics: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: figures[key] for name, figures in metrics.get("corpora", {}).items() if key in figures}


def _rows(corpora: Mapping[str, Any]) -> list[list[object]]:
    return [[name, series["clips"], *_values(series)] for name, series in corpora.items()]


def _values(series: Mapping[str, Any]) -> list[str]:
    both = zip(series["ua"], series["ua_interval"], strict=True)
    return [ua({"ua": value, "ua_interval": interval}) for value, interval in both]


def _span(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} on"
    return str(low) if high == low else f"{low} to {high}"


def few_shots(metrics: Mapping[str, Any]) -> str:
    """Return what a few labelled clips of each emotion are worth, by corpus and by who judges."""
    measured = metrics.get("few_shots")
    if not measured:
        return ""
    told = {(corpus, row): series for corpus, rows in measured["corpora"].items() for row, series in rows.items()}
    head = ["corpus", "judged by", *(f"{k} clips" for k in next(iter(told.values()))["shots"])]
    text = (
        "UA after `edge-ser adapt` with so many labelled clips of each emotion, from half of the corpus's speakers; "
        f"mean of {measured['draws']} draws. Strangers gave no clip."
    )
    rows = [[corpus, row, *_values(series)] for (corpus, row), series in told.items()]
    return section("Accuracy after a few labelled clips", text, table(head, rows))


def calibration(manifest: Manifest) -> str:
    """Return how honest its confidence is, and what can be asked of it."""
    fitted = manifest.calibration
    pooled: Any = manifest.metrics.get("pooled", {})
    voices = {f"{side}, {voice}": f for side, sides in pooled.items() for voice, f in sides.items()}
    risks = [[f"{row.risk:g}", f"{row.min_confidence:.3f}", f"{row.min_probability:.3f}"] for row in fitted.risks]
    return section(
        "Confidence",
        f"Temperature {fitted.temperature:g} and these thresholds were fitted on the validation speakers; the default "
        f"risk is {fitted.default_risk:g}.",
        table(["risk", "certain from confidence", "label ruled out below"], risks),
        "Measured on speakers of neither training nor validation, pooled over the home corpora and over the others "
        "(away). ECE: how far confidence is from accuracy, over 15 bins."
        if voices
        else "",
        table(
            ["pooled over", "clips", "ECE", "certain answers: right (share of all)"],
            [[name, *_confidence(figures)] for name, figures in voices.items()],
        ),
        _promises(voices),
        _reliability({name: figures for name, figures in voices.items() if "reliability" in figures}),
    )


def _promises(voices: Mapping[str, Any]) -> str:
    """Return the share wrong among the certain answers and, in brackets, the share of certain answers."""
    if not voices:
        return ""
    rows: list[list[object]] = []
    for place, row in enumerate(next(iter(voices.values()))["promises"]):
        got = [figures["promises"][place] for figures in voices.values()]
        rows.append([f"{row['risk']:g}", *(f"{_share(own['wrong'])} ({own['coverage']:.0%})" for own in got)])
    return "\n\n".join(
        [
            "Risk and coverage: wrong answers among the certain ones (share of answers that are certain).",
            table(["risk asked for", *voices], rows),
        ]
    )


def _reliability(voices: Mapping[str, Any]) -> str:
    edges = sorted({row["up_to"] for figures in voices.values() for row in figures["reliability"]})
    rows: list[list[object]] = []
    for edge in edges:
        own = [next((r for r in f["reliability"] if r["up_to"] == edge), None) for f in voices.values()]
        said = [f"{row['confidence']:.2f}: {row['right']:.2f} ({row['answers']})" if row else "-" for row in own]
        rows.append([f"{edge:.2f}", *said])
    if not rows:
        return ""
    return "\n\n".join(
        [
            "Reliability, by bins of confidence: mean confidence: share right (answers).",
            table(["confidence up to", *voices], rows),
        ]
    )


def robustness(metrics: Mapping[str, Any]) -> str:
    """Return what changes cost, and what it says to sound that is nobody's speech."""
    measured, noise = metrics.get("robustness"), metrics.get("non_speech")
    said = ""
    rows: list[list[object]] = []
    if measured:
        rows = [[row["name"], f"{row['ua']:.3f}", points(row), certain(row)] for row in measured["conditions"]]
        said = (
            f"The same {measured['clips']} clips of {', '.join(measured['corpora'])}, cold, changed before they are "
            f"judged; unchanged, UA is {ua(measured)}. Noises and rooms were heard by no training."
        )
    quiet = ""
    if noise:
        share = noise["confident_share"]
        quiet = f"Of {noise['sounds']} unheard sounds that are no speech, {share:.1%} of the answers were confident"
        kinds = ", ".join(f"{k['kind']} {k['confident']} of {k['answers']}" for k in noise.get("kinds", []))
        quiet += f" ({kinds})." if kinds else "."
    head = ["change", "UA", "points lost or won", "certain answers: right (share of all)"]
    return section("Noise, rooms and bad microphones", said, table(head, rows), quiet)
