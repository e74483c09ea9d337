"""What an SVG says to a screen reader, and to the pointer that rests on an utterance."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from edge_ser.timeline import Timeline
from edge_ser.timeline.words import description, headline

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_UTTERANCE = re.compile(r"utterance-(\d+)(-row-\d+)?")


def annotated(svg: str, timeline: Timeline) -> str:
    """Return the picture of a timeline with a title, a description, and a title for each utterance."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(svg)
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    title, details = headline(timeline)
    what = f"Waveform, utterances and the probability of each emotion over time. {details}."
    root.set("role", "img")
    root.set("aria-labelledby", "timeline-title timeline-description")
    for place, (name, text) in enumerate((("title", title), ("desc", what))):
        element = ElementTree.Element(f"{{{_SVG}}}{name}", {"id": f"timeline-{name}".replace("desc", "description")})
        element.text = text
        root.insert(place, element)
    said = {result.utterance: description(result) for result in timeline.results}
    for group in root.iter(f"{{{_SVG}}}g"):
        if found := _UTTERANCE.fullmatch(group.get("id", "")):
            element = ElementTree.Element(f"{{{_SVG}}}title")
            element.text = said[int(found[1])]
            group.insert(0, element)
    return ElementTree.tostring(root, encoding="unicode") + "\n"
