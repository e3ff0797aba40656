#!/usr/bin/env python3
"""Hold the C files against the order of modules.

usage: check_includes.py [ROOT]

SHOAL_MODULES in ROOT/CMakeLists.txt is the order; src/M/CMakeLists.txt says what module M
DEPENDS on. What must hold:
  - M depends only on modules above it in the order;
  - a file of src/M includes headers of M, of its dependencies and of theirs; a test of M may also
    use what its shoal_test() line DEPENDS on (SUPPORT names the libraries of tests/support);
  - includes are written "module/header.h" and name a file that exists (generated *.pb.h excepted);
  - x_impl.h is included by its own module only;
  - no two C files of src/ and tests/ have the same name.
Prints one line for each breach; exit status 1 if there is any.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.M)
COMMAND = re.compile(r"\b(set|list|shoal_module|shoal_test)[ \t]*\(([^()]*)\)", re.S)
SUPPORT = {"testing", "false_alarms"}
KEYWORDS = {"SOURCES", "DEPENDS", "LIBS", "TESTS", "MODULE", "LABEL", "TIMEOUT"}


def words_of(arguments):
    return re.sub(r"#[^\n]*", "", arguments).split()


def cmake_commands(path):
    """The set, list, shoal_module and shoal_test commands as lists of words, comments dropped."""
    text = re.sub(r"^[ \t]*#[^\n]*", "", path.read_text(encoding="utf-8"), flags=re.M)
    for match in COMMAND.finditer(text):
        yield match.group(1), words_of(match.group(2))


def expanded(words, variables):
    for word in words:
        match = re.fullmatch(r"\$\{(\w+)\}", word)
        if match:
            yield from variables.get(match.group(1), [])
        else:
            yield word


def keyword_values(words, keyword):
    values, inside = [], False
    for word in words:
        if word in KEYWORDS:
            inside = word == keyword
        elif inside:
            values.append(word)
    return values


class Module:
    """What src/NAME/CMakeLists.txt says: dependencies of the module, and of its tests."""

    def __init__(self, path):
        self.depends, self.test_depends = set(), set()
        variables = {}
        for command, words in cmake_commands(path):
            if command == "set" and words:
                variables[words[0]] = words[1:]
            elif command == "list" and words[:1] == ["APPEND"]:
                variables.setdefault(words[1], []).extend(words[2:])
            elif command == "shoal_module":
                self.depends.update(expanded(keyword_values(words, "DEPENDS"), variables))
            elif command == "shoal_test":
                self.test_depends.update(expanded(keyword_values(words, "DEPENDS"), variables))


class Checker:
    def __init__(self, root):
        self.root = root
        self.breaches = []
        self.order = self.read_order()
        self.modules = {
            name: Module(root / "src" / name / "CMakeLists.txt")
            for name in self.order
            if (root / "src" / name / "CMakeLists.txt").exists()
        }

    def breach(self, where, what):
        self.breaches.append(f"{where}: {what}")

    def read_order(self):
        for command, words in cmake_commands(self.root / "CMakeLists.txt"):
            if command == "set" and words[:1] == ["SHOAL_MODULES"]:
                return words[1:]
        sys.exit(f"check_includes.py: {self.root}/CMakeLists.txt has no set(SHOAL_MODULES …)")

    def reach(self, names):
        """The modules in names, and all that these depend on."""
        seen, todo = set(), list(names)
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo.extend(self.modules[name].depends if name in self.modules else ())
        return seen

    def check_order(self):
        for name, module in self.modules.items():
            for other in sorted(module.depends):
                if other not in self.order:
                    self.breach(f"src/{name}/CMakeLists.txt", f"depends on unknown module {other}")
                elif self.order.index(other) >= self.order.index(name):
                    self.breach(f"src/{name}/CMakeLists.txt",
                                f"depends on {other}, which is not above {name} in SHOAL_MODULES")
        for folder in sorted((self.root / "src").iterdir()):
            if folder.is_dir() and folder.name not in self.order and any(folder.rglob("*.c")):
                self.breach(f"src/{folder.name}", "is not in SHOAL_MODULES")

    def check_include(self, where, header, own, allowed):
        """allowed: modules whose headers may be used, None for all of them."""
        if header.endswith(".pb.h"):
            return
        module, slash, _ = header.partition("/")
        if not slash or not (self.root / "src" / header).is_file():
            self.breach(where, f'"{header}" is no file below src/ (write "module/header.h")')
        elif module != own and header.endswith("_impl.h"):
            self.breach(where, f'"{header}" belongs to {module} alone')
        elif allowed is not None and module not in allowed:
            self.breach(where, f'"{header}" of {module}, which is not among the dependencies of {own}')

    def check_file(self, path, own, allowed, beside=None):
        """beside: a folder whose headers are included by their name alone."""
        where = path.relative_to(self.root)
        for header in INCLUDE.findall(path.read_text(encoding="utf-8")):
            if beside is None or not (beside / header).is_file():
                self.check_include(where, header, own, allowed)

    def check_sources(self):
        for name, module in self.modules.items():
            allowed = self.reach({name})
            test_allowed = allowed | self.reach(module.test_depends)
            support = self.root / "tests" / "support" if SUPPORT & module.test_depends else None
            for path in c_files(self.root / "src" / name):
                if path.stem.endswith("_test"):
                    self.check_file(path, name, test_allowed, support)
                else:
                    self.check_file(path, name, allowed)
        for path in c_files(self.root / "tests"):
            self.check_file(path, None, None, path.parent)

    def check_names(self):
        seen = {}
        for path in c_files(self.root / "src") + c_files(self.root / "tests"):
            where = path.relative_to(self.root)
            if path.name in seen:
                self.breach(where, f"has the name of {seen[path.name]}")
            seen.setdefault(path.name, where)


def c_files(folder):
    return sorted(p for p in folder.rglob("*") if p.suffix in (".c", ".h") and p.is_file())


def check(root):
    checker = Checker(root)
    checker.check_order()
    checker.check_sources()
    checker.check_names()
    return checker.breaches


if __name__ == "__main__":
    tree = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1])
    found = check(tree.resolve())
    print("\n".join(found) if found else "includes follow the order of modules")
    sys.exit(1 if found else 0)
