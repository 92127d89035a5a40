"""iLLaMA with a linear classifier over the class token, label smoothing 0.1."""

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='ClsDataPreprocessor', erasing=0.25),
    backbone=dict(type='ILLaMA', out_indices=-1, out_type='cls_token'),
    head=dict(type='LinearClsHead', label_smoothing=0.1),
)
