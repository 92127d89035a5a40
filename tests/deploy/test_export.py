"""A trained model becomes a file that gives the same labels, also without torch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_classifier
import torch
from mmengine.dataset import Compose
from tiny_run import ROOT, run_tool, start_fresh

from illama_seg.apis import (
    build_tester,
    export,
    export_model,
    load_config,
    load_segmentor,
    predict,
)
from illama_seg.deploy import ExportedModel, equality
from illama_seg.errors import MissingFileError, UserError
from illama_seg.files import digest_of
from illama_seg.studies import run_benchmark
from illama_seg.studies.peak_memory import peak_of_file

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')


@pytest.fixture(scope='module')
def onnx_file(run, tmp_path_factory):
    """Exported for one size, that of the windows."""
    out = tmp_path_factory.mktemp('onnx')
    return export_model(run.config, run.checkpoint, out, num_images=2)


@pytest.fixture(scope='module')
def openvino_file(run, tmp_path_factory):
    """Exported for any size."""
    pytest.importorskip('openvino')
    out = tmp_path_factory.mktemp('openvino')
    return export_model(
        run.config, run.checkpoint, out, to='openvino', dynamic=True, num_images=2
    )


def picture(*size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


def test_the_comparison_is_written(onnx_file):
    path, report = onnx_file
    assert json.loads(Path(f'{path}.report.json').read_text()) == report
    assert report['images'] == 2 and report['changed_labels'] == 0
    assert report['largest_relative_difference_of_logits'] < 1e-5
    assert report['scores'][0] == report['scores'][1] and report['score'] == 'mIoU'
    assert report['bytes'] == path.stat().st_size and report['size'] == [64, 64]


def test_nothing_else_is_left_in_the_folder(onnx_file):
    path, _ = onnx_file
    names = {file.name for file in path.parent.iterdir()}
    assert names == {path.name, f'{path.name}.json', f'{path.name}.report.json'}


@pytest.mark.parametrize('blend', ['mean', 'hann', 'gaussian'])
@pytest.mark.parametrize('full_size', [False, True])
def test_the_labels_are_those_of_predict(run, onnx_file, blend, full_size):
    model = load_segmentor(run.config, run.checkpoint)
    file = ExportedModel(onnx_file[0])
    model.test_cfg.stride = file.sidecar.windows['stride'] = [43, 20]
    image = picture(120, 150)
    expected = predict(model, image, full_size, blend)
    found = file.segment(image, full_size, blend)
    assert (found != expected).mean() < 1e-3
    assert len(np.unique(expected)) > 1


@pytest.mark.slow
@pytest.mark.parametrize('size', [(64, 80), (60, 150), (150, 60), (16, 16)])
def test_a_file_for_any_size_segments_any_image(run, openvino_file, size):
    model = load_segmentor(run.config, run.checkpoint)
    image = picture(*size)
    found = ExportedModel(openvino_file[0]).segment(image)
    assert (found != predict(model, image)).mean() < 1e-3


def test_the_tools_take_a_file_in_place_of_a_checkpoint(
    run, onnx_file, tmp_path, capsys
):
    images = run.data / 'images' / 'validation'
    for name, weights in dict(ours=run.checkpoint, file=onnx_file[0]).items():
        run_tool('infer', run.config, weights, images, '--out', tmp_path / name)
        options = ['--work-dir', tmp_path / f'{name}_test']
        run_tool('test', run.config, weights, *options)
    for name in ('validation_0.png', 'validation_1.png'):
        ours, theirs = (
            cv2.imread(str(tmp_path / who / 'labels' / name), -1)
            for who in ('ours', 'file')
        )
        assert (ours != theirs).mean() < 1e-3
    scores = [
        json.loads((tmp_path / f'{who}_test' / 'scores.json').read_text())['mIoU']
        for who in ('ours', 'file')
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.2)


def test_a_file_for_any_size_is_compared_at_others(openvino_file):
    sizes = [tuple(size) for size in openvino_file[1]['other_sizes']]
    assert sizes == [(96, 64), (64, 83), (128, 45)]


@pytest.mark.slow
def test_a_file_that_differs_at_another_size_alone_is_not_written(
    run, tmp_path, monkeypatch
):
    logits = ExportedModel.logits
    wrong = lambda file, x: logits(file, x) + 0.1 * (x.shape[3] > 64)  # noqa: E731
    monkeypatch.setattr(ExportedModel, 'logits', wrong)
    with pytest.raises(UserError, match='differs from the model, nothing was written'):
        export_model(run.config, run.checkpoint, tmp_path, dynamic=True, num_images=1)
    assert not list(tmp_path.iterdir())


def test_an_image_that_is_too_thin_gets_no_labels_of_the_one_before(openvino_file):
    file = ExportedModel(openvino_file[0])
    file.logits(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(UserError, match='does not run on images of 16x16 pixels'):
        file.logits(np.zeros((1, 3, 16, 16), np.float32))
    assert file.logits(np.zeros((1, 3, 64, 64), np.float32)).shape[1] == 150


def test_the_benchmark_times_a_file_and_measures_its_memory(run, onnx_file, tmp_path):
    path = tmp_path / 'benchmark.json'
    numbers, text = run_benchmark(run.config, onnx_file[0], out=path, repeat=1)
    (row,) = numbers['timings']
    # Python, NumPy and the runtime; torch alone takes 200.
    assert 20 < row['peak_memory_mib'] < 200 and row['seconds'] > 0
    assert 'process without torch' in text
    with pytest.raises(UserError, match='alone, got 9x9'):
        peak_of_file(onnx_file[0], (1, 3, 9, 9))


def test_the_tool_exports_and_says_how_large_the_file_is(run, tmp_path, capsys):
    run_tool('export', run.config, run.checkpoint, '--out', tmp_path, '--num-images', 1)
    assert f'{Path(run.config).stem}.onnx: 1.0 MiB' in capsys.readouterr().out


# Without torch

LIBRARIES = ('numpy', 'numpy.libs', 'cv2', 'lazy_loader', 'onnxruntime', 'flatbuffers')
LIBRARIES += ('opencv_python.libs', 'opencv_python_headless.libs', 'packaging')
LIBRARIES += ('google', 'coloredlogs', 'sympy', 'mpmath', 'humanfriendly')


@pytest.fixture(scope='module')
def bare(tmp_path_factory):
    """Python's own library, NumPy, OpenCV and ONNX Runtime; no torch."""
    folder = tmp_path_factory.mktemp('bare')
    site = Path(np.__file__).parents[1]
    for name in LIBRARIES:
        if (site / name).exists():
            (folder / name).symlink_to(site / name)
    (folder / 'illama_seg').symlink_to(ROOT / 'illama_seg')
    return folder


def without_torch(bare, *words):
    return subprocess.run(
        [sys.executable, '-S', *map(str, words)],
        env={**os.environ, 'PYTHONPATH': str(bare)},
        capture_output=True,
        text=True,
    )


def test_a_file_runs_where_there_is_no_torch(run, onnx_file, bare, tmp_path):
    assert without_torch(bare, '-c', 'import torch').returncode
    assert without_torch(bare, '-c', 'import mmengine').returncode
    images = run.data / 'images' / 'validation'
    words = '-m', 'illama_seg.deploy', onnx_file[0], images, '--out', tmp_path / 'a'
    done = without_torch(bare, *words)
    assert done.returncode == 0, done.stderr
    run_tool('infer', run.config, run.checkpoint, images, '--out', tmp_path / 'b')
    for name in ('validation_0.png', 'validation_1.png'):
        ours, theirs = (
            cv2.imread(str(tmp_path / who / 'labels' / name), -1) for who in 'ab'
        )
        assert (ours != theirs).mean() < 1e-3
    shares = [json.loads((tmp_path / w / 'summary.json').read_text()) for w in 'ab']
    assert shares[0].keys() == shares[1].keys()


def test_a_bad_image_stops_no_other(run, onnx_file, bare, tmp_path):
    folder = tmp_path / 'images'
    shutil.copytree(run.data / 'images' / 'validation', folder)
    (folder / 'broken.jpg').write_bytes(b'no image')
    words = '-m', 'illama_seg.deploy', onnx_file[0], folder, '--out', tmp_path / 'out'
    done = without_torch(bare, *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2:] == [
        'error: not done:',
        f'{folder}/broken.jpg is no image, or a damaged one: replace it',
    ]
    assert len(list((tmp_path / 'out' / 'labels').iterdir())) == 2


# Refusals


def test_a_file_that_differs_is_not_written_and_the_stages_are_named(
    run, tmp_path, monkeypatch
):
    monkeypatch.setitem(equality.BOUNDS, 'float32', equality.Bounds(0.0, 1.0, 100))
    with pytest.raises(UserError) as error:
        export_model(run.config, run.checkpoint, tmp_path / 'out', num_images=1)
    text = str(error.value)
    assert 'nothing was written: logits differ by' in text
    for stage in ('backbone, output 3', 'neck, output 0', 'logits'):
        assert f'  {stage}: ' in text
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(to='tflite'), 'expected one of onnx, openvino'),
        (dict(size=(64, 64), dynamic=True), 'one size, or any'),
        (dict(size=(0, 64)), 'expected height and width'),
        (dict(size=(80, 64)), r'the windows of .* are \[64, 64\]: leave size out'),
        (dict(half=True, int8=True), 'one of half and int8'),
        (dict(calibrate=0), 'at least 1 image'),
        (dict(num_images=0), 'at least 1 image'),
        (
            dict(cfg_options={'model.test_cfg.mode': 'whole'}),
            r'set dynamic, or size=\(HEIGHT, WIDTH\)',
        ),
        (
            dict(cfg_options={'model.data_preprocessor.test_cfg': dict(size=(64, 64))}),
            'set model.data_preprocessor.test_cfg=None',
        ),
    ],
    ids=str,
)
def test_an_argument_that_does_not_fit_is_refused(run, tmp_path, options, text):
    with pytest.raises(UserError, match=text):
        export_model(run.config, run.checkpoint, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_more_calibration_images_than_there_are_is_refused(run, tmp_path):
    pytest.importorskip('nncf')
    with pytest.raises(
        UserError, match=r'calibrate=99: the training data has 4 images'
    ):
        export_model(run.config, run.checkpoint, tmp_path, int8=True, calibrate=99)
    assert not list(tmp_path.iterdir())


def test_missing_validation_data_names_the_way_out(run, tmp_path):
    gone = {'val_dataloader.dataset.data_root': str(tmp_path / 'gone')}
    with pytest.raises(MissingFileError, match=r'name other images \(images\)'):
        export_model(run.config, run.checkpoint, tmp_path, cfg_options=gone)


def test_images_without_annotations_serve_as_well(run, tmp_path):
    images = [run.data / 'images' / 'training']
    _, report = export_model(
        run.config, run.checkpoint, tmp_path, images=images, num_images=3
    )
    assert report['images'] == 3 and report['scores'] is None


def test_a_missing_library_is_named_with_the_extra(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    text = r'needs onnxscript: pip install onnx .*the extra deploy'
    with pytest.raises(UserError, match=text):
        export_model(run.config, run.checkpoint, tmp_path)


def test_another_size_than_that_of_the_file_is_named(onnx_file):
    file = ExportedModel(onnx_file[0])
    with pytest.raises(
        UserError, match=r'64x64 pixels alone, got 20x64: export for any size'
    ):
        file.segment(picture(20, 70), full_size=True)


@pytest.mark.parametrize(
    'kind', ['onnx', pytest.param('openvino', marks=pytest.mark.slow)]
)
def test_an_image_that_is_too_thin_is_named(kind, request):
    path, _ = request.getfixturevalue(f'{kind}_file')
    file = ExportedModel(path)
    text = (
        'pixels alone' if kind == 'onnx' else 'does not run on images of 13x64 pixels'
    )
    with pytest.raises(UserError, match=text):
        file.segment(picture(33, 200))


def test_a_file_of_other_classes_than_the_config_is_refused(run, onnx_file):
    cfg = load_config(run.config, {'model.decode_head.num_classes': 7})
    with pytest.raises(UserError, match=r'150 classes, but model\.decode_head\.num'):
        load_segmentor(cfg, onnx_file[0])


def test_an_image_of_other_channels_is_refused(onnx_file):
    with pytest.raises(UserError, match=r'shape \(5, 6, 4\): expected \(H, W, 3\)'):
        ExportedModel(onnx_file[0]).segment(np.zeros((5, 6, 4), np.uint8))


@pytest.mark.parametrize(
    ('to', 'options'),
    [
        pytest.param('onnx', dict(half=True), marks=pytest.mark.slow),
        ('onnx', dict(int8=True, calibrate=4)),
        pytest.param('openvino', dict(half=True), marks=pytest.mark.slow),
        pytest.param('openvino', dict(int8=True, calibrate=4), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_fewer_bits_make_a_smaller_file_of_nearly_the_same_labels(
    run, onnx_file, tmp_path, to, options
):
    pytest.importorskip(dict(onnx='onnxruntime', openvino='nncf')[to])
    path, report = export_model(
        run.config, run.checkpoint, tmp_path, to=to, num_images=2, **options
    )
    assert report['bytes'] < 0.8 * onnx_file[1]['bytes']
    precision = 'int8' if 'int8' in options else 'float16'
    assert report['precision'] == precision
    assert 0 < report['largest_relative_difference_of_logits'] < 0.3
    if precision == 'float16':  # 8 bits change labels of a model that is not trained
        image = picture(120, 150)
        whole = ExportedModel(onnx_file[0]).segment(image)
        assert (ExportedModel(path).segment(image) != whole).mean() < 0.02


@pytest.mark.slow
def test_8_bits_that_come_out_otherwise_on_this_processor_are_refused(run, tmp_path):
    path, _ = export_model(
        run.config, run.checkpoint, tmp_path, int8=True, calibrate=4, num_images=1
    )
    values = json.loads(Path(f'{path}.json').read_text())
    ExportedModel(path)
    values['probe']['logits'] = [0.8 * x for x in values['probe']['logits']]
    Path(f'{path}.json').write_text(json.dumps(values))
    with pytest.raises(UserError, match='8-bit products are wrong on this processor'):
        ExportedModel(path)


@pytest.mark.parametrize('annotated', [True, False])
@pytest.mark.parametrize('precision', ['float32', 'float16', 'int8'])
def test_a_file_whose_logits_are_not_finite_is_a_fault(precision, annotated):
    found = equality.Equality(precision, ['a', 'b'], True)
    labels = np.zeros((4, 4), np.uint8)
    truth = labels if annotated else None
    for value in (np.nan, 1.0):  # a later image hides nothing
        logits = np.ones((1, 2, 4, 4)), np.full((1, 2, 4, 4), value)
        found.add(logits, (labels, labels), truth)
    assert any('not finite' in text for text in found.faults())


def test_a_file_that_gives_other_sizes_is_an_error_of_the_user():
    found = equality.Equality('float32', ['a', 'b'], True)
    sizes = [np.ones((1, 2, 4, side)) for side in (4, 5)]
    with pytest.raises(UserError, match='images of one size alone'):
        found.add_size((64, 64), *sizes)


def test_8_bits_without_annotations_are_judged_by_their_labels():
    found = equality.Equality('int8', ['a', 'b'], True)
    logits = np.ones((1, 2, 4, 4))
    found.add((logits, logits), (np.zeros((4, 4), int), np.ones((4, 4), int)))
    assert '100.00% of the labels differ' in found.faults()[0]


def test_a_classifier_is_exported_and_classifies_as_its_config_does(tmp_path):
    plain = tiny_classifier.build()
    for parameter in plain.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    checkpoint = tiny_classifier.save(plain, tmp_path / 'run' / 'float.pth')
    options = dict(cfg_options=tiny_classifier.OPTIONS, num_images=6)
    path, report = export_model(
        tiny_classifier.CONFIG, checkpoint, tmp_path / 'out', **options
    )
    assert report['score'] == 'top-1' and report['changed_labels'] == 0
    cv2.imwrite(str(tmp_path / 'a.png'), picture(9, 13))
    shares = ExportedModel(path).classify(cv2.imread(str(tmp_path / 'a.png')))
    cfg = load_config(tiny_classifier.CONFIG, tiny_classifier.OPTIONS)
    steps = Compose(cfg.test_dataloader.dataset.pipeline)
    inputs = steps(dict(img_path=str(tmp_path / 'a.png')))['inputs']
    batch = plain.data_preprocessor(dict(inputs=inputs[None]))['inputs']
    with torch.no_grad():
        expected = plain(batch)[0].softmax(0).numpy()
    np.testing.assert_allclose(shares, expected, rtol=1e-3, atol=1e-5)
    done = run_module(path, tmp_path / 'a.png', '--out', tmp_path / 'classes')
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'classes' / 'summary.json').read_text())['a.png']
    assert next(iter(found)) == '0123456789'[expected.argmax()]
    scores = []
    for weights in (checkpoint, path):
        cfg = load_config(
            tiny_classifier.CONFIG, tiny_classifier.OPTIONS, work_dir=str(tmp_path)
        )
        start_fresh()
        scores.append(build_tester(cfg, weights).test())
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


def run_module(*words):
    return subprocess.run(
        [sys.executable, '-m', 'illama_seg.deploy', *map(str, words)],
        capture_output=True,
        text=True,
    )


def test_a_folder_that_cannot_be_written_ends_at_the_first_image(
    run, onnx_file, tmp_path
):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'labels').touch()
    done = run_module(onnx_file[0], run.data / 'images' / 'validation', '--out', out)
    assert done.returncode == 2 and 'cannot be written' in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_full_disk_is_one_line_and_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*words):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(export, 'to_onnx', full)
    text = r'out=.*: cannot be written \(No space left on device\), nothing was kept'
    with pytest.raises(UserError, match=text):
        export_model(run.config, run.checkpoint, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_refused(onnx_file, tmp_path):
    path = tmp_path / 'model.onnx'
    path.write_bytes(onnx_file[0].read_bytes()[:2000])
    values = json.loads(Path(f'{onnx_file[0]}.json').read_text())
    values['digests'] = {path.name: digest_of(path, 'sha256')}
    Path(f'{path}.json').write_text(json.dumps(values))
    with pytest.raises(UserError, match='cannot be read by onnxruntime'):
        ExportedModel(path)
