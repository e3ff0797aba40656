//! Finding special and user-defined tokens in text, before anything else looks at it.
//!
//! Leftmost match first, longest at the same place. User-defined tokens are always looked for;
//! control and unknown tokens only if the caller trusts the text (`parse_special`).

use aho_corasick::{AhoCorasick, MatchKind};

use crate::error::{Error, Result};

const MAX_TOTAL_BYTES: usize = 4 << 20;

#[derive(Clone)]
pub struct Special {
    pub text: String,
    pub id: u32,
    /// Control or unknown: stands for no text.
    pub special: bool,
    pub strip_left: bool,
    pub strip_right: bool,
}

#[derive(Debug, PartialEq)]
pub enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

struct Matcher {
    tokens: Vec<Special>,
    automaton: AhoCorasick,
}

impl Matcher {
    fn new(tokens: Vec<Special>) -> Result<Option<Matcher>> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|t| t.text.as_bytes()))
            .map_err(|e| Error::limit(format!("special tokens: {e}")))?;
        Ok(Some(Matcher { tokens, automaton }))
    }

    fn split<'a>(&self, text: &'a str, each: &mut dyn FnMut(Part<'a>)) {
        let mut done = 0;
        for found in self.automaton.find_iter(text) {
            // A match may begin in white space that the token before it has swallowed.
            if found.start() < done {
                continue;
            }
            let token = &self.tokens[found.pattern().as_usize()];
            let mut before = &text[done..found.start()];
            if token.strip_left {
                before = before.trim_end();
            }
            if !before.is_empty() {
                each(Part::Text(before));
            }
            each(Part::Token(token.id));
            done = found.end();
            if token.strip_right {
                done = text.len() - text[done..].trim_start().len();
            }
        }
        if done < text.len() {
            each(Part::Text(&text[done..]));
        }
    }
}

/// Refuse tables that would make an enormous automaton.
pub fn check_sizes(sizes: impl Iterator<Item = usize>) -> Result<()> {
    let total: usize = sizes.sum();
    if total > MAX_TOTAL_BYTES {
        return Err(Error::limit(format!(
            "special tokens of {total} bytes in all, at most {MAX_TOTAL_BYTES}"
        )));
    }
    Ok(())
}

pub struct Specials {
    all: Option<Matcher>,
    user_defined: Option<Matcher>,
}

impl Specials {
    /// Tokens with empty text cannot be found and are left out.
    pub fn new(mut tokens: Vec<Special>) -> Result<Specials> {
        tokens.retain(|t| !t.text.is_empty());
        check_sizes(tokens.iter().map(|t| t.text.len()))?;
        let user_defined = tokens.iter().filter(|t| !t.special).cloned().collect();
        Ok(Specials { all: Matcher::new(tokens)?, user_defined: Matcher::new(user_defined)? })
    }

    pub fn split<'a>(&self, text: &'a str, parse_special: bool, each: &mut dyn FnMut(Part<'a>)) {
        match if parse_special { &self.all } else { &self.user_defined } {
            Some(matcher) => matcher.split(text, each),
            None if text.is_empty() => (),
            None => each(Part::Text(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special(text: &str, id: u32, special: bool, strip_right: bool) -> Special {
        Special { text: text.into(), id, special, strip_left: false, strip_right }
    }

    fn parts(tokens: &[Special], text: &'static str, parse: bool) -> Vec<Part<'static>> {
        let mut out = Vec::new();
        Specials::new(tokens.to_vec()).unwrap().split(text, parse, &mut |p| out.push(p));
        out
    }

    #[test]
    fn longest_wins_and_white_space_goes() {
        let t = [special("<a>", 1, true, true), special("<a>b", 2, true, false),
                 special("##", 3, false, false)];
        use Part::*;
        assert_eq!(parts(&t, "x<a>  y<a>b##", true),
                   [Text("x"), Token(1), Text("y"), Token(2), Token(3)]);
        assert_eq!(parts(&t, "<a>##", false), [Text("<a>"), Token(3)]);
        assert_eq!(parts(&t, "<a> ", true), [Token(1)]);
        assert!(parts(&t, "", true).is_empty());
    }
}
