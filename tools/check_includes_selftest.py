#!/usr/bin/env python3
"""Does check_includes.py find each kind of breach, and nothing in a tree without any?"""
import pathlib
import tempfile
import unittest

import check_includes

TREE = {
    "CMakeLists.txt": "set(SHOAL_MODULES # the order\n    base\n    link\n    engine)\n",
    "src/base/CMakeLists.txt": "shoal_module(base SOURCES base.c)\n",
    "src/base/base.h": "",
    "src/base/base_impl.h": "",
    "src/base/base.c": '#include "base/base.h"\n#include "base/base_impl.h"\n#include <math.h>\n',
    "src/link/CMakeLists.txt": "set(depends base)\nshoal_module(link\n    SOURCES link.c\n"
                               "    DEPENDS ${depends} # and no more\n    TESTS link_test)\n",
    "src/link/link.h": '#include "base/base.h"\n',
    "src/link/link.c": '#include "link/link.h"\n',
    "src/engine/CMakeLists.txt": "shoal_module(engine SOURCES engine.c DEPENDS link)\n",
    "src/engine/engine.h": "",
    "src/engine/engine.c": '#include "base/base.h"\n#include "link/link.h"\n#include "x.pb.h"\n',
    "tests/sim/sim_main.c": '#include "engine/engine.h"\n',
}


class CheckIncludes(unittest.TestCase):
    def breaches(self, **changes):
        """Of the tree above with some files changed; names with __ for / and _dot_ for the dot."""
        files = TREE | {k.replace("__", "/").replace("_dot_", "."): v for k, v in changes.items()}
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text, encoding="utf-8")
            return check_includes.check(root)

    def assert_one(self, part, **changes):
        found = self.breaches(**changes)
        self.assertEqual(len(found), 1, found)
        self.assertIn(part, found[0])

    def test_good_tree(self):
        self.assertEqual(self.breaches(), [])

    def test_upward_include(self):
        self.assert_one('"engine/engine.h" of engine', src__link__link_dot_c='#include "engine/engine.h"\n')

    def test_upward_dependency(self):
        self.assert_one("not above base",
                        src__base__CMakeLists_dot_txt="shoal_module(base SOURCES base.c DEPENDS link)\n")

    def test_undeclared_dependency(self):
        self.assert_one("not among the dependencies",
                        src__engine__CMakeLists_dot_txt="shoal_module(engine SOURCES e.c DEPENDS base)\n")

    def test_foreign_impl(self):
        self.assert_one("belongs to base alone", src__link__link_dot_c='  # include "base/base_impl.h"\n')
        self.assert_one("belongs to base alone", tests__sim__sim_main_dot_c='#include "base/base_impl.h"\n')

    def test_header_without_module(self):
        self.assert_one("is no file below src/", src__link__link_dot_c='#include "link.h"\n')

    def test_missing_header(self):
        self.assert_one("is no file below src/", src__link__link_dot_c='#include "base/gone.h"\n')

    def test_same_name_twice(self):
        self.assert_one("has the name of", tests__sim__base_dot_c="")

    def test_folder_outside_the_order(self):
        self.assert_one("is not in SHOAL_MODULES", src__extra__extra_dot_c="")

    def test_tests_may_use_what_they_declare(self):
        changes = {
            "src__base__CMakeLists_dot_txt": "shoal_module(base SOURCES base.c)\n"
                                             "shoal_test(a_test MODULE base DEPENDS link TIMEOUT 5)\n",
            "src__base__a_test_dot_c": '#include "link/link.h"\n',
        }
        self.assertEqual(self.breaches(**changes), [])
        changes["src__base__a_test_dot_c"] = '#include "engine/engine.h"\n'
        self.assert_one("engine/engine.h", **changes)

    def test_support_is_for_tests_that_declare_it(self):
        changes = {
            "src__base__CMakeLists_dot_txt": "shoal_module(base SOURCES base.c)\n"
                                             "shoal_test(a_test MODULE base DEPENDS testing)\n",
            "src__base__a_test_dot_c": '#include "tiny.h"\n',
            "tests__support__tiny_dot_h": "",
        }
        self.assertEqual(self.breaches(**changes), [])
        self.assert_one('"tiny.h"', **changes, src__base__base_dot_c='#include "tiny.h"\n')
        changes["src__base__CMakeLists_dot_txt"] = "shoal_module(base SOURCES base.c)\n"
        self.assert_one('"tiny.h"', **changes)


if __name__ == "__main__":
    unittest.main()
