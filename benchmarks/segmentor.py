"""Whole segmentors, from an image to its labels, and a training iteration.

    python benchmarks/segmentor.py [--archs tiny base] [--sizes 512x512 512x2048]

Inference is what a user waits for: a uint8 image in memory in, a map of labels of its
size out, one forward pass over the whole image. 'illama' is this package's UperNet as
tools/infer.py runs it. What a user could take instead comes from mmseg: 'vit', its
VisionTransformer of the same size with the same neck and decoder, run by
inference_model; 'linear', that ViT with a linear decoder (Segmenter's baseline);
'segformer', B0 beside Tiny and B3 beside the other sizes. Training is one iteration of
AdamW on two images of 512x512. Models are timed in turn; medians with their range.

Multiply-accumulates are those that run, without the products of the attention. 'share'
compares them with the rate of the fastest large matrix product of the machine. Memory
is what a call adds at its peak, in a new process.

Prints a table, writes segmentor.json and segmentor.png into DIR.
"""

import argparse
import os
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import mmseg
import numpy as np
import torch
from common import (
    DTYPES,
    PASSES,
    dtypes,
    interleaved,
    matmul_rate,
    peak,
    peak_in_new_process,
    summary,
    write,
)
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.apis import inference_model
from mmseg.structures import SegDataSample

from illama_seg.apis import load_config, predict
from illama_seg.backbones import ILLaMA
from illama_seg.heads import fold_for_inference
from illama_seg.studies.complexity.counts import count_multiply_accumulates

ZOO = Path(mmseg.__file__).parent / '.mim' / 'configs'
NAMES = ('illama', 'vit', 'linear', 'segformer')
ARCHS = ('tiny', 'small', 'base')
SIZES = {'512x512': (512, 512), '512x2048': (512, 2048)}
BATCH = 2  # of the training: the smallest that batch normalisation takes
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]


def build(name: str, arch: str) -> torch.nn.Module:
    """Build a segmentor of 150 classes with random weights."""
    if name == 'segformer':
        size = 'b0' if arch == 'tiny' else 'b3'
        folder = ZOO / 'segformer'
        cfg = Config.fromfile(
            folder / f'segformer_mit-{size}_8xb2-160k_ade20k-512x512.py',
            import_custom_modules=False,
        ).model
    else:
        cfg = load_config(f'configs/upernet_illama_{arch}_ade20k.py').model
    if name in ('vit', 'linear'):
        ours = MODELS.build(cfg.backbone | dict(init_cfg=None))
        dims = ours.embed_dims
        cfg.backbone = dict(
            type='VisionTransformer',
            img_size=(512, 512),
            patch_size=16,
            embed_dims=dims,
            num_layers=len(ours.blocks),
            num_heads=ours.blocks[0].attn.num_heads,
            out_indices=cfg.backbone.out_indices,
            drop_path_rate=0.1,
        )
        cfg.decode_head.type = 'UPerHead'
    if name == 'linear':
        cfg.neck = cfg.auxiliary_head = None
        cfg.backbone.out_indices = (11,)
        cfg.decode_head = dict(
            type='FCNHead',
            in_channels=dims,
            channels=dims,
            num_convs=0,
            concat_input=False,
            num_classes=150,
            norm_cfg=None,
            align_corners=False,
        )
    cfg.backbone.init_cfg = cfg.pretrained = None
    cfg.test_cfg = dict(mode='whole')
    for head in (cfg.decode_head, cfg.get('auxiliary_head')):
        if head and head.get('norm_cfg'):
            head.norm_cfg.type = 'BN'  # SyncBN needs a GPU
    init_default_scope('mmseg')  # for inference_model's pipeline too
    model = MODELS.build(cfg)
    model.cfg = Config(dict(model=cfg, test_pipeline=PIPELINE))
    model.dataset_meta = dict(classes=[str(i) for i in range(150)], palette=None)
    return model


def segment(model: torch.nn.Module, image: np.ndarray, dtype: str) -> np.ndarray:
    with precision(dtype):
        if isinstance(model.backbone, ILLaMA):
            return predict(model, image)
        return inference_model(model, image).pred_sem_seg.data[0].numpy()


def train(model: torch.nn.Module, optimiser, image: np.ndarray, dtype: str) -> None:
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    labels = PixelData(data=pixels[:1].long() % 150)
    data = dict(
        inputs=[pixels] * BATCH,
        data_samples=[
            SegDataSample(gt_sem_seg=labels, metainfo=dict(img_shape=image.shape[:2]))
        ]
        * BATCH,
    )
    data = model.data_preprocessor(data, True)
    with precision(dtype):
        losses = model.loss(**data)
    loss, _ = model.parse_losses(losses)
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()


def precision(dtype: str):
    if dtype == 'float32':
        return nullcontext()
    return torch.autocast('cpu', DTYPES[dtype])


def call_of(name: str, arch: str, size: str, dtype: str, direction: str):
    """Build a model and the call to time."""
    model = build(name, arch)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*SIZES[size], 3), np.uint8)
    if direction == 'training':
        optimiser = torch.optim.AdamW(model.train().parameters(), lr=1e-5)
        return model, partial(train, model, optimiser, image, dtype)
    model.eval()
    if name == 'illama':
        fold_for_inference(model)
    return model, partial(segment, model, image, dtype)


def measure(args, arch: str, size: str, dtype: str, direction: str) -> list[dict]:
    built = {name: call_of(name, arch, size, dtype, direction) for name in args.names}
    calls = {name: call for name, (_, call) in built.items()}
    rates = [matmul_rate('cpu', DTYPES[dtype])]
    times = interleaved(calls, 'cpu', args.repeats)
    rates.append(matmul_rate('cpu', DTYPES[dtype]))
    rows = []
    for name, (model, _) in built.items():
        macs = count_multiply_accumulates(model.eval(), SIZES[size])
        auxiliary = direction == 'training'
        count = macs.total(attention=False, auxiliary=auxiliary, executed=True)
        seconds = summary(times[name])
        images = BATCH if direction == 'training' else 1
        passes = 3 * images if direction == 'training' else 1
        row = dict(
            name=name,
            arch=arch,
            size=size,
            dtype=dtype,
            **{'pass': direction},
            **seconds,
            over_vit=seconds['seconds'] / summary(times['vit'])['seconds'],
            multiply_accumulates=count,
            share=passes * 2 * count / max(rates) / seconds['seconds'],
            MiB=peak_in_new_process(
                __file__, [name, arch, size, dtype, direction], args.threads
            ),
        )
        rows.append(row)
        print(
            f'{arch:6}{size:9}{dtype:9} {direction:10}{name:10}'
            f'{row["seconds"]:8.3f} s ({row["min"]:.3f} to {row["max"]:.3f}) '
            f'{row["over_vit"]:6.2f} {count / 1e9:8.1f} G {row["share"]:5.0%} '
            f'{row["MiB"] or 0:7.0f} MiB',
            flush=True,
        )
    return rows


def draw(rows: list[dict], path: Path, title: str) -> None:
    """Time of an image or iteration against the size of the model."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    panels = list(dict.fromkeys((r['pass'], r['size'], r['dtype']) for r in rows))
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(1 + 3.6 * len(panels), 4.2),
        squeeze=False,
        constrained_layout=True,
    )
    for axis, panel in zip(axes[0], panels, strict=True):
        for number, name in enumerate(NAMES):
            points = [
                (ARCHS.index(r['arch']), r['seconds'])
                for r in rows
                if (r['pass'], r['size'], r['dtype']) == panel and r['name'] == name
            ]
            if points:
                axis.semilogy(
                    *zip(*points, strict=True), 'o-', color=f'C{number}', label=name
                )
        archs = sorted({ARCHS.index(r['arch']) for r in rows})
        axis.set_xticks(archs, [ARCHS[i] for i in archs])
        axis.set_title(', '.join(panel))
        axis.grid(True, which='both', alpha=0.25)
    axes[0, 0].set_ylabel('seconds')
    axes[0, 0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--archs', nargs='+', default=['tiny', 'base'], choices=ARCHS)
    parser.add_argument('--sizes', nargs='+', default=list(SIZES), choices=SIZES)
    parser.add_argument(
        '--names', nargs='+', default=NAMES, choices=NAMES, help="'vit' is needed"
    )
    parser.add_argument(
        '--dtypes', nargs='+', choices=DTYPES, help='else float32, and half if faster'
    )
    parser.add_argument('--passes', nargs='+', default=PASSES, choices=PASSES)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument('--case', nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings('ignore', category=UserWarning)
    if 'vit' not in args.names:
        parser.error("--names needs 'vit', which the others are compared with")
    if args.case:
        _, call = call_of(*args.case)
        print(peak(call, 'cpu'))
        return
    args.dtypes = args.dtypes or dtypes('cpu')
    print("size, dtype, pass, model, median (range), time over the ViT's, products,")
    print("share of the matrix products' rate, peak MiB")
    rows = []
    for arch in args.archs:
        for direction in args.passes:
            # Training: the recipe's crops alone.
            sizes = args.sizes if direction == 'inference' else args.sizes[:1]
            for size in sizes:
                for dtype in args.dtypes:
                    rows += measure(args, arch, size, dtype, direction)
    write(args.out, 'segmentor', rows, device='cpu', threads=args.threads, draw=draw)


if __name__ == '__main__':
    main()
