"""Package configs and tools, which pyproject.toml cannot express."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHARED = ('configs', 'tools', 'model-index.yml')
MIM = Path('illama_seg', '.mim')  # where mim and mmengine.hub look for them


class BuildPy(build_py):
    """Copy configs and tools into the package; an editable installation links them."""

    def run(self):
        super().run()
        if self.editable_mode:
            self._link()
            return
        shutil.rmtree(Path(self.build_lib, MIM), ignore_errors=True)
        for target, source in self._shared().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_source_files(self):
        return [*super().get_source_files(), *self._shared().values()]

    def get_outputs(self, include_bytecode=True):
        return [*super().get_outputs(include_bytecode), *self._shared()]

    def get_output_mapping(self):
        return super().get_output_mapping() | self._shared()

    def _shared(self):
        """File of the build -> file of the checkout."""
        found = [
            path for name in SHARED for path in (Path(name), *Path(name).rglob('*'))
        ]
        return {
            str(Path(self.build_lib, MIM, path)): str(path)
            for path in sorted(found)
            if path.is_file() and '__pycache__' not in path.parts
        }

    def _link(self):
        shutil.rmtree(MIM, ignore_errors=True)
        MIM.mkdir()
        try:
            for name in SHARED:
                (MIM / name).symlink_to(Path('..', '..', name))
        except OSError as error:  # Windows, to an ordinary user
            self.warn(f'no links in {MIM}, so mim will not find the configs: {error}')


setup(cmdclass={'build_py': BuildPy})
