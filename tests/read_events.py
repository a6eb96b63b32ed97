"""Prints what TensorBoard reads in a directory of event files, as JSON: points of curves, counts of histograms, texts."""

import json
import sys

from tensorboard.backend.event_processing import event_accumulator as ea

EVERYTHING = {ea.SCALARS: 0, ea.HISTOGRAMS: 0, ea.TENSORS: 0}

events = ea.EventAccumulator(sys.argv[1], size_guidance=EVERYTHING)
events.Reload()
tags = events.Tags()
print(
    json.dumps(
        {
            "scalars": {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags["scalars"]},
            "histograms": {
                tag: [(point.step, point.histogram_value.num) for point in events.Histograms(tag)]
                for tag in tags["histograms"]
            },
            "texts": [
                point.tensor_proto.string_val[0].decode() for tag in tags["tensors"] for point in events.Tensors(tag)
            ],
        }
    )
)
