import json
from importlib.util import find_spec

import pytest
import torch
from mmengine.config import DictAction
from mmengine.registry import DATASETS, MODELS, DefaultScope
from tiny_classifier import CONFIG, OPTIONS, as_arguments, build, save
from tiny_run import CONFIG as SEGMENTOR, make_ade20k, run_tool, tiny_options

from illama_seg.apis import export_model, load_config, quantize_after_training
from illama_seg.apis.quantize import load_with_kind
from illama_seg.checkpoints import open_checkpoint
from illama_seg.studies import compare_precisions

SMALL = OPTIONS | {'train_dataloader.dataset.indices': 40}
PRECISIONS = ['fp32', 'bf16', 'W8A8, simulated']


@pytest.fixture(autouse=True)
def _half_precision_pays(monkeypatch):
    monkeypatch.setenv('ILLAMA_SEG_PRECISION', 'bfloat16')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A checkpoint in float, calibrated, and of a quantisation-aware training."""
    folder = tmp_path_factory.mktemp('quantized')
    model = build()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    plain = save(model, folder / 'run' / 'float.pth')
    exported = folder / 'calibrated.pth'
    assert quantize_after_training(
        CONFIG, plain, exported, calib=24, seed=0, cfg_options=SMALL
    ) == (16, 24)
    trained = build(OPTIONS | {'model.backbone.type': 'QuantizedILLaMA'})
    with torch.no_grad():
        trained(torch.randn(4, 3, 32, 32))
    return plain, exported, save(trained, folder / 'run' / 'trained.pth')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_what_was_calibrated_is_loaded_again_bit_by_bit(files, suffix, tmp_path):
    path = tmp_path / f'a{suffix}'
    quantize_after_training(CONFIG, files[0], path, calib=24, seed=0, cfg_options=SMALL)
    cfg = load_config(CONFIG, OPTIONS)
    model, kind = load_with_kind(cfg.copy(), path)
    assert kind == 'simulated'
    other, _ = load_with_kind(cfg.copy(), files[1])
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        assert model(images).equal(other(images))
    kept = open_checkpoint(path).weights
    for key, value in model.state_dict().items():
        assert kept[key].equal(value) and kept[key].dtype == value.dtype, key
    assert (model.backbone.blocks[0].attn.qkv.weight_step > 0).all()


def test_a_calibrated_file_holds_plain_data_and_the_classes(files):
    state = open_checkpoint(files[1]).content
    assert state['meta']['dataset_meta']['classes'] == tuple('0123456789')
    torch.load(files[1], weights_only=True)


def test_the_table_has_a_row_for_each_precision_and_file(files, tmp_path, reported):
    sources, exported = list(files), []
    if find_spec('onnxscript') and find_spec('onnxruntime'):
        path, _ = export_model(
            CONFIG, files[0], tmp_path, num_images=2, size=(8, 8), cfg_options=SMALL
        )
        sources.append(path)
        exported = ['ONNX Runtime, float32']
    numbers, table = compare_precisions(
        CONFIG,
        sources,
        out=tmp_path / 'a.json',
        images=20,
        batch_size=4,
        repeat=2,
        cfg_options=SMALL,
    )
    assert json.loads((tmp_path / 'a.json').read_text()) == numbers
    rows = numbers['rows']
    simulated = ['W8A8, simulated'] * 2
    assert [row['precision'] for row in rows] == ['fp32', 'bf16', *simulated, *exported]
    assert rows[1]['bytes'] < 0.6 * rows[0]['bytes']
    for row in rows:
        assert row['precision'] in table and row['shape'] == [4, 3, 8, 8]
        assert len(row['all_seconds']) == 2 and row['seconds'] > 0
        assert row['images'] == 20
    assert rows[0]['times_faster'] == 1
    if exported:  # the file has the model's very score
        assert rows[-1]['top1'] == rows[0]['top1']
    head, shown = reported('quantize.json', numbers)
    assert head[:2] == ['weights', 'precision'] and 'top-1, %' in head
    assert [row[1] for row in shown] == [row['precision'] for row in rows]


def test_half_precision_that_does_not_pay_has_no_row(files, tmp_path, monkeypatch):
    monkeypatch.setenv('ILLAMA_SEG_PRECISION', 'float32')
    options = dict(out=tmp_path / 'a.json', images=0, repeat=1, cfg_options=SMALL)
    numbers, _ = compare_precisions(CONFIG, files[:2], **options)
    assert [row['precision'] for row in numbers['rows']] == ['fp32', 'W8A8, simulated']
    assert numbers['half_precision'] == 'float32, by ILLAMA_SEG_PRECISION'


def test_a_half_precision_that_there_is_no_row_for_is_refused(files, monkeypatch):
    monkeypatch.setenv('ILLAMA_SEG_PRECISION', 'float16')
    with pytest.raises(ValueError, match='float16, by ILLAMA_SEG_PRECISION: 8 bits'):
        compare_precisions(CONFIG, files[:1], images=0, repeat=1, cfg_options=SMALL)


def test_accuracy_is_that_of_the_labels_guessed_right(files, tmp_path):
    plain = files[0]
    options = OPTIONS | {'test_dataloader.batch_size': 7}
    numbers, _ = compare_precisions(
        CONFIG,
        [plain],
        out=tmp_path / 'a.json',
        batch_size=1,
        repeat=1,
        cfg_options=options,
    )
    cfg = load_config(CONFIG, OPTIONS)
    model, _ = load_with_kind(cfg.copy(), plain)
    data = DATASETS.build(cfg.test_dataloader.dataset)
    hits = 0
    for sample in data:
        batch = model.data_preprocessor(dict(inputs=sample['inputs'][None]))
        with torch.inference_mode():
            guess = model(batch['inputs']).argmax()
        hits += int(guess == sample['data_samples'].gt_label)
    assert numbers['rows'][0]['top1'] == pytest.approx(100 * hits / len(data))
    assert numbers['rows'][0]['images'] == len(data) == 50


def test_a_segmentor_is_calibrated_and_compared(tmp_path):
    root = make_ade20k(tmp_path / 'ade20k')
    pairs = (option.split('=', 1) for option in tiny_options(root))
    options = {key: DictAction._parse_iterable(value) for key, value in pairs}
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(load_config(SEGMENTOR, options).model)
    model.init_weights()
    plain = tmp_path / 'a.pth'
    names = tuple(map(str, range(150)))
    meta = dict(dataset_meta=dict(classes=names, palette=[[0, 0, 0]] * 150))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), plain)
    out = tmp_path / 'b.pth'
    assert (
        quantize_after_training(
            SEGMENTOR, plain, out, calib=3, seed=0, cfg_options=options
        )[1]
        == 3
    )
    numbers, table = compare_precisions(
        SEGMENTOR,
        [plain, out],
        out=tmp_path / 'c.json',
        images=1,
        repeat=1,
        cfg_options=options,
    )
    assert [row['precision'] for row in numbers['rows']] == PRECISIONS
    assert all(row['shape'] == [1, 3, 64, 64] for row in numbers['rows'])
    assert 'mIoU' in table and numbers['rows'][0]['images'] == 1


def test_the_tool_calibrates_and_compares(files, tmp_path, capsys):
    options = ['--cfg-options', *as_arguments(SMALL)]
    out, table = tmp_path / 'a.safetensors', tmp_path / 'a.json'
    run_tool('quantize', 'ptq', CONFIG, files[0], '--out', out, '--calib', 8, *options)
    assert '16 step sizes, found with 8 images' in capsys.readouterr().out
    limits = ['--images', 0, '--repeat', 1, '--batch-size', 2, '--out', table]
    run_tool('quantize', 'eval', CONFIG, files[0], out, *limits, *options)
    assert 'W8A8, simulated' in capsys.readouterr().out and table.is_file()
    with pytest.raises(SystemExit, match=r'error: .*has step sizes already'):
        run_tool('quantize', 'ptq', CONFIG, out, '--out', tmp_path / 'b.pth', *options)


# Mistakes


def test_weights_of_another_kind_and_wrong_options_are_refused(files, tmp_path):
    plain, exported, trained = files
    out = tmp_path / 'a.pth'
    for source in (exported, trained):
        with pytest.raises(ValueError, match='has step sizes already'):
            quantize_after_training(
                CONFIG, source, out, calib=4, seed=0, cfg_options=SMALL
            )
    with pytest.raises(ValueError, match=r'a\.txt: expected a name that ends in'):
        quantize_after_training(
            CONFIG, plain, 'a.txt', calib=4, seed=0, cfg_options=SMALL
        )
    with pytest.raises(ValueError, match='seed=-1: expected a number from 0 on'):
        quantize_after_training(CONFIG, files[0], tmp_path / 'a.pth', calib=8, seed=-1)
    with pytest.raises(ValueError, match='calib=0: expected at least 1'):
        quantize_after_training(CONFIG, plain, out, calib=0, seed=0, cfg_options=SMALL)
    with pytest.raises(ValueError, match='repeat=0: expected at least 1'):
        compare_precisions(CONFIG, [plain], out=out, repeat=0, cfg_options=OPTIONS)
    with pytest.raises(ValueError, match='batch_size=0'):
        compare_precisions(CONFIG, [plain], out=out, batch_size=0, cfg_options=OPTIONS)
    assert not out.exists()


def test_weights_that_are_not_finite_are_refused(files, tmp_path):
    state = torch.load(files[0])
    state['state_dict']['backbone.blocks.1.mlp.fc3.weight'][3, 4] = torch.nan
    torch.save(state, tmp_path / 'nan.pth')
    with pytest.raises(ValueError, match=r'nan\.pth: backbone.* not finite: expected'):
        quantize_after_training(
            CONFIG,
            tmp_path / 'nan.pth',
            tmp_path / 'a.pth',
            calib=8,
            seed=0,
            cfg_options=SMALL,
        )
    assert not (tmp_path / 'a.pth').exists()


def test_another_backbone_is_refused(files, tmp_path):
    options = OPTIONS | {'model.backbone.type': 'ResNet'}
    with pytest.raises(ValueError, match=r"type='ResNet': expected 'ILLaMA'"):
        compare_precisions(
            CONFIG, [files[0]], out=tmp_path / 'a.json', cfg_options=options
        )
