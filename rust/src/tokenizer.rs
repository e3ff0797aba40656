//! What a tokenizer is to the outside: text to ids, and the table of pieces for the way back.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::hf::Hf;
use crate::pieces::Pieces;
use crate::vocab::Vocab;

/// Ids are below this in any tokenizer (SHAPE_MAX_VOCAB in base/bounds.h).
pub const MAX_VOCAB: usize = 1 << 22;
/// Text to encode in one call (TEXT_MAX_BYTES in text.h); offsets inside it fit 32 bits.
pub const MAX_TEXT_BYTES: usize = 64 << 20;
/// … and what normalizing may make of it.
pub const MAX_EXPANDED_BYTES: usize = 512 << 20;

pub const ADD_SPECIAL: u32 = 1;
pub const PARSE_SPECIAL: u32 = 2;

pub enum Model {
    Hf(Box<Hf>),
    Vocab(Box<Vocab>),
}

pub struct Tokenizer {
    pub model: Model,
    pub pieces: Pieces,
    /// Ids by the text that the vocabulary gives them.
    pub by_text: HashMap<Box<str>, u32>,
}

impl Tokenizer {
    /// Invalid UTF-8 is read as U+FFFD.
    pub fn encode(&self, text: &[u8], flags: u32) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Error::limit(format!(
                "text of {} bytes is longer than {MAX_TEXT_BYTES}",
                text.len()
            )));
        }
        let text = String::from_utf8_lossy(text);
        let (add, parse) = (flags & ADD_SPECIAL != 0, flags & PARSE_SPECIAL != 0);
        match &self.model {
            Model::Hf(m) => m.encode(&text, add, parse),
            Model::Vocab(m) => m.encode(&text, add, parse),
        }
    }
}
