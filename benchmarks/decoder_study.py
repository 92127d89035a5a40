"""Heads, latencies and questions on CamVid: what docs/decoder_study.md reports.

    python benchmarks/decoder_study.py [--groups strict_tokens ...] [--seeds 0 1]
    python benchmarks/decoder_study.py --groups   # none: the report alone

Trains each group with each seed, one after the other, into WORK_DIRS/GROUP/SEED, and
writes a file for each run into RESULTS. Then it prints the tables of all files there
are, and draws the IoU by height in the image. Needs CamVid
(tools/data/prepare_camvid.py). About 10 minutes of a core for a run, 30 with UperNet;
to use two cores, run two groups side by side with OMP_NUM_THREADS=1.
"""

from camvid_runs import Evaluation, Group, Study, main

UNMASKED = (
    'model.backbone.attn_mask=chunked',
    'model.backbone.init_cfg.checkpoint='
    'models/illama_micro_cifar10_chunked_seed0.safetensors',
)
ALONE = ('custom_hooks=[]',)  # no draw of the chunk
ROWS = 'model.backbone.chunk_rows='
HEADS = {
    'upernet': ('UperNet', 'queries/upernet_illama_micro_strict_camvid'),
    'linear': ('linear', 'queries/illama_micro_linear_camvid'),
    'tokens': ('class tokens', 'queries/illama_micro_queries_camvid'),
}
WHOLE = 'model.test_cfg.mode=whole'
STREAMED = 'rows 1, streamed'
# Places on the grid of the training, where a frame is wider. Not in the plan.
PLACED = 'neighbour positions'
NEIGHBOUR = (
    'model.backbone.rotary_grid=neighbour',
    'model.backbone.rotary_img_size=(288,384)',
)
LATENCY = 'queries/illama_micro_chunked_camvid'


def at(rows: str, given: bool = True) -> dict[str, Evaluation]:
    """Return the evaluations at a latency, of which the config has it if not given."""
    value = 'None' if rows == 'all' else rows
    options = (f'{ROWS}{value}',) if given else ()
    found = {
        f'rows {rows}': Evaluation(options),
        f'rows {rows}, whole frames': Evaluation((*options, WHOLE)),
    }
    if rows == '1':
        found[STREAMED] = Evaluation((*options, WHOLE), streamed=True)
        again = (*options, WHOLE, *NEIGHBOUR)
        found[f'rows 1, whole frames, {PLACED}'] = Evaluation(again)
        found[f'{STREAMED}, {PLACED}'] = Evaluation(again, streamed=True)
    return found


GROUPS = {
    **{
        f'strict_{key}': Group(f'strict, {title}', config)
        for key, (title, config) in HEADS.items()
    },
    **{
        # The linear head without a causal mask is 'rows_all'.
        f'unmasked_{key}': Group(f'no causal mask, {title}', config, UNMASKED)
        for key, (title, config) in HEADS.items()
        if key != 'linear'
    },
    'drawn': Group(
        'drawn',
        LATENCY,
        evaluations=at('1') | at('2') | at('3') | at('6') | at('all'),
    ),
    'rows_1': Group(
        '1 row alone', LATENCY, (*ALONE, f'{ROWS}1'), evaluations=at('1', given=False)
    ),
    'rows_all': Group(
        'all rows alone', LATENCY, ALONE, evaluations=at('all', given=False)
    ),
    'isolated': Group(
        'isolated bands of 1 row',
        LATENCY,
        (*ALONE, f'{ROWS}1', 'model.backbone.memory_rows=0'),
        evaluations=at('1', given=False),
    ),
    'question_frozen': Group(
        'frozen', 'queries/illama_micro_queries_camvid40_frozen', seeds=(0, 1, 2)
    ),
    'question_full': Group(
        'full', 'queries/illama_micro_queries_camvid40_full', seeds=(0, 1, 2)
    ),
}
CONTRASTS = [
    ('E1, primary', ('strict_tokens', ''), ('strict_linear', '')),
    ('E1', ('strict_tokens', ''), ('strict_upernet', '')),
    ('E1', ('strict_linear', ''), ('strict_upernet', '')),
    ('E1', ('unmasked_tokens', ''), ('rows_all', 'rows all')),
    ('E1', ('unmasked_tokens', ''), ('unmasked_upernet', '')),
    ('E1', ('strict_linear', ''), ('rows_all', 'rows all')),
    ('E1', ('strict_upernet', ''), ('unmasked_upernet', '')),
    ('E2, primary', ('drawn', 'rows 1'), ('isolated', 'rows 1')),
    ('E2', ('drawn', 'rows 1'), ('rows_1', 'rows 1')),
    ('E2', ('drawn', 'rows all'), ('rows_all', 'rows all')),
    ('E2', ('drawn', 'rows 1'), ('drawn', 'rows all')),
    *(
        ('E2', ('drawn', name), ('isolated', name))
        for name in (
            'rows 1, whole frames',
            STREAMED,
            f'rows 1, whole frames, {PLACED}',
            f'{STREAMED}, {PLACED}',
        )
    ),
    ('E3, primary', ('question_frozen', ''), ('question_full', '')),
]
STUDY = Study(
    'decoder_study',
    GROUPS,
    CONTRASTS,
    {
        'strict': [(f'strict_{key}', '') for key in HEADS],
        'no causal mask': [
            ('unmasked_upernet', ''),
            ('rows_all', 'rows all'),
            ('unmasked_tokens', ''),
        ],
        'bands of 1 row': [(n, 'rows 1') for n in ('drawn', 'rows_1', 'isolated')],
    },
)

if __name__ == '__main__':
    main(STUDY, __doc__)
