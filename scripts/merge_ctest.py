#!/usr/bin/env python3
"""Make one test run of several build trees.

usage: merge_ctest.py OUT_DIR NAME=BUILD_DIR[,ctest filter,...] ...

Writes OUT_DIR/CTestTestfile.cmake with every test that `ctest --test-dir BUILD_DIR [filter...]`
would run, called NAME/test and labelled NAME as well. `ctest --test-dir OUT_DIR` then runs all of
them in one go, with one summary at the end. A test whose program was not built fails there.
"""
import json
import os
import subprocess
import sys

NOT_BUILT = ["/bin/sh", "-c", 'echo "the program of this test was not built"; exit 1']


def listed_tests(build_dir, filters):
    out = subprocess.run(["ctest", "--test-dir", build_dir, "--show-only=json-v1", *filters],
                         check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out)["tests"]


def quoted(text):
    """A CMake bracket argument: nothing inside is interpreted."""
    fence = "="
    while f"]{fence}]" in text:
        fence += "="
    return f"[{fence}[{text}]{fence}]"


def property_text(value):
    if isinstance(value, bool):
        return "ON" if value else "OFF"
    if isinstance(value, list):
        return ";".join(str(v) for v in value)
    return str(value)


def cmake_lines(tree, test):
    name = quoted(f"{tree}/{test['name']}")
    command = " ".join(quoted(word) for word in test.get("command", NOT_BUILT))
    yield f"add_test({name} {command})\n"
    properties = {p["name"]: p["value"] for p in test.get("properties", [])}
    properties["LABELS"] = [*properties.get("LABELS", []), tree]
    for key, value in properties.items():
        yield f"set_tests_properties({name} PROPERTIES {key} {quoted(property_text(value))})\n"


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    out_dir, trees = arguments[0], arguments[1:]
    lines = []
    for tree in trees:
        name, _, rest = tree.partition("=")
        build_dir, *filters = rest.split(",")
        tests = listed_tests(build_dir, filters)
        if not tests:
            sys.exit(f"merge_ctest.py: no test in {build_dir} with {filters}")
        for test in tests:
            lines.extend(cmake_lines(name, test))
    os.makedirs(out_dir, exist_ok=True)
    with open(os.path.join(out_dir, "CTestTestfile.cmake"), "w", encoding="utf-8") as file:
        file.writelines(lines)


main(sys.argv[1:])
