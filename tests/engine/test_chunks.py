"""Rows of a chunk are drawn anew, the same after a stop and in every process."""

from collections import Counter

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from tiny_run import start_fresh

from illama_seg.backbones import ILLaMA
from illama_seg.engine import ChunkRowsHook
from illama_seg.errors import UserError

SAMPLER = dict(type='DefaultSampler', shuffle=False)


class Model(BaseModel):
    """Records the rows of every call."""

    def __init__(self, **options):
        super().__init__()
        arch = dict(embed_dims=8, num_layers=1, num_heads=2)
        self.backbone = ILLaMA(
            arch, img_size=8, patch_size=2, out_indices=-1, **options
        )
        self.rows, self.val_rows = [], []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        rows = self.rows if mode == 'loss' else self.val_rows
        rows.append(self.backbone.chunk_rows)
        if mode != 'loss':
            return [None]
        return dict(loss=self.backbone(torch.stack(inputs))[0].square().mean())


def train(tmp_path, model, iterations=6, resume=False, **hook):
    start_fresh()
    data = [dict(inputs=torch.ones(3, 8, 8)) for _ in range(4)]
    loader = dict(dataset=data, sampler=SAMPLER, batch_size=1)
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=2),
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=[],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2)),
        custom_hooks=[dict(type='ChunkRowsHook', choices=[1, 2, None], **hook)],
        log_level='ERROR',
        resume=resume,
    )
    runner.train()
    return model


def test_the_rows_are_drawn_for_each_iteration_and_the_configs_in_validation(tmp_path):
    model = train(tmp_path, Model(attn_mask='chunked', chunk_rows=3))
    hook = ChunkRowsHook([1, 2, None])
    assert model.rows == [hook.rows_at(n) for n in range(6)]
    assert len(set(model.rows)) > 1 and set(model.val_rows) == {3}
    assert model.backbone.chunk_rows == 3


def test_a_resumed_run_draws_the_same(tmp_path):
    whole = train(tmp_path / 'whole', Model(attn_mask='chunked'))
    train(tmp_path / 'parts', Model(attn_mask='chunked'), iterations=4)
    again = train(tmp_path / 'parts', Model(attn_mask='chunked'), resume=True)
    assert again.rows == whole.rows[4:]


def test_every_choice_is_as_likely_and_a_seed_gives_other_draws():
    draws = [
        [ChunkRowsHook([1, 2, None], s).rows_at(n) for n in range(3000)] for s in (0, 1)
    ]
    assert draws[0] != draws[1]
    assert all(900 < count < 1100 for count in Counter(draws[0]).values())


@pytest.mark.parametrize('choices', [[], [0], [2, -1]])
def test_choices_that_are_none_are_refused(choices):
    with pytest.raises(UserError, match='ChunkRowsHook choices='):
        ChunkRowsHook(choices)


def test_a_model_of_another_mask_is_refused(tmp_path):
    with pytest.raises(UserError, match="no backbone has the mask 'chunked'"):
        train(tmp_path, Model(attn_mask='strict'))
