"""The tutorial's network for Elman: python -m examples.torch_lstm_export TEXT lstm.pt models/mine.onnx."""

import sys
from pathlib import Path

from elman_export import Metadata, export_layers, load_state_dict
from examples.torch_lstm_train import CharLSTM

text, weights, output = map(Path, sys.argv[1:])
characters = tuple(sorted(set(text.read_text())))
model = CharLSTM(len(characters))
load_state_dict(model, weights)
export_layers(model.lstm, model.fc, Metadata(output.stem, characters), embedding=model.embedding).save(output)
