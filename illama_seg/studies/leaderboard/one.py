"""One training of a leaderboard: python -m ... CONFIG SEED WORK_DIR."""

from __future__ import annotations

import argparse
from pathlib import Path

from illama_seg.apis.command_line import run


def main(args: argparse.Namespace) -> None:
    """Train, or go on, and evaluate the last checkpoint on the validation images."""
    from illama_seg.apis.configs import load_config
    from illama_seg.apis.models import load_segmentor
    from illama_seg.apis.training import build_trainer
    from illama_seg.apis.work_dir import find_run
    from illama_seg.datasets.labelled import LabelledImages
    from illama_seg.studies.common import evaluate, write_results

    folder = Path(args.work_dir)
    cfg = load_config(args.config, work_dir=folder)
    cfg.randomness = dict(cfg.get('randomness', {}), seed=args.seed)
    last = folder / f'iter_{cfg.train_cfg.max_iters}.pth'
    if not last.is_file():
        build_trainer(cfg, resume=any(folder.glob('iter_*.pth'))).train()
    cfg, checkpoint, _ = find_run(folder)
    model = load_segmentor(cfg, checkpoint, fold=True)
    pairs = LabelledImages(cfg, 'val')
    summary, _ = evaluate(model, pairs)
    (folder / 'test').mkdir(exist_ok=True)
    results = dict(summary, images=len(pairs), checkpoint=checkpoint.name)
    write_results(folder / 'test' / 'scores.json', [], seed=args.seed, **results)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('seed', type=int)
    parser.add_argument('work_dir')
    run(main, parser.parse_args())
