"""A linear head on the micro iLLaMA of CIFAR-10, CamVid, for any latency.

python tools/train.py configs/queries/illama_micro_chunked_camvid.py

Each iteration draws the rows of a chunk: one checkpoint for bands of 1, 2, 3 or 6 rows
of patches, or the whole image: --cfg-options model.backbone.chunk_rows=1 when it is
used. Of one latency alone, with custom_hooks=[] and
    model.backbone.chunk_rows=1                                  a band sees all above
    model.backbone.chunk_rows=1 model.backbone.memory_rows=0     a band sees itself
"""

_base_ = ['illama_micro_linear_camvid.py']

model = dict(
    backbone=dict(
        attn_mask='chunked',
        init_cfg=dict(
            checkpoint='models/illama_micro_cifar10_chunked_seed0.safetensors'
        ),
    )
)
custom_hooks = [dict(type='ChunkRowsHook', choices=(1, 2, 3, 6, None))]
