#!/usr/bin/env python3
"""What jetson-containers runs after a build: the model answers, on the CPU and by whatever else is there."""

import time

import numpy as np

import edge_ser

print("edge-ser", edge_ser.__version__)
time_s = np.arange(2 * 16_000) / 16_000
voice = sum(np.sin(2 * np.pi * 140 * harmonic * time_s) / harmonic for harmonic in range(1, 12))
samples = (0.1 * voice * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * time_s))).astype(np.float32)
answers = {}
for provider in ("cpu", "auto"):
    recognizer = edge_ser.load(provider=provider)
    recognizer.recognize(samples)
    began_s = time.perf_counter()
    answers[provider] = recognizer.recognize(samples)
    print(f"{provider}: {answers[provider].probabilities} in {1000 * (time.perf_counter() - began_s):.1f} ms")
    assert abs(sum(answers[provider].probabilities.values()) - 1) < 1e-3
for label, probability in answers["cpu"].probabilities.items():
    assert abs(answers["auto"].probabilities[label] - probability) < 0.05, label
print("edge-ser OK")
