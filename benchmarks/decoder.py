"""Class tokens beside UperNet, a second question, rows as they arrive.

    python benchmarks/decoder.py [--archs tiny base] [--repeats 5] [--out DIR]

For each size, with random weights, in float32, images of 512x512:

- 'upernet' and 'queries' (configs/queries): a whole image to its labels;
- 'reading' of an image, and a 'question' of 20 more class tokens with their head;
- 'bands': the image read in bands of one row of patches, beside 'again', a
  model without a causal mask that reads all rows so far again at each band.

Then one stream of 4,096 rows of 512 pixels through Tiny, with the last 32 rows of
patches kept: latency, memory of keys and values, and resident memory at each band.
Multiply-accumulates are those that run, attention's products with them. Calls of a size
are timed in turn; medians with their range. Writes decoder.json and decoder.png.
"""

import argparse
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import interleaved, summary, write
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from segmentor import PIPELINE

from illama_seg import Question, ask
from illama_seg.apis import StreamSegmentor, load_config, predict
from illama_seg.heads import fold_for_inference
from illama_seg.studies.complexity.counts import count_multiply_accumulates

ARCHS = ('tiny', 'small', 'base')
SIZE = (512, 512)
STREAM_ROWS, MEMORY_ROWS, PATCH = 4096, 32, 16
NAMES = ('upernet', 'queries', 'reading', 'question', 'bands', 'again')


def build(config: str, **backbone: object) -> torch.nn.Module:
    """Build a segmentor with random weights, for whole images."""
    cfg = load_config(f'configs/{config}.py').model
    cfg.backbone.update(init_cfg=None, **backbone)
    cfg.auxiliary_head = None
    cfg.test_cfg = dict(mode='whole')
    cfg.data_preprocessor.pop('size', None)
    init_default_scope('mmseg')
    model = MODELS.build(cfg).eval()
    model.cfg = Config(dict(model=cfg, test_pipeline=PIPELINE))
    palette = [[i, i, i] for i in range(150)]
    model.dataset_meta = dict(classes=[str(i) for i in range(150)], palette=palette)
    return model


@torch.inference_mode()
def read_in_bands(backbone: torch.nn.Module, images: torch.Tensor) -> None:
    """Read an image, a row of patches after the other."""
    reading, rows = None, images.size(2) // PATCH
    for band in images.split(PATCH, dim=2):
        reading = backbone.read(band, reading, None if reading else rows)


@torch.inference_mode()
def read_again(backbone: torch.nn.Module, images: torch.Tensor) -> None:
    """Read all rows so far at each band, as a model without a causal mask must."""
    for end in range(PATCH, images.size(2) + 1, PATCH):
        backbone(images[:, :, :end])


def a_question(model: torch.nn.Module, classes: int = 20) -> Question:
    """Return another question to a segmentor's backbone, with random weights."""
    return Question(
        model.backbone,
        torch.randn(classes, model.backbone.embed_dims),
        head=dict(model.cfg.model.decode_head, num_classes=classes),
        classes=[str(i) for i in range(classes)],
        palette=[[i, i, i] for i in range(classes)],
    ).eval()


@torch.inference_mode()
def read(backbone: torch.nn.Module, images: torch.Tensor):
    return backbone.read(images)


def measure(arch: str, repeats: int) -> list[dict]:
    upernet = fold_for_inference(build(f'upernet_illama_{arch}_ade20k'))
    queries = build(f'queries/illama_{arch}_queries_ade20k')
    unmasked = build(
        f'queries/illama_{arch}_queries_ade20k', attn_mask='chunked', num_queries=0
    )
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*SIZE, 3), np.uint8)
    images = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    reading = read(queries.backbone, images)
    question = a_question(queries)
    calls = {
        'upernet': partial(predict, upernet, image),
        'queries': partial(predict, queries, image),
        'reading': partial(read, queries.backbone, images),
        'question': torch.inference_mode()(partial(ask, reading, [question])),
        'bands': partial(read_in_bands, queries.backbone, images),
        'again': partial(read_again, unmasked.backbone, images),
    }
    times = interleaved(calls, 'cpu', repeats)
    against = {'queries': 'upernet', 'question': 'reading', 'bands': 'again'}
    counts = {
        name: count_multiply_accumulates(model, SIZE).total(True, False, True)
        for name, model in (('upernet', upernet), ('queries', queries))
    }
    rows = []
    for name in NAMES:
        other = against.get(name)
        ratios = [
            a / b for a, b in zip(times[name], times.get(other, []), strict=False)
        ]
        row = dict(
            name=name,
            arch=arch,
            **summary(times[name]),
            multiply_accumulates=counts.get(name),
            against=other,
            ratio=statistics.median(ratios) if ratios else None,
        )
        rows.append(row)
        count = f'{counts[name] / 1e9:7.1f} G' if name in counts else ' ' * 9
        ratio = f'{row["ratio"]:6.2f} of {other}' if ratios else ''
        print(
            f'{arch:6}{name:10}{row["seconds"]:8.3f} s ({row["min"]:.3f} to '
            f'{row["max"]:.3f}) {count} {ratio}',
            flush=True,
        )
    return rows


def resident() -> float:
    """MiB of this process."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096 / 2**20


def stream(rows: int = STREAM_ROWS) -> dict:
    """Milliseconds and MiB at each band of a long image."""
    model = build(
        'queries/illama_tiny_queries_ade20k',
        attn_mask='chunked',
        chunk_rows=1,
        memory_rows=MEMORY_ROWS,
        pos_axes='columns',
    )
    segmentor = StreamSegmentor(model)
    generator = np.random.default_rng(0)
    found: dict[str, list[float]] = dict(milliseconds=[], kept_mib=[], resident_mib=[])
    for _ in range(rows // PATCH):
        band = generator.integers(0, 256, (PATCH, 512, 3), np.uint8)
        start = time.perf_counter()
        segmentor.push(band)
        found['milliseconds'].append(1e3 * (time.perf_counter() - start))
        found['kept_mib'].append(segmentor.kept_bytes / 2**20)
        found['resident_mib'].append(resident())
    full = found['milliseconds'][MEMORY_ROWS:]
    parts = np.array_split(full, 4)
    quarters = [statistics.median(part) for part in parts]
    print(
        f'stream of {rows} rows: medians of the quarters '
        f'{", ".join(f"{q:.1f}" for q in quarters)} ms a band, '
        f'{found["kept_mib"][-1]:.1f} MiB kept, resident '
        f'{found["resident_mib"][MEMORY_ROWS]:.0f} MiB after {MEMORY_ROWS} bands and '
        f'{found["resident_mib"][-1]:.0f} at the end'
    )
    return found


def draw(rows: list[dict], path: Path, title: str, streamed: dict) -> None:
    """Times of each size, and the stream by bands."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    archs = list(dict.fromkeys(row['arch'] for row in rows))
    figure, axes = plt.subplots(1, 3, figsize=(14, 4), constrained_layout=True)
    width = 0.8 / len(archs)
    for number, arch in enumerate(archs):
        seconds = [row['seconds'] for row in rows if row['arch'] == arch]
        places = np.arange(len(NAMES)) + number * width
        axes[0].bar(places, seconds, width, label=arch)
    axes[0].set_xticks(np.arange(len(NAMES)), NAMES)
    axes[0].set_yscale('log')
    axes[0].set(ylabel='seconds', title='an image of 512x512')
    axes[0].legend()
    bands = np.arange(1, len(streamed['milliseconds']) + 1)
    axes[1].plot(bands, streamed['milliseconds'], linewidth=0.8)
    axes[1].set(xlabel='bands of 16 rows', ylabel='ms a band', title='stream, latency')
    axes[1].set_ylim(0, 2 * np.median(streamed['milliseconds']))
    axes[2].plot(bands, streamed['kept_mib'], label='keys and values')
    grown = np.array(streamed['resident_mib']) - streamed['resident_mib'][0]
    axes[2].plot(bands, grown, label='growth of the process')
    axes[2].set(xlabel='bands of 16 rows', ylabel='MiB', title='stream, memory')
    axes[2].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--archs', nargs='+', default=['tiny', 'base'], choices=ARCHS)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench'))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [row for arch in args.archs for row in measure(arch, args.repeats)]
    streamed = stream()
    write(
        args.out,
        'decoder',
        rows,
        device='cpu',
        threads=args.threads,
        draw=partial(draw, streamed=streamed),
        stream=streamed,
    )


if __name__ == '__main__':
    main()
