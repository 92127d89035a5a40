"""The example of docs/your_own_dataset.md, run as it stands there."""

import json
import shlex
import shutil

import cv2
import numpy as np
import pytest
import tifffile
from pages import ROOT, blocks, calls, section
from PIL import Image
from tiny_run import model_options, run_tool

pytestmark = pytest.mark.slow
PAGE = (ROOT / 'docs' / 'your_own_dataset.md').read_text()
EXAMPLE = section(PAGE, 'The example')
COLOURS = np.array([(150, 110, 70), (60, 160, 60), (220, 60, 60), (9, 9, 9)], np.uint8)
SIZE = 60, 80


def make_fields(folder, count):
    """Photographs with labels in colours: soil, rows of crop, a weed; an odd corner."""
    rng = np.random.default_rng(0)
    for kind in ('photos', 'colour_labels'):
        (folder / kind).mkdir()
    for number in range(count):
        labels = np.zeros(SIZE, np.uint8)
        labels[:, :: 2 + number % 3] = 1
        labels[20:40, 10 + number : 30 + number] = 2
        labels[:4, :4] = 3
        photo = COLOURS[labels] + rng.integers(0, 30, (*SIZE, 3), np.uint8)
        cv2.imwrite(str(folder / f'photos/field_{number}.jpg'), photo[..., ::-1])
        Image.fromarray(COLOURS[labels]).save(
            folder / f'colour_labels/field_{number}.png'
        )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Where every block of the example was run, in its order."""
    folder = tmp_path_factory.mktemp('example')
    shutil.copytree(ROOT / 'configs', folder / 'configs')
    make_fields(folder, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks(EXAMPLE):
            if block.file:
                (folder / block.file).write_text(block.text)
            elif block.language == 'python':
                exec(compile(block.text, 'the page', 'exec'), {})
            else:
                run_calls(f'```bash\n{block.text}```')
    return folder


def run_calls(text):
    for call in calls(text):
        python, tool, *arguments = shlex.split(call, comments=True)
        assert python == 'python'
        tool = tool.removeprefix('tools/').removesuffix('.py')
        try:
            run_tool(tool, *arguments)
        except SystemExit as end:  # check_dataset's, which says how many faults
            assert not end.code, f'{call}: {end.code}'


def test_colours_become_class_numbers_and_every_fifth_image_is_for_validation(folder):
    labels = np.asarray(Image.open(folder / 'labels/field_0.png'))
    assert labels[:4, :4].tolist() == [[255] * 4] * 4
    assert set(np.unique(labels)) == {0, 1, 2, 255}
    for kind, suffix in (('images', '.jpg'), ('labels', '.png')):
        names = {
            split: {
                path.stem for path in (folder / f'data/fields/{kind}' / split).iterdir()
            }
            for split in ('train', 'val')
        }
        assert len(names['train']) == 4 and len(names['val']) == 2
        assert not names['train'] & names['val'], suffix


def test_the_check_finds_no_fault_and_draws_what_the_page_names(folder):
    report = json.loads(
        (folder / 'work_dirs/fields/data_check/report.json').read_text()
    )
    assert report['faults'] == 0 and report['splits']['train']['images'] == 4
    assert list(report['splits']['val']['classes']) == ['soil', 'crop', 'weed']


def test_every_file_that_the_page_names_is_there(folder):
    for path in (
        'work_dirs/fields/data_check/contact_sheet.png',
        'work_dirs/fields/browse_train.png',
        'work_dirs/trial/iter_4.pth',
        'work_dirs/trial/test/scores.json',
        'work_dirs/trial/test/per_class.csv',
        'work_dirs/trial/test/confusion.png',
        'outputs/fields/overlay',
        'outputs/fields/labels',
    ):
        assert (folder / path).exists() and path.split('/')[-1] in PAGE, path


def test_prediction_files_are_class_numbers_and_score_as_the_test_did(folder):
    (file, *_) = sorted((folder / 'outputs/fields/labels').rglob('*.png'))
    labels = np.asarray(Image.open(file))
    assert labels.shape == SIZE and set(np.unique(labels)) <= {0, 1, 2}
    tested, from_files = (
        json.loads((folder / 'work_dirs/trial' / name / 'scores.json').read_text())
        for name in ('test', 'evaluation')
    )
    assert tested['mIoU'] == pytest.approx(from_files['mIoU'])


# Other bands and depths


def make_bands(folder, name, write):
    """Data of a config of the page, from the photographs of the example."""
    for kind in ('images', 'labels'):
        shutil.copytree(folder / 'data/fields' / kind, folder / 'data' / name / kind)
    for photo in sorted((folder / 'data' / name / 'images').rglob('*.jpg')):
        write(photo.with_suffix(''), cv2.imread(str(photo)))
        photo.unlink()


def with_infrared(path, image):
    infrared = np.where(image[..., 1:2] > image[..., 2:], 200, 60).astype(np.uint8)
    bands = np.concatenate([image[..., ::-1], infrared], -1)
    options = dict(photometric='rgb', planarconfig='contig')
    tifffile.imwrite(path.with_suffix('.tif'), bands, **options)


def as_12_bits(path, image):
    cv2.imwrite(str(path.with_suffix('.png')), image.astype(np.uint16) * 16)


@pytest.mark.parametrize(
    ('name', 'write', 'highest'),
    [('fields_infrared', with_infrared, 255), ('fields_12bit', as_12_bits, 4080)],
)
def test_other_bands_and_depths_are_checked_and_learnt(
    name, write, highest, folder, monkeypatch
):
    monkeypatch.chdir(folder)
    make_bands(folder, name, write)
    part = section(PAGE, 'Other bands and depths')
    for block in blocks(part):
        if block.file == f'configs/{name}.py':
            (folder / block.file).write_text(block.text)
        elif block.language == 'bash':
            (call,) = (call for call in calls(part) if name in call)
            run_calls(f'```bash\n{call}\n```')
    report = json.loads(
        (folder / f'work_dirs/{name}/data_check/report.json').read_text()
    )
    assert report['faults'] == 0 and not report['findings'], report['findings']
    assert 0.8 * highest < report['splits']['train']['values']['highest'] <= highest
    schedule = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1']
    run_tool(
        *('train', f'configs/{name}.py', '--work-dir', f'work_dirs/{name}'),
        *('--cfg-options', *model_options(48), *schedule, 'param_scheduler=[]'),
        'model.data_preprocessor.size=(256,256)',
        *('train_dataloader.batch_size=2', 'default_hooks.checkpoint.interval=1'),
        *('train_dataloader.num_workers=0', 'val_dataloader.num_workers=0'),
        *(f'{s}_dataloader.persistent_workers=False' for s in ('train', 'val')),
    )
    assert (folder / f'work_dirs/{name}/iter_1.pth').is_file()
