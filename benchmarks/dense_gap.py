"""Masks and positions on CamVid: what docs/dense_gap.md reports as P1 and P2.

    python benchmarks/dense_gap.py [--groups keep open_quarter ...] [--seeds 0 1]
    python benchmarks/dense_gap.py --groups   # none: the report alone

Trains each group with each seed, one after the other, into WORK_DIRS/GROUP/SEED, and
writes a file for each run into RESULTS. Needs CamVid (tools/data/prepare_camvid.py) and
the files of models/. About 30 minutes of a core for a run, 10 with a linear head; to
use two cores, run two groups side by side with OMP_NUM_THREADS=1.
"""

from camvid_runs import Evaluation, Group, Study, main

UPERNET = 'upernet_illama_micro_camvid'
LINEAR = 'queries/illama_micro_linear_camvid'
FLOAT32 = 'optim_wrapper.type=OptimWrapper'
START = 'model.backbone.init_cfg.checkpoint=models/illama_micro_cifar10_'
CAUSAL = (
    FLOAT32,
    'model.backbone.attn_mask=soft',
    f'{START}linear_seed{{pretraining}}.safetensors',
)
TWIN = (
    FLOAT32,
    'model.backbone.attn_mask=soft',
    'model.backbone.soft_mask_rate=1.0',
    f'{START}open_seed{{pretraining}}.safetensors',
)
# The images of the pretraining had 112x112 pixels.
POSITIONS = (
    'model.backbone.rotary_grid=neighbour',
    'model.backbone.rotary_img_size=112',
)
# Every image by 180 degrees, mirrored or not: the raster begins at its lower right.
TURNED = (
    'train_dataloader.dataset.pipeline.5.prob=[0.5,0.5]',
    'train_dataloader.dataset.pipeline.5.direction=[diagonal,vertical]',
)
OPENS = 'upernet_illama_micro_open_camvid'
# Two pretrainings: seeds 0 and 1 start from the first, 2 and 3 from the second.
TWO = (0, 0, 1, 1)
AGAIN = {'': Evaluation(turned=True)}

GROUPS = {
    'keep': Group('keep', UPERNET, CAUSAL),
    'open_quarter': Group('open over a quarter', OPENS, CAUSAL),
    'positions': Group('positions', UPERNET, (*CAUSAL, *POSITIONS)),
    'both': Group('both', OPENS, (*CAUSAL, *POSITIONS)),
    'open_at_once': Group(
        'open at once',
        UPERNET,
        (*CAUSAL, 'model.backbone.soft_mask_rate=1.0'),
        seeds=(0, 1),
    ),
    'last_half': Group(
        'last half of the blocks open over a quarter',
        OPENS,
        (*CAUSAL, 'model.backbone.soft_mask_blocks=3'),
        seeds=(0, 1),
    ),
    'causal_upernet': Group(
        'causal, UperNet',
        UPERNET,
        CAUSAL,
        pretrainings=TWO,
        shared={0: 'keep', 1: 'keep'},
    ),
    'twin_upernet': Group('twin, UperNet', UPERNET, TWIN, pretrainings=TWO),
    'causal_linear': Group('causal, linear', LINEAR, CAUSAL, pretrainings=TWO),
    'twin_linear': Group('twin, linear', LINEAR, TWIN, pretrainings=TWO),
    'causal_turned': Group(
        'causal, linear, turned',
        LINEAR,
        (*CAUSAL, *TURNED),
        evaluations=AGAIN,
        pretrainings=TWO,
    ),
    'twin_turned': Group(
        'twin, linear, turned',
        LINEAR,
        (*TWIN, *TURNED),
        evaluations=AGAIN,
        pretrainings=TWO,
    ),
}
CONTRASTS = [
    ('P2, primary', ('open_quarter', ''), ('keep', '')),
    ('P2', ('positions', ''), ('keep', '')),
    ('P2', ('both', ''), ('keep', '')),
    ('P2, a look', ('open_at_once', ''), ('keep', '')),
    ('P2, a look', ('last_half', ''), ('keep', '')),
    ('P1, primary', ('twin_upernet', ''), ('causal_upernet', '')),
    ('P1', ('twin_linear', ''), ('causal_linear', '')),
    ('P1', ('twin_turned', ''), ('causal_turned', '')),
]
STUDY = Study(
    'dense_gap',
    GROUPS,
    CONTRASTS,
    {
        title: [(f'{kind}_{part}', '') for kind in ('causal', 'twin')]
        for title, part in (
            ('UperNet', 'upernet'),
            ('linear', 'linear'),
            ('linear, images turned', 'turned'),
        )
    },
)

if __name__ == '__main__':
    main(STUDY, __doc__)
