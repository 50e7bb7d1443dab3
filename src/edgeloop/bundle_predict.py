# ruff: noqa: UP031 (Python 3.8)
"""Laser speed and power of melt-pool clips: python3 predict.py clip.npy [...], or python3 predict.py --self-test

A clip is uint8 [frames, 41, 41], several are [n, frames, 41, 41]: counts of the camera, cut as model-card.md tells.
Needs Python 3.8 or later, numpy and onnxruntime, and the files that came with it.
"""

import argparse
import json
import os
import sys

import numpy

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "model-card.json")) as file:
    CARD = json.load(file)


def predict(session, clips):
    """float64 [n, 2], speed in mm/s and power in W, of uint8 clips [n, at least the model's frames, 41, 41]."""
    frames, side = CARD["input"]["frames"], CARD["input"]["pixels"]
    if clips.dtype != numpy.uint8 or clips.ndim != 4 or clips.shape[2:] != (side, side) or clips.shape[1] < frames:
        sys.exit("expected uint8 [n, %d or more, %d, %d], got %s %s" % (frames, side, side, clips.dtype, clips.shape))
    first = (clips.shape[1] - frames) // 2  # the centre of the clip, as in training
    rows = [session.run(None, {"clip": clip[None, first : first + frames]})[0][0] for clip in clips]
    return numpy.asarray(rows, numpy.float64).reshape(-1, 2) * CARD["output"]["scale"]


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("clips", nargs="*", metavar="clip.npy")
parser.add_argument("--self-test", action="store_true", help="known clips, known outputs")
parser.add_argument("--provider", action="append", help="of onnxruntime, the preferred first [CPUExecutionProvider]")
options = parser.parse_args()
providers = options.provider or ["CPUExecutionProvider"]
settings = onnxruntime.SessionOptions()
settings.add_session_config_entry("session.x64quantprecision", "1")  # int8 on x86 without VNNI: no saturation
session = onnxruntime.InferenceSession(os.path.join(HERE, "model.onnx"), settings, providers=providers)
for name in options.clips:
    clips = numpy.load(name)
    for number, (speed, power) in enumerate(predict(session, clips if clips.ndim == 4 else clips[None])):
        print("%s, clip %d: %.1f mm/s, %.2f W" % (name, number, speed, power))
if options.self_test:
    known = numpy.load(os.path.join(HERE, "self-test.npz"))
    worst = numpy.abs(predict(session, known["clips"]) - known["outputs"]).max(axis=0)
    good = bool((worst <= known["allowed"]).all())  # NaN is not good
    text = "self-test %s: %d clips, outputs differ by up to %.2g mm/s and %.2g W (allowed: %.2g and %.2g)"
    print(text % ("good" if good else "FAILED", len(known["clips"]), *worst, *known["allowed"]))
    sys.exit(0 if good else 1)
