//! Errors with a kind that C can switch on and one line for a person.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Format = 1,
    Unsupported = 2,
    Limit = 3,
    Panic = 4,
}

#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    pub text: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn format(text: impl Into<String>) -> Error {
        Error { kind: Kind::Format, text: text.into() }
    }

    pub fn unsupported(text: impl Into<String>) -> Error {
        Error { kind: Kind::Unsupported, text: text.into() }
    }

    pub fn limit(text: impl Into<String>) -> Error {
        Error { kind: Kind::Limit, text: text.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// At most `n` bytes of `s`, cut between characters: names from files go into messages.
pub fn clip(s: &str, n: usize) -> &str {
    let mut end = n.min(s.len());
    while !s.is_char_boundary(end) {
        end -= 1;
    }
    &s[..end]
}
