"""What README shows is what is there."""

import os
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.conversation import settings_of

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


class ReadmeTests(SynchronousTestCase):
    def test_its_rules_are_read(self):
        folder = Path(self.mktemp())
        (folder / "static").mkdir(parents=True)
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(folder)
        blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
        self.assertEqual(len(blocks), 2)
        for shown in blocks:
            names = [rule.name for rule in settings_of(shown).rules.rules]
            self.assertEqual(names, re.findall(r"name: ([\w ]+)", shown))

    def test_its_links_lead_somewhere(self):
        links = re.findall(r"\]\(([^)]+)\)", README)
        self.assertTrue(links)
        for link in links:
            self.assertTrue((ROOT / link).exists(), link)

    def test_its_make_targets_are_in_the_makefile(self):
        makefile = (ROOT / "Makefile").read_text()
        for target in re.findall(r"make ([\w-]+)", README):
            if target not in ("run", "test", "test-compiled", "check", "bench"):
                continue
            self.assertRegex(makefile, rf"(?m)^{target}:")
