"""Print speed and memory on larger shapes: BGE-base (12 layers of 768) and XLM-R-large (24 of 1,024).

Weights are random: 0.4 and 2.2 GB in the folder.

    local_shapes.py --folder FOLDER [--shapes bge-base xlm-r-large] [--documents 24]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._bench import Figures, arguments, figure_key, kept, machine, machine_line, start_all
from benchmarks.local_speed import FLOOR, REFERENCE, SUBJECTS, keep, measure, report, summary

LARGE = "xlm-r-large"


def main() -> None:
    """Print a table for each shape; one subject's process is there at a time where the weights are large."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--shapes", nargs="+", default=["bge-base", LARGE], choices=["bge-base", LARGE])
    parser.add_argument("--documents", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="", help="of our scorers, those whose name has this in it")
    asked, figures = parser.parse_args(), Figures()
    with kept(asked) as folder:
        from benchmarks._texts import kept_candidates
        from benchmarks._weights import random_model

        calls = [(query, texts[: asked.documents]) for query, texts in kept_candidates(folder)[:1]]
        ours = [each for each in SUBJECTS if each.name.startswith("ours") and asked.only in each.name]
        for shape in asked.shapes:
            model = random_model(folder, shape, onnx=shape != LARGE)
            found, workers = {}, {}
            for subject in [*(each for each in SUBJECTS if each.name in (REFERENCE, FLOOR)), *ours]:
                started = start_all([subject], model, asked.threads)
                try:
                    found |= measure(started, calls, asked.rounds, 1)
                finally:
                    for worker in started.values():
                        worker.stop()
                workers |= started
            if REFERENCE not in found:
                print(f"{shape}: {REFERENCE} was not measured")
                continue
            summed = {name: summary(name, runs, found) for name, runs in found.items()}
            print(f"{shape}: 1 query × {asked.documents} documents; {machine_line(machine(asked.threads))}")
            print("one subject after the other, not interleaved: on a busy machine these are rough")
            print(report(summed, workers), flush=True)
            for name, each in summed.items():
                keep(figures, f"local_shapes.{figure_key(shape)}.{figure_key(name)}", f"{shape}, {name}", each)
        figures.write(asked)


if __name__ == "__main__":
    main()
