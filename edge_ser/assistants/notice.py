"""What everybody who meets this software must be told."""

NOTICE = (
    "This software infers people's emotions from their voices, and can be wrong. Audio stays on this device and is not "
    "stored. Inferring emotions of people at work or in schools is prohibited in the European Union (AI Act, Article "
    "5(1)(f)), except for medical or safety reasons."
)
"""Shown where a service starts, in its page, and sent to every client that connects."""
