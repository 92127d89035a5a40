"""The page itself: an image in, of each model an overlay, shares and a label image."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from illama_seg.errors import UserError
from illama_seg.images import write_image
from illama_seg.visualization.overlays import overlay
from illama_seg.web.models import (
    MAX_FILE,
    MAX_PIXELS,
    ShownModel,
    check_image,
    shrunk,
)

KEPT = 24 * 3600  # seconds, of uploads and results
SIDE = 1280  # pixels of a drawing's longer side; label images keep the image's size
EXTRA = "pip install 'gradio>=6' (the extra demo)"
TITLE = 'iLLaMA segments an image'
CSS = """
.shares { width: 100%; border-collapse: collapse; font-size: 0.9rem; }
.shares tr, .shares td { padding: 2px 6px; border: 0 !important; }
.shares .colour { width: 1.4rem; }
.shares .colour span { display: block; width: 1rem; height: 1rem; border-radius: 3px;
  border: 1px solid #8888; }
.shares .share { text-align: right; font-variant-numeric: tabular-nums; }
footer { display: none !important; }
"""


def build_page(
    models: Sequence[ShownModel], examples: Sequence[str | Path] = ()
) -> Any:
    """Build the page, an application of gradio.

    Args:
        models: at least one, from :func:`illama_seg.web.open_models`.
        examples: paths of images that a visitor can click on.

    Returns:
        ``gradio.Blocks``.

    Raises:
        UserError: if gradio is not installed.
    """
    gradio = import_gradio()
    folder = Path(tempfile.mkdtemp(prefix='labels_', dir=os.environ['GRADIO_TEMP_DIR']))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    # Uploads and results are deleted after a day.
    with gradio.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(3600, KEPT)
    ) as page:
        gradio.Markdown(
            f'# {TITLE}\nUpload an image, take one with the camera, or click on an '
            f'example. Up to {MAX_PIXELS // 10**6} megapixels and {MAX_FILE >> 20} MiB.'
        )
        with gradio.Row():
            with gradio.Column(min_width=320):
                image = gradio.Image(
                    type='filepath',
                    image_mode=None,
                    sources=['upload', 'webcam', 'clipboard'],
                    label='image',
                    elem_id='image',
                )
                _check_uploads(gradio, image)
                opacity = gradio.Slider(
                    0, 1, value=0.5, step=0.05, label='opacity', elem_id='opacity'
                )
                if examples:
                    gradio.Examples([str(path) for path in examples], image)
            columns = [
                _column(gradio, model, number) for number, model in enumerate(models)
            ]
        found = gradio.State()

        def segment(path: str | None, share: float) -> list[Any]:
            if path is None:
                return [None, *[None, '', None] * len(models)]
            results, failures = [], []
            for number, model in enumerate(models):
                try:
                    results.append(_segment(model, Path(path), folder, number))
                except UserError as error:
                    text = _without_paths(error, path, models)
                    failures.append(text)
                    failure = dict(image=None, shares=f'<p>{escape(text)}</p>')
                    results.append(failure | dict(file=None))
            if len(failures) == len(models):
                texts = '; '.join(dict.fromkeys(failures))
                raise gradio.Error(texts, duration=None, print_exception=False)
            shown = [
                value
                for model, result in zip(models, results, strict=True)
                for value in (
                    _painted(model, result, share),
                    result['shares'],
                    result['file'],
                )
            ]
            return [results, *shown]

        def paint(results: Any, share: float) -> Any:
            if not results:
                return [None] * len(models)
            return [
                _painted(model, result, share)
                for model, result in zip(models, results, strict=True)
            ]

        outputs = [part for column in columns for part in column]
        image.change(
            segment, [image, opacity], [found, *outputs], concurrency_id='models'
        )
        overlays: Any = [column[0] for column in columns]
        opacity.release(paint, [found, opacity], overlays, show_progress='hidden')
    return page


def _check_uploads(gradio: Any, image: Any) -> None:
    """Check the file of an image component before it is decoded.

    A subclass would do, but gradio writes a stub file beside the module of each.
    """
    decode = image.preprocess

    def preprocess(payload: Any) -> Any:
        try:
            if payload is not None and payload.path is not None:
                check_image(Path(payload.path))
            path = decode(payload)
            if path is not None and path != payload.path:  # written anew by gradio
                check_image(Path(path))
        except UserError as error:
            raise gradio.Error(
                f'{error}.', duration=None, print_exception=False
            ) from error
        return path

    image.preprocess = preprocess


def _column(gradio: Any, model: ShownModel, number: int) -> tuple[Any, Any, Any]:
    with gradio.Column(min_width=320):
        painted = gradio.Image(
            label=model.name,
            interactive=False,
            buttons=['download', 'fullscreen'],
            elem_id=f'overlay_{number}',
            alt_text=f'segmentation by {model.name}',
        )
        shares = gradio.HTML(elem_id=f'shares_{number}')
        file = gradio.DownloadButton(
            'label image (PNG)', size='sm', elem_id=f'labels_{number}'
        )
    return painted, shares, file


def _segment(
    model: ShownModel, path: Path, folder: Path, number: int
) -> dict[str, Any]:
    start = time.perf_counter()
    image, labels = model.segment(path)
    seconds = time.perf_counter() - start
    _delete_old(folder)
    name = f'{time.time_ns()}_{number}'
    file = folder / name / f'{path.stem}_labels.png'
    write_image(file, model.ids[labels])
    counts = np.bincount(labels.ravel(), minlength=len(model.classes))
    return dict(
        image=shrunk(image, SIDE),
        labels=shrunk(labels, SIDE, cv2.INTER_NEAREST),
        shares=_shares(model, counts / labels.size, labels.shape, seconds),
        file=str(file),
    )


def _delete_old(folder: Path) -> None:
    """Delete label images that are older than a day."""
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > KEPT:
            shutil.rmtree(old, ignore_errors=True)


def _painted(model: ShownModel, result: dict, share: float) -> np.ndarray | None:
    """Paint the labels over the image, (H, W, 3) uint8 RGB; None without any."""
    if result['image'] is None:
        return None
    painted = overlay(result['image'], result['labels'], model.palette, share)
    return painted[..., ::-1]


def _shares(
    model: ShownModel, shares: np.ndarray, size: tuple[int, ...], seconds: float
) -> str:
    """Return the legend: colour, class and share of the area, the largest first."""
    rows = []
    for number in np.argsort(-shares):
        if shares[number] > 0:
            colour = ', '.join(map(str, model.palette[number]))
            rows.append(
                f'<tr><td class="colour"><span style="background: rgb({colour})">'
                f'</span></td><td>{escape(str(model.classes[number]))}</td>'
                f'<td class="share">{shares[number]:.1%}</td></tr>'
            )
    height, width = size
    return (
        f'<table class="shares">{"".join(rows)}</table>'
        f'<p>{width} x {height} pixels, {seconds:.2f} s</p>'
    )


def _without_paths(error: UserError, path: str, models: Sequence[ShownModel]) -> str:
    """Return a message without places of files on the server."""
    text = str(error).replace(path, Path(path).name)
    for model in models:
        text = text.replace(str(model.source), model.name)
    return text.splitlines()[0]


def import_gradio() -> Any:
    """Import gradio, with a folder for uploads that is this process's own.

    Raises:
        UserError: names the extra.
    """
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    if 'GRADIO_TEMP_DIR' not in os.environ:
        folder = tempfile.mkdtemp(prefix='illama_seg_web_')
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ['GRADIO_TEMP_DIR'] = folder
    try:
        import gradio
    except ImportError as error:
        raise UserError(f'the page needs gradio: {EXTRA}') from error
    return gradio


def serve(page: Any, port: int = 7860) -> str:
    """Serve the page on this machine alone, until the process or the page ends.

    Args:
        page: from :func:`build_page`.
        port: of localhost; 0 for any that is free.

    Returns:
        URL of the page.

    Raises:
        UserError: if there is no such port, or it is in use.
    """
    if not 0 <= port <= 65535:
        raise UserError('expected a number from 0 to 65535', port=port)
    gradio = import_gradio()
    system = ['system-ui', 'sans-serif']
    theme = gradio.themes.Default(font=system, font_mono=['monospace'])
    try:
        _, url, _ = page.queue().launch(
            server_name='127.0.0.1',
            server_port=port or None,
            share=False,
            prevent_thread_lock=True,
            max_file_size=MAX_FILE,
            allowed_paths=[],
            footer_links=[],
            theme=theme,
            css=CSS,
            quiet=True,
        )
    except OSError as error:
        raise UserError(f'cannot be used: {error}', port=port) from error
    return url
