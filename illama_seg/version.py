"""The version of this package, and the versions it runs on."""

from importlib.metadata import PackageNotFoundError, version

__version__ = '0.1.0'

# import name: (distributions that install it, lowest version). The second OpenMMLab
# distribution is the original one; the first continues it under the same import name.
REQUIRED = {
    'torch': (('torch',), '2.6'),
    'mmengine': (('onedl-mmengine', 'mmengine'), '0.10'),
    'mmcv': (('onedl-mmcv', 'mmcv', 'mmcv-lite'), '2.0'),
    'mmseg': (('onedl-mmsegmentation', 'mmsegmentation'), '1.2'),
}


def check_versions() -> None:
    """Check that what the package stands on is installed and recent enough.

    Raises:
        ImportError: names the package, the version found, the lowest one that works,
            and the command that installs it.
    """
    from packaging.version import Version  # which an exported file does not need

    for name, (distributions, lowest) in REQUIRED.items():
        found = [found for dist in distributions if (found := _version(dist))]
        if found and Version(found[0]).release >= Version(lowest).release:
            continue
        raise ImportError(
            f'illama_seg needs {name} >= {lowest}, found '
            f'{found[0] if found else "none"}: '
            f'pip install -U "{distributions[0]}>={lowest}"'
        )
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'OpenCV does not load: {error}. On a machine without a display: pip '
            'uninstall -y opencv-python && pip install opencv-python-headless'
        ) from error


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
