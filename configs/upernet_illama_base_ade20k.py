r"""UperNet on iLLaMA-B, ADE20K: arXiv 2404.06773, Table 10.

Expected (the paper's figure): 45.1 mIoU with the multi-scale and flip test (--tta),
163.222M parameters. Pretrained: the released illama-base-in1k-81.6.pth.
Memory: not measured.

1 GPU:  python tools/train.py configs/upernet_illama_base_ade20k.py \
            --cfg-options train_dataloader.batch_size=16
8 GPUs: tools/dist_train.sh configs/upernet_illama_base_ade20k.py 8
Test:   python tools/test.py configs/upernet_illama_base_ade20k.py CHECKPOINT --tta
"""

_base_ = [
    '_base_/upernet_illama.py',
    '_base_/ade20k.py',
    '_base_/adamw.py',
    '_base_/schedule_160k.py',
    '_base_/default_runtime.py',
]
