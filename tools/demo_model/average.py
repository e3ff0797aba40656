"""Averages the weights of several checkpoints of one run into a Hugging Face folder.

    average.py FOLDER OUT WEIGHTS.safetensors...

FOLDER gives the configuration and the tokenizer. The mean of the last checkpoints of a run whose
learning rate has not fallen to zero is about as good as a run that was annealed.
"""

import argparse
import pathlib
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("weights", type=pathlib.Path, nargs="+")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in arguments.folder.glob("*.json"):
        shutil.copy(path, arguments.out)
    rows = [load_file(path) for path in arguments.weights]
    mean = {name: np.mean([row[name] for row in rows], axis=0, dtype=np.float64).astype(np.float32)
            for name in rows[0]}
    save_file(mean, arguments.out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
