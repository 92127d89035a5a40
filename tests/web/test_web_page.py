"""The page in a headless browser, and what its server refuses."""

import json
import os
import re
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
from PIL import Image

from illama_seg.apis import load_segmentor, predict
from illama_seg.errors import MissingFileError, UserError

pytest.importorskip('gradio')
pytest.importorskip('onnxruntime')

from illama_seg.apis import export_model
from illama_seg.web import build_page, models, open_models, serve


@pytest.fixture(scope='module')
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp('exported')
    return export_model(run.config, run.checkpoint, out, num_images=1)[0]


@pytest.fixture(scope='module')
def image(run):
    return next((run.data / 'images' / 'validation').iterdir())


@pytest.fixture(scope='module')
def url(run, exported, image):
    """The page with a run and a file beside each other."""
    page = build_page(open_models([run.work_dir, exported]), [image])
    yield serve(page, 0)
    page.close()


@pytest.fixture(params=[1280, 390])
def view(request, browser, url):
    view = browser.new_page(viewport=dict(width=request.param, height=900))
    view.set_default_timeout(60_000)
    view.asked = []
    view.on('request', lambda request: view.asked.append(request.url))
    view.goto(url)
    view.wait_for_selector('#image input[type=file]', state='attached')
    yield view
    view.close()


def upload(view, path):
    view.set_input_files('#image input[type=file]', str(path))


def shown(view, number):
    return view.wait_for_selector(f'#overlay_{number} img')


def test_an_image_is_segmented_by_every_model(view, run, image, tmp_path):
    upload(view, image)
    for number in range(2):
        shown(view, number)
        text = view.inner_text(f'#shares_{number}')
        assert re.search(r'80 x 64 pixels, \d+\.\d\d s', text), text
        shares = [float(s) for s in re.findall(r'([\d.]+)%', text)]
        assert sum(shares) == pytest.approx(100, abs=1)
        with view.expect_download() as download:
            view.click(f'#labels_{number}')
        file = tmp_path / f'{number}.png'
        download.value.save_as(file)
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        expected = predict(load_segmentor(run.config, run.checkpoint), image)
        # ADE20K's ids count from 1.
        assert (labels != expected + 1).mean() < 1e-3
    assert (
        view.evaluate('document.documentElement.scrollWidth')
        <= (view.viewport_size['width'])
    )
    host = view.url.split('/')[2]
    others = [url for url in view.asked if url.startswith('http') and host not in url]
    assert not others


def test_the_opacity_changes_the_overlay(view, image):
    upload(view, image)
    before = shown(view, 0).get_attribute('src')
    view.fill('#opacity input[type=number]', '1')
    view.press('#opacity input[type=number]', 'Enter')
    view.dispatch_event('#opacity input[type=range]', 'pointerup')
    view.wait_for_function(
        'before => document.querySelector("#overlay_0 img").src !== before', arg=before
    )


def test_an_example_can_be_clicked(view):
    view.click('.gallery-item, [data-testid=dataset] button')
    shown(view, 1)


HAS_A_FRAME = '() => document.querySelector("#image video").currentTime > 1'
COPY_AN_IMAGE = """async () => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [40, 30];
  const data = await new Promise(done => canvas.toBlob(done, 'image/png'));
  await navigator.clipboard.write([new ClipboardItem({'image/png': data})]);
}"""


def test_the_camera_and_the_clipboard_are_sources(browser, url):
    allowed = ['camera', 'clipboard-read', 'clipboard-write']
    context = browser.new_context(permissions=allowed)
    for source in ('camera', 'clipboard'):
        view = context.new_page()
        view.set_default_timeout(60_000)
        view.goto(url)
        if source == 'camera':  # Chromium's own test picture
            view.click('#image button[aria-label="Capture from camera"]')
            view.click('#image button:has-text("Webcam")')
            view.wait_for_selector('#image button[aria-label="capture photo"]')
            view.wait_for_function(HAS_A_FRAME)
            view.click('#image button[aria-label="capture photo"]')
        else:
            view.evaluate(COPY_AN_IMAGE)
            view.click('#image button[aria-label="Paste from clipboard"]')
        shown(view, 0)
        size = r'\d{3,} x \d{3,} pixels' if source == 'camera' else '40 x 30 pixels'
        assert re.search(size, view.inner_text('#shares_0'))
        view.close()
    context.close()


def test_a_model_that_cannot_take_an_image_stops_no_other(view, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((60, 80, 3), np.uint8))
    upload(view, tmp_path / 'a.png')
    shown(view, 0)
    text = view.inner_text('#shares_1')
    assert 'takes images of 64x64 pixels alone' in text and str(tmp_path) not in text


@pytest.mark.parametrize('kind', ['text', 'empty', 'truncated'])
def test_a_damaged_file_gets_one_line(view, kind, image, tmp_path):
    path = tmp_path / 'broken.jpg'
    whole = image.read_bytes()
    content = dict(text=b'no image', empty=b'', truncated=whole[: len(whole) // 2])
    path.write_bytes(content[kind])
    upload(view, path)
    message = view.wait_for_selector(
        '.toast-body, [data-testid=toast-body]'
    ).inner_text()
    assert 'this is no image, or a damaged one' in message
    assert 'Traceback' not in message and str(tmp_path) not in message


@pytest.mark.slow
def test_fifty_megapixels_are_segmented(browser, url, tmp_path):
    path = tmp_path / 'large.jpg'
    Image.fromarray(np.full((6400, 8000, 3), 90, np.uint8)).save(path)
    view = browser.new_page()
    view.set_default_timeout(400_000)
    view.goto(url)
    view.wait_for_selector('#image input[type=file]', state='attached')
    upload(view, path)
    shown(view, 1)
    assert '8000 x 6400 pixels' in view.inner_text('#shares_1')
    view.close()


# The server


@pytest.mark.parametrize(
    'path', ['/etc/passwd', '/proc/self/environ', '../../../etc/passwd', '{checkpoint}']
)
@pytest.mark.parametrize('door', ['file=', 'gradio_api/file='])
def test_no_file_of_the_disk_is_served(url, path, door, run):
    path = path.format(checkpoint=run.checkpoint)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f'{url}{door}{path}')
    assert error.value.code in (403, 404)


def test_no_file_of_the_disk_is_taken_as_an_upload(url, tmp_path):
    secret = tmp_path / 'secret.png'
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(secret)
    data = [{'path': str(secret), 'meta': {'_type': 'gradio.FileData'}}, 0.5]
    body = json.dumps({'data': data}).encode()
    request = urllib.request.Request(
        f'{url}gradio_api/call/segment', body, {'Content-Type': 'application/json'}
    )
    event = json.load(urllib.request.urlopen(request))['event_id']
    with urllib.request.urlopen(f'{url}gradio_api/call/segment/{event}') as answer:
        said = answer.read().decode()
    assert 'event: error' in said and 'labels' not in said


@pytest.mark.parametrize('port', [-1, 70000])
def test_a_port_that_there_is_not_is_named(port):
    with pytest.raises(UserError, match=rf'port={port}: expected a number from 0'):
        serve(None, port)


def test_the_server_listens_to_this_machine_alone(url):
    assert url.startswith('http://127.0.0.1:')


def test_uploads_lie_in_a_folder_of_this_process(url):
    assert 'illama_seg_web_' in os.environ['GRADIO_TEMP_DIR']


# Models and images


def test_what_is_neither_a_run_nor_a_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match='is not the work dir of a run'):
        open_models([tmp_path])
    with pytest.raises(MissingFileError, match=r'no file .*nothing\.onnx'):
        open_models([tmp_path / 'nothing.onnx'])


def test_two_models_of_one_name_are_told_apart(exported):
    one, two = open_models([exported, exported])
    assert one.name == exported.name and two.name == f'{exported.name} (2)'


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(np.zeros((9000, 9000), bool)).save(path)
    with pytest.raises(UserError, match='81,000,000 pixels, allowed are 64,000,000'):
        models.check_image(path)


def test_a_drawing_is_shrunk_and_never_enlarged():
    image = np.zeros((300, 10, 3), np.uint8)
    assert models.shrunk(image, 100).shape == (100, 3, 3)
    assert models.shrunk(image, 1000) is image
