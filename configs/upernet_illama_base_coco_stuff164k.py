r"""UperNet on iLLaMA-B, COCO-Stuff 164k, 512x512.

mmseg's crop and 160k iterations, Table 10's learning rate and weight decay (arXiv
2404.06773, which has no figure for this data set), batch 16.
Pretrained: the released illama-base-in1k-81.6.pth.
Expected: not measured. Memory: not measured.

1 GPU:  python tools/train.py configs/upernet_illama_base_coco_stuff164k.py \
            --cfg-options train_dataloader.batch_size=16
4 GPUs: tools/dist_train.sh configs/upernet_illama_base_coco_stuff164k.py 4
Test:   python tools/test.py configs/upernet_illama_base_coco_stuff164k.py \
            CHECKPOINT --tta
"""

_base_ = [
    '_base_/upernet_illama.py',
    '_base_/coco_stuff164k.py',
    '_base_/adamw.py',
    '_base_/schedule_160k.py',
    '_base_/default_runtime.py',
]

model = dict(decode_head=dict(num_classes=171), auxiliary_head=dict(num_classes=171))
