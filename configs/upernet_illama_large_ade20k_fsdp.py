"""UperNet on iLLaMA-L, ADE20K, its weights spread over the GPUs (FSDP).

The recipe of upernet_illama_large_ade20k.py; the paper has no figure for this size.
Losses and checkpoints are those of that config, and either resumes from the other's.
Memory: not measured. Of the 16 bytes to a parameter (weights, gradients, AdamW's two
moments) each GPU holds its share; the weights in use come on top.

8 GPUs: tools/dist_train.sh configs/upernet_illama_large_ade20k_fsdp.py 8
On one, python tools/train.py configs/upernet_illama_large_ade20k_fsdp.py trains as its
base does. Another model: --cfg-options runner_type=ShardedRunner with its own config.
Test:   python tools/test.py configs/upernet_illama_large_ade20k.py CHECKPOINT --tta
"""

_base_ = ['upernet_illama_large_ade20k.py']

runner_type = 'ShardedRunner'
