"""Cleans the source texts of the demo model and cuts off what is held out.

Reads the files that sources.json lists (checked by SHA-256) and writes to the output folder:
  train.json    list of documents (one per chapter), what tokenizer and model are trained on
  heldout.json  {file name: text}: one contiguous piece, about 2 %, of every source, never trained on

Cleaning: line ends, typographic quotes and dashes become ASCII, hard-wrapped lines are joined to
paragraphs, italics marks go, title pages, tables of contents and chapter headings are dropped.
Paragraphs are separated by an empty line.
"""

import argparse
import hashlib
import json
import pathlib
import re
import sys
import unicodedata

HELD_OUT = (0.60, 0.62)
LONG_LINE = 150
SHORTEST_DOCUMENT = 400

CHARACTERS = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u201c": '"', "\u201d": '"',
    "\u201e": '"', "\u2013": "--", "\u2014": "--", "\u2015": "--", "\u2026": "...",
    "\u00a0": " ", "\u00ad": "", "\ufeff": "", "\ufffd": "", "_": "", "\t": " ", "\f": " ",
})
HEADING = re.compile(r"(chapter|book|part|volume|phase|act|scene)\b.{0,60}|[ivxlc]+\.?|\d{1,3}\.?",
                     re.IGNORECASE)


def normalise(raw):
    text = unicodedata.normalize("NFC", raw.decode("utf-8", "replace"))
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(CHARACTERS)
    text = re.sub(r"(?<=\S) - ?(?=\S)", "--", text)
    text = re.sub(r" *-{2,} *", "--", text)
    return text


def paragraphs_of_prose(text):
    """One string per paragraph; a line is a paragraph where lines are long, else blocks are."""
    lines = [line for line in text.split("\n") if line.strip()]
    lengths = sorted(map(len, lines))
    if lengths[int(len(lengths) * 0.95)] > LONG_LINE:
        blocks = lines
    else:
        blocks = re.split(r"\n\s*\n", text)
    for block in blocks:
        block = re.sub(r"\s+", " ", block).strip()
        if block:
            yield block


def paragraphs_of_verse(text):
    """A speech with its lines kept."""
    for block in re.split(r"\n\s*\n", text):
        block = "\n".join(re.sub(r"\s+", " ", line).strip() for line in block.strip().split("\n"))
        if block:
            yield block


def is_heading(paragraph):
    return bool(HEADING.fullmatch(paragraph))


def is_running_text(paragraph):
    """False for title lines, running heads, tables of contents, rows of asterisks."""
    if not re.search(r"[a-z]", paragraph):
        return False
    return bool(re.search(r"[.!?,;:\"'\)-]$", paragraph)) or len(paragraph) > 120


def documents(paragraphs, keep):
    """Joins paragraphs to one text per chapter."""
    chapter, found = [], []
    for paragraph in [*paragraphs, None]:
        if paragraph is None or is_heading(paragraph):
            text = "\n\n".join(chapter)
            if len(text) >= SHORTEST_DOCUMENT:
                found.append(text)
            chapter = []
        elif keep(paragraph):
            chapter.append(paragraph)
    return found


def cut(paragraphs):
    """Splits into (before, held out, after) at paragraph ends."""
    total = sum(map(len, paragraphs))
    parts, seen = ([], [], []), 0
    for paragraph in paragraphs:
        share = seen / total
        parts[(share >= HELD_OUT[0]) + (share >= HELD_OUT[1])].append(paragraph)
        seen += len(paragraph)
    return parts


def main():
    here = pathlib.Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=pathlib.Path, help="folder with the files of sources.json")
    parser.add_argument("out", type=pathlib.Path)
    arguments = parser.parse_args()

    train, held_out = [], {}
    for source in json.loads((here / "sources.json").read_text()):
        raw = (arguments.texts / source["file"]).read_bytes()
        if hashlib.sha256(raw).hexdigest() != source["sha256"]:
            sys.exit(f"{source['file']}: not the text of sources.json (SHA-256 differs)")
        verse = source["kind"] == "verse"
        split = paragraphs_of_verse if verse else paragraphs_of_prose
        keep = (lambda paragraph: True) if verse else is_running_text
        before, middle, after = cut(list(split(normalise(raw))))
        train += documents(before, keep) + documents(after, keep)
        held_out[source["file"]] = "\n\n".join(documents(middle, keep))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "train.json").write_text(json.dumps(train))
    (arguments.out / "heldout.json").write_text(json.dumps(held_out, indent=0))
    print(f"{len(train)} documents, {sum(map(len, train))} characters to train on,"
          f" {sum(map(len, held_out.values()))} held out")


if __name__ == "__main__":
    main()
