"""What the build adds to the wheel: configs, tools and the model index, as ``bocb_mm/.mim``."""

import shutil
import sys
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Scripts that build or test a checkout; all others travel.
FOR_CHECKOUTS = {
    'build_site.sh', 'check_results.py', 'quickstart.sh', 'release_check.sh', 'run_tests.sh',
    'setup_env.sh', 'test_matrix.sh', 'test_toolboxes.sh',
}  # fmt: skip


class MimFolder(BuildHookInterface):
    """Collects the folder; an editable install reads the checkout instead."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Name every file with its place in the wheel."""
        if version == 'editable':
            return
        root = Path(self.root)
        sys.path.insert(0, self.root)
        from bocb_mm.facts import zoo

        place = build_data['force_include']
        configs = sorted((root / 'configs').rglob('*.py'))
        tools = [f for f in sorted((root / 'tools').glob('*.*')) if f.name not in FOR_CHECKOUTS]
        for file in [*configs, *tools]:
            place[str(file)] = f'bocb_mm/.mim/{file.relative_to(root).as_posix()}'
        names = [f.relative_to(root / 'configs').with_suffix('').as_posix() for f in configs]
        texts = {zoo.METAFILE: zoo.metafile(names), 'model-index.yml': zoo.model_index()}
        self.made = Path(tempfile.mkdtemp())
        for name, text in texts.items():
            made = self.made / Path(name).name
            made.write_text(text, encoding='utf-8')
            place[str(made)] = f'bocb_mm/.mim/{name}'

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        """Remove what was made for the build."""
        if version != 'editable':
            shutil.rmtree(self.made, ignore_errors=True)
