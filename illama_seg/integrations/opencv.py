"""OpenCV's limit on the pixels of an image."""

import os


def limit_pixels() -> None:
    """Set OpenCV's limit, unless the user did, to that of ``datasets.images``.

    OpenCV reads the variable once, when it is first imported. Its own default is twice
    this limit.
    """
    if not os.environ.get('OPENCV_IO_MAX_IMAGE_PIXELS'):
        os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'] = str(2**29)
