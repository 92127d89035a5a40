"""What the report's page looks for beside a run, and what it says of it."""

from __future__ import annotations

from illama_seg.studies.section import Section

BY_CLASS = {'': 'class', 'IoU': 'IoU, %', 'Acc': 'accuracy, %'}
OVERALL = {
    'mIoU': 'mIoU, %',
    'mAcc': 'mean accuracy, %',
    'aAcc': 'pixel accuracy, %',
    'final_score': 'final score, %',
    'images': 'images',
    'checkpoint': 'checkpoint',
}
CONFUSED = {
    'annotated': 'annotated',
    'predicted': 'predicted',
    'share': 'share of the class, %',
    'pixels': 'pixels',
}
PERCENT = ('mIoU', 'accuracy/top1')

SECTIONS = (
    Section(
        title='Training and validation',
        files='result.json',
        about='The curves of the log and, of a segmentation, the last checkpoint on '
        'the validation set.',
        command='python tools/analysis/report.py {run}',
        pictures={
            'curves.png': 'Training loss and validation metric over the training',
            'predictions.png': 'Rows of image, ground truth and prediction, from the '
            'image predicted best to the worst',
        },
        facts=OVERALL
        | {
            'accuracy/top1': 'top-1 of the last validation, %',
            'accuracy/top5': 'top-5 of the last validation, %',
            'baselines.colour of the pixel alone': 'mIoU of the colour alone, %',
            'baselines.place in the image alone': 'mIoU of the place alone, %',
        },
        tables={'classes': BY_CLASS},
    ),
    Section(
        title='Scores',
        files='scores.json',
        about='Of the test data.',
        command='python tools/test.py {config} {checkpoint} --work-dir {run}/test',
        kind='segmentation',
        facts=OVERALL,
        tables={'classes': BY_CLASS},
    ),
    Section(
        title='Scores',
        files='[0-9]*_[0-9]*.json',
        about='Of the test data.',
        command='python tools/test.py {config} {checkpoint} --work-dir {run}/test',
        kind='classification',
        facts={'accuracy/top1': 'top-1, %', 'accuracy/top5': 'top-5, %'},
    ),
    Section(
        title='Confusion',
        files='confusion.json',
        about='The pairs of classes that are confused most, by their pixels.',
        pictures={
            'confusion.png': 'Confusion matrix: share of each annotated class that is '
            'predicted as each class'
        },
        tables={'most_confused.by_pixels': CONFUSED},
    ),
    Section(
        title='Calibration',
        files='calibration*.json',
        about='Is it right as often as it is sure? Errors are fractions, all: as the '
        'model is; after: with its temperature fitted to images held out.',
        command='python tools/analysis/calibration.py {config} {checkpoint}',
        pictures={
            'calibration.png': 'Reliability diagrams with the histogram of confidence, '
            'before and after temperature scaling'
        },
        tables={
            'models': {
                'name': 'model',
                'all.samples': 'samples',
                'all.accuracy': 'accuracy',
                'all.confidence': 'confidence',
                'all.ece': 'ECE, all',
                'all.mce': 'MCE, all',
                'before.ece': 'ECE, before',
                'after.ece': 'ECE, after',
                'before.nll': 'NLL, before',
                'after.nll': 'NLL, after',
                'temperature': 'temperature',
            }
        },
    ),
    Section(
        title='Shape or texture',
        files='shape_bias*.json',
        about='Decisions on cue-conflict images; the shape bias is the share of shape '
        'among those for shape or texture.',
        command='python tools/analysis/shape_bias.py {config} {checkpoint} '
        '--images DIR --out {run}/shape_bias',
        kind='classification',
        pictures={
            'shape_bias.png': 'Share of decisions for the shape by category, and a '
            'line at the whole share of each model'
        },
        tables={
            'models': {
                'name': 'model',
                'images': 'images',
                'shape': 'shape',
                'texture': 'texture',
                'other': 'other',
                'shape_bias': 'shape bias',
                'interval': '95 % interval',
            }
        },
    ),
    Section(
        title='Rank of the attention maps',
        files='attention_rank*.json',
        about='How many singular values of a map make most of their sum, a number for '
        'each head; softmax: before the mask, masked: after it.',
        command='python tools/analysis/attention_rank.py {config} {checkpoint}',
        kind='classification',
        pictures={
            'attention_rank.png': 'Cumulative singular values of attention maps, and '
            'the index of each layer'
        },
        tables={
            'summary': {'model': 'model', 'maps': 'maps', 'tokens': 'N'}
            | {f'layers.{layer}': f'layer {layer}' for layer in range(1, 25)}
        },
    ),
    Section(
        title='8 bits',
        files='quantiz*.json',
        about='Medians over passes; in products: share of the time in matrix products '
        'and convolutions.',
        command='python tools/quantize.py eval {config} {checkpoint}',
        facts={
            'machine': 'machine',
            'capability': 'instructions',
            'threads': 'threads',
            'torch': 'PyTorch',
        },
        tables={
            'rows': {
                'name': 'weights',
                'precision': 'precision',
                'seconds': 'seconds',
                'times_faster': 'times faster',
                'in_products': 'in products',
                'bytes': 'bytes',
                'images': 'images',
                'top1': 'top-1, %',
                'mIoU': 'mIoU, %',
                'aAcc': 'pixel accuracy, %',
            }
        },
    ),
    Section(
        title='Loss landscape',
        files='loss_landscape*.json',
        about='Loss on a plane of two random directions around the weights; within 1: '
        'the share of the grid at most 1 above the centre.',
        command='python tools/analysis/loss_landscape.py {config} {checkpoint}',
        pictures={
            'loss_landscape.png': 'Surface and contours of the loss around the weights'
        },
        tables={
            'summary': {
                'model': 'model',
                'data': 'data',
                'images': 'images',
                'centre': 'centre',
                'lowest': 'lowest',
                'median': 'median',
                'highest': 'highest',
                'within_1': 'within 1',
            }
        },
    ),
    Section(
        title='Complexity',
        files='complexity*.json',
        about='Multiply-accumulates of one self-attention.',
        tables={
            'rows': {
                'tokens': 'N',
                'dims': 'D',
                'closed_form.bidirectional': 'bidirectional, Table 2',
                'counted.bidirectional': 'counted',
                'closed_form.causal': 'causal, Table 2',
                'counted.causal': 'counted, soft mask',
                'counted.strict': 'counted, strict',
            }
        },
    ),
    Section(
        title='Speed and memory',
        files='benchmark.json',
        about='Medians over passes of the model; seconds to a batch.',
        command='python tools/analysis/benchmark.py {config} {checkpoint}',
        facts={
            'device': 'device',
            'threads': 'threads',
            'precision': 'precision',
            'shape': 'image, pixels',
            'attention': 'attention',
            'torch': 'PyTorch',
            'parameters.all': 'parameters',
        },
        tables={
            'timings': {
                'batch_size': 'images',
                'seconds': 'seconds',
                'fastest': 'fastest',
                'slowest': 'slowest',
                'images_per_second': 'images/s',
                'peak_memory_mib': 'peak memory, MiB',
                'out_of_memory': 'out of memory',
            },
            'multiply_accumulates': {
                'shape': 'image, pixels',
                'attention_products': 'with attention products',
                'auxiliary_head': 'with auxiliary head',
                'count': 'multiply-accumulates',
            },
        },
    ),
    Section(
        title='Beside other runs',
        files='compare.json',
        about='The last figures; mean and standard deviation over seeds.',
        command='python tools/analysis/compare.py {run} RUN --out {run}/compare',
        pictures={
            'compare.png': 'Training loss and validation metric of each run over the '
            'training'
        },
        tables={
            'summary': {'': 'run'}
            | {f'{key}.mean': f'{key.split("/")[-1]}, %' for key in PERCENT}
            | {f'{key}.std': 'deviation' for key in PERCENT}
            | {'loss.mean': 'training loss'}
        },
    ),
    Section(
        title='Classes beside other runs',
        files='classes.json',
        about='IoU in percent, mean over the runs of a line.',
    ),
    Section(title='Images beside other runs', files='images.json'),
)
