//! SentencePiece's BPE, driven by the scores of the pieces.
//!
//! The text begins as its characters. Of all neighbouring pairs whose concatenation is a piece,
//! the one with the best score is joined (the leftmost of equals), until no pair is left; then
//! characters that are no piece fall back to their bytes. The Hugging Face BPE model takes a list
//! of merges with a rank each instead: two ways to build the same piece then get different ranks,
//! and results differ in rare cases. So this is done here, in a hundred lines.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use crate::error::{Error, Result};

/// U+2581, what SentencePiece writes for a space.
pub const SPACE: &str = "\u{2581}";

pub struct Spm {
    /// Pieces that text may be built from: no control, unknown, byte or user-defined token, so
    /// that plain text can never spell one of those.
    pieces: HashMap<Box<str>, (u32, f32)>,
    bytes: Option<Box<[u32; 256]>>,
    unknown: Option<u32>,
    /// No piece has a SPACE behind another character, so nothing is ever joined across the start
    /// of a word, and words can be done one by one: the same result from much smaller queues.
    by_word: bool,
}

/// A run of text that is one symbol now; empty once it was joined to its left neighbour.
struct Symbol {
    start: u32,
    end: u32,
    prev: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// What encoding one text needs, kept from word to word.
#[derive(Default)]
struct Work {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Pair>,
    after_unknown: bool,
}

struct Pair {
    score: f32,
    left: u32,
    right: u32,
    /// Both symbols' length when the pair was found: it is stale if they have grown since.
    bytes: u32,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}
impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Pair {}

impl Spm {
    pub fn new(
        pieces: HashMap<Box<str>, (u32, f32)>,
        bytes: Option<Box<[u32; 256]>>,
        unknown: Option<u32>,
    ) -> Result<Spm> {
        if bytes.is_none() && unknown.is_none() {
            return Err(Error::format(
                "vocabulary has neither the 256 byte tokens nor an unknown token",
            ));
        }
        let by_word = pieces.keys().all(|p| !p.trim_start_matches(SPACE).contains(SPACE));
        Ok(Spm { pieces, bytes, unknown, by_word })
    }

    /// Append the ids of `text`, in which spaces are already written as SPACE.
    pub fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let mut work = Work::default();
        let mut rest = text;
        while !rest.is_empty() {
            let n = if self.by_word { word_bytes(rest) } else { rest.len() };
            let (word, after) = rest.split_at(n);
            self.encode_word(word, &mut work, out);
            rest = after;
        }
    }

    fn encode_word(&self, text: &str, work: &mut Work, out: &mut Vec<u32>) {
        let Work { symbols, queue, .. } = work;
        split_characters(text, symbols);
        for left in 0..symbols.len().saturating_sub(1) as u32 {
            self.look_at(text, symbols, left, left + 1, queue);
        }
        while let Some(pair) = queue.pop() {
            let (l, r) = (&symbols[pair.left as usize], &symbols[pair.right as usize]);
            let joined = (l.end - l.start) + (r.end - r.start);
            // An empty side was swallowed; a longer sum means one side was joined elsewhere.
            if l.start == l.end || r.start == r.end || joined != pair.bytes {
                continue;
            }
            let (end, next) = (r.end, r.next);
            symbols[pair.left as usize].end = end;
            symbols[pair.left as usize].next = next;
            symbols[pair.right as usize].start = end;
            symbols[pair.right as usize].end = end;
            if next != NONE {
                symbols[next as usize].prev = pair.left;
                self.look_at(text, symbols, pair.left, next, queue);
            }
            let prev = symbols[pair.left as usize].prev;
            if prev != NONE {
                self.look_at(text, symbols, prev, pair.left, queue);
            }
        }
        self.emit(text, work, out);
    }

    fn look_at(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: u32,
        right: u32,
        queue: &mut BinaryHeap<Pair>,
    ) {
        let (start, end) = (symbols[left as usize].start, symbols[right as usize].end);
        if let Some((_, score)) = self.pieces.get(&text[start as usize..end as usize]) {
            queue.push(Pair { score: *score, left, right, bytes: end - start });
        }
    }

    fn emit(&self, text: &str, work: &mut Work, out: &mut Vec<u32>) {
        for s in work.symbols.iter().filter(|s| s.start < s.end) {
            let piece = &text[s.start as usize..s.end as usize];
            let mut unknown = false;
            if let Some((id, _)) = self.pieces.get(piece) {
                out.push(*id);
            } else if let Some(bytes) = &self.bytes {
                out.extend(piece.bytes().map(|b| bytes[b as usize]));
            } else {
                // One unknown token for a run of unknown characters.
                unknown = true;
                if !work.after_unknown {
                    out.extend(self.unknown);
                }
            }
            work.after_unknown = unknown;
        }
    }
}

/// Where the next word starts: at a SPACE behind another character.
fn word_bytes(text: &str) -> usize {
    let inside = text.len() - text.trim_start_matches(SPACE).len();
    text[inside..].find(SPACE).map_or(text.len(), |n| inside + n)
}

fn split_characters(text: &str, symbols: &mut Vec<Symbol>) {
    symbols.clear();
    symbols.extend(text.char_indices().enumerate().map(|(i, (at, c))| Symbol {
        start: at as u32,
        end: (at + c.len_utf8()) as u32,
        prev: (i as u32).wrapping_sub(1),
        next: i as u32 + 1,
    }));
    if let Some(last) = symbols.last_mut() {
        last.next = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spm(pieces: &[(&str, f32)], bytes: bool) -> Spm {
        let map = pieces.iter().enumerate().map(|(i, (p, s))| ((*p).into(), (i as u32, *s)));
        let table = bytes.then(|| Box::new(std::array::from_fn(|b| 1000 + b as u32)));
        Spm::new(map.collect(), table, Some(99)).unwrap()
    }

    fn ids(model: &Spm, text: &str) -> Vec<u32> {
        let mut out = Vec::new();
        model.encode(text, &mut out);
        out
    }

    #[test]
    fn best_score_first_then_leftmost() {
        let m = spm(&[("a", 0.), ("b", 0.), ("ab", -2.), ("ba", -1.), ("aba", -3.)], false);
        assert_eq!(ids(&m, "aba"), [4]); // "ba" first, then a + ba
        let m = spm(&[("a", 0.), ("aa", -1.)], false);
        assert_eq!(ids(&m, "aaa"), [1, 0]);
        assert_eq!(ids(&m, ""), [0u32; 0]);
    }

    #[test]
    fn word_by_word_is_the_same() {
        let pieces = [("a", -9.), ("\u{2581}", -8.), ("\u{2581}a", -1.), ("aa", -2.),
                      ("\u{2581}\u{2581}", -3.), ("\u{2581}\u{2581}a", -4.)];
        let mut words = spm(&pieces, false);
        assert!(words.by_word);
        let text = "\u{2581}aa\u{2581}\u{2581}aax\u{2581}y\u{2581}\u{2581}\u{2581}a";
        let by_word = ids(&words, text);
        words.by_word = false;
        assert_eq!(by_word, ids(&words, text));
        assert!(!spm(&[("a\u{2581}", 0.)], false).by_word);
    }

    #[test]
    fn unknown_characters() {
        let m = spm(&[("a", 0.)], false);
        assert_eq!(ids(&m, "xyaz"), [99, 0, 99]);
        let m = spm(&[("a", 0.)], true);
        assert_eq!(ids(&m, "aé"), [0, 1000 + 0xc3, 1000 + 0xa9]);
        assert!(Spm::new(HashMap::new(), None, None).is_err());
    }
}
