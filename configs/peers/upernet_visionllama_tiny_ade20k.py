r"""UperNet on the plain VisionLLaMA-T (arXiv 2403.00522), ADE20K.

python tools/train.py configs/peers/upernet_visionllama_tiny_ade20k.py

Expected figure: not measured. Memory: not measured. From scratch: no weights for these
names are released. A classifier of one's own:
    --cfg-options model.backbone.init_cfg.type=Pretrained
    model.backbone.init_cfg.checkpoint=FILE
The paper has no Tiny.
As published (the authors' code, vit_llama_rope_*): bidirectional attention with biases,
SwiGLU without, of 512 channels between, LayerNorm, a class token at the start, no
learnable positions, half of each head's channels turned by the row, half by the column.
Not as published:
- no layer scale (theirs starts at 1e-4);
- the class token is not turned; theirs stands in row -1 and the last column;
- the channel pairs of rows come before those of columns, theirs alternate: the same
  model for other weights, so that theirs would have to be reordered;
- rows and columns are scaled to 14 x 14 patches, AS2DRoPE with its anchor at
  224 pixels; the code of their segmentation does not scale them.
"""

_base_ = ['../upernet_illama_tiny_ade20k.py']

model = dict(
    backbone=dict(
        norm='layer',
        attn_mask='bidirectional',
        cls_position='first',
        with_pos_embed=False,
        rotary_grid='axial',
        rotary_img_size=224,
        init_cfg=None,
    )
)
