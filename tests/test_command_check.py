"""`streamproxy check`: what it says of configurations, and its exit status."""

from tests.test_command import CommandTestCase


class CheckTests(CommandTestCase):
    def test_a_file_that_is_in_order(self):
        config = self.write("a.yaml", "hold: always\n")
        for arguments in ((config,), ("-c", config)):
            self.assertEqual(self.run_it("check", *arguments), (0, f"{config}: in order\n".encode(), ""))

    def test_all_errors_of_all_files_are_told_and_files_in_order_are_named(self):
        first = self.write("a.yaml", "hold: x\nlimits: {hed: 1}\n")
        second = self.write("b.yaml", "")
        third = self.write("c.yaml", "listen: 'tcp:1'\nrules: [{}]\n")
        status, out, err = self.run_it("check", first, second, third)
        self.assertEqual((status, out), (1, f"{second}: in order\n".encode()))
        self.assertEqual(
            [line.partition(": ")[0] for line in err.splitlines()], [f"{first}:1:7", f"{first}:2:10", f"{third}:2:9"]
        )

    def test_what_only_a_look_at_files_and_endpoints_tells_is_told_as_well_and_together(self):
        bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        pem = self.write("bad.pem", bad)
        config = self.write("a.yaml", f"listen: 'unix:x:bogus=1'\ntls: {{trusted_ca: {pem}}}\n")
        status, out, err = self.run_it("check", config)
        self.assertEqual((status, out, err.count("\n")), (1, b"", 2), err)
        self.assertIn("listen: expected a Twisted endpoint", err)
        self.assertIn("bad.pem", err)

    def test_keys_may_be_set(self):
        config = self.write("a.yaml", "")
        status, _, err = self.run_it("check", config, "--set", "hold=x")
        self.assertEqual((status, err), (1, "--set hold=x: expected needed or always, got 'x'\n"))

    def test_a_script_that_can_not_be_loaded_is_told(self):
        self.write("s.py", "def request(flow:\n")
        status, _, err = self.run_it("check", self.write("a.yaml", "scripts: [s.py]\n"))
        self.assertEqual(status, 1)
        self.assertIn("s.py", err)

    def test_it_wants_a_file(self):
        self.refused("check", words="no configuration: expected a FILE")

    def test_it_makes_no_file(self):
        self.run_it("check", self.write("a.yaml", "log: {file: x.log}\n"))
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["a.yaml", "system.pem"])
