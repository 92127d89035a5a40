"""Hook of mmseg that draws predictions over images of any number of bands.

It replaces the original under the same name: mmseg's reads each image by OpenCV as
three channels of 8 bits, whatever the config's loader does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.runner import Runner
from mmseg.engine.hooks import visualization_hook
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from illama_seg.datasets.decoding import as_picture, image_loader, loads_bgr


@HOOKS.register_module(force=True)
class SegVisualizationHook(visualization_hook.SegVisualizationHook):
    """Hook with the arguments of mmseg's, which reads as the data set's loader does."""

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence
    ) -> None:
        """Draw the first sample of every ``interval``-th batch."""
        step = runner.iter + batch_idx
        if self.draw and step % self.interval == 0:
            self._draw('val', outputs[0], runner.val_loop, step)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence
    ) -> None:
        """Draw each sample."""
        for sample in outputs if self.draw else ():
            self._test_index += 1
            self._draw('test', sample, runner.test_loop, self._test_index)

    def _draw(self, split: str, sample: SegDataSample, loop: Any, step: int) -> None:
        loader = image_loader(loop.dataloader.dataset)
        image = loader(dict(img_path=sample.img_path))['img']
        self._visualizer.add_datasample(
            f'{split}_{sample.img_path.rpartition("/")[2]}',
            as_picture(image, loads_bgr(loader))[..., ::-1],
            data_sample=sample,
            show=self.show,
            wait_time=self.wait_time,
            step=step,
        )
