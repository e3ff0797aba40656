//! Tokenizers from vocabulary tables, as GGUF files and SentencePiece models state them.
//!
//! Text goes through: special tokens cut out (`special`), then for SPM a space in front and
//! SentencePiece BPE (`spm`), for BPE perhaps NFC, the split patterns of the kind (`pre`), the byte
//! alphabet and the Hugging Face BPE model.

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{
    Model as _, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, SplitDelimiterBehavior,
};

use crate::error::{clip, Error, Result};
use crate::pieces::{self, Pieces};
use crate::pre;
use crate::special::{Part, Special, Specials};
use crate::spm::{Spm, SPACE};
use crate::tokenizer::{Model, Tokenizer, MAX_VOCAB};

pub const NORMAL: u8 = 1;
pub const UNKNOWN: u8 = 2;
pub const CONTROL: u8 = 3;
pub const USER_DEFINED: u8 = 4;
pub const UNUSED: u8 = 5;
pub const BYTE: u8 = 6;

pub const STRIP_LEFT: u8 = 1;
pub const STRIP_RIGHT: u8 = 2;

const MAX_MERGES: usize = 1 << 23;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SpacePrefix {
    None,
    Every,
    First,
}

/// The tables, borrowed from the caller; texts are checked to be UTF-8 here.
pub struct Tables<'a> {
    pub tokens: Vec<&'a [u8]>,
    pub scores: &'a [f32],
    pub types: &'a [u8],
    pub strips: &'a [u8],
    pub merges: Vec<&'a [u8]>,
    pub pre: &'a str,
    pub space_prefix: SpacePrefix,
    pub unknown: Option<u32>,
    pub prepend: Option<u32>,
    pub prepend_if_usual: Option<u32>,
    pub append: Option<u32>,
    pub is_spm: bool,
}

struct Bpe {
    model: BPE,
    split: Sequence,
    nfc: bool,
}

enum Core {
    Spm(Spm, SpacePrefix),
    Bpe(Box<Bpe>),
}

pub struct Vocab {
    core: Core,
    specials: Specials,
    prepend: Option<u32>,
    append: Option<u32>,
}

pub fn open(t: &Tables) -> Result<Tokenizer> {
    let texts = check(t)?;
    let core = if t.is_spm { spm_core(t, &texts)? } else { bpe_core(t, &texts)? };
    let mut specials = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        if matches!(t.types[i], UNKNOWN | CONTROL | USER_DEFINED) {
            let strips = t.strips.get(i).copied().unwrap_or(0);
            specials.push(Special {
                text: text.to_string(),
                id: i as u32,
                special: t.types[i] != USER_DEFINED,
                strip_left: strips & STRIP_LEFT != 0,
                strip_right: strips & STRIP_RIGHT != 0,
            });
        }
    }
    let usual = t.is_spm || pre::by_name(t.pre)?.add_bos;
    let prepend = t.prepend.or(t.prepend_if_usual.filter(|_| usual));
    let vocab = Vocab { core, specials: Specials::new(specials)?, prepend, append: t.append };
    let mut by_text = HashMap::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        by_text.entry(Box::from(*text)).or_insert(i as u32);
    }
    Ok(Tokenizer { model: Model::Vocab(Box::new(vocab)), pieces: make_pieces(t, &texts), by_text })
}

fn check<'a>(t: &Tables<'a>) -> Result<Vec<&'a str>> {
    let n = t.tokens.len();
    if n == 0 || n > MAX_VOCAB {
        return Err(Error::limit(format!("vocabulary of {n} tokens, expected 1 to {MAX_VOCAB}")));
    }
    let begin = t.prepend.or(t.prepend_if_usual);
    let ids = [("unknown", t.unknown), ("beginning", begin), ("end", t.append)];
    for (what, id) in ids {
        if id.is_some_and(|id| id as usize >= n) {
            return Err(Error::format(format!("{what} token {} of {n}", id.unwrap_or(0))));
        }
    }
    if let Some(i) = t.types.iter().position(|ty| !(NORMAL..=BYTE).contains(ty)) {
        return Err(Error::format(format!("token {i} is of unknown type {}", t.types[i])));
    }
    let utf8 = |(i, bytes): (usize, &&'a [u8])| {
        std::str::from_utf8(bytes)
            .map_err(|_| Error::format(format!("text of token {i} is not valid UTF-8")))
    };
    t.tokens.iter().enumerate().map(utf8).collect()
}

fn spm_core(t: &Tables, texts: &[&str]) -> Result<Core> {
    let mut map = HashMap::with_capacity(texts.len());
    let mut bytes = Box::new([u32::MAX; 256]);
    for (i, text) in texts.iter().enumerate() {
        match t.types[i] {
            NORMAL | UNUSED => {
                let score = t.scores[i];
                if !score.is_finite() {
                    return Err(Error::format(format!("score of token {i} is {score}")));
                }
                map.entry(Box::from(*text)).or_insert((i as u32, score));
            }
            BYTE => {
                let byte = pieces::byte_of_name(text).ok_or_else(|| {
                    Error::format(format!("byte token {i} is {:?}, expected <0xHH>", clip(text, 32)))
                })?;
                bytes[byte as usize] = i as u32;
            }
            _ => (),
        }
    }
    let table = bytes.iter().all(|id| *id != u32::MAX).then_some(bytes);
    Ok(Core::Spm(Spm::new(map, table, t.unknown)?, t.space_prefix))
}

fn bpe_core(t: &Tables, texts: &[&str]) -> Result<Core> {
    if t.merges.len() > MAX_MERGES {
        return Err(Error::limit(format!("{} merges, at most {MAX_MERGES}", t.merges.len())));
    }
    let kind = pre::by_name(t.pre)?;
    let mut ids = ahash_map(texts.len());
    for (i, text) in texts.iter().enumerate() {
        ids.entry(text.to_string()).or_insert(i as u32);
    }
    let mut merges = Vec::with_capacity(t.merges.len());
    for (i, merge) in t.merges.iter().enumerate() {
        let text = std::str::from_utf8(merge)
            .map_err(|_| Error::format(format!("merge {i} is not valid UTF-8")))?;
        // The byte alphabet has no space, so the first one that is not at the start separates.
        let (left, right) = text
            .split_once(' ')
            .filter(|(l, r)| !l.is_empty() && !r.is_empty())
            .ok_or_else(|| Error::format(format!("merge {i} is not two tokens")))?;
        merges.push((left.to_string(), right.to_string()));
    }
    let model = BPE::builder()
        .vocab_and_merges(ids, merges)
        .ignore_merges(kind.ignore_merges)
        // Little gain (3 % on prose), and without it a tokenizer is immutable to the last bit.
        .cache_capacity(0)
        .build()
        .map_err(|e| Error::format(format!("merges: {e}")))?;
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    for pattern in kind.patterns {
        let split =
            Split::new(SplitPattern::Regex(pattern), SplitDelimiterBehavior::Isolated, false)
                .map_err(|e| Error::format(format!("pre-tokenizer {}: {e}", t.pre)))?;
        steps.push(split.into());
    }
    steps.push(ByteLevel::new(false, true, false).into());
    Ok(Core::Bpe(Box::new(Bpe { model, split: Sequence::new(steps), nfc: kind.nfc })))
}

/// The map type of the BPE builder, which the library does not re-export.
fn ahash_map(n: usize) -> tokenizers::models::bpe::Vocab {
    let mut map = tokenizers::models::bpe::Vocab::default();
    map.reserve(n);
    map
}

fn make_pieces(t: &Tables, texts: &[&str]) -> Pieces {
    let mut out = Pieces::with_capacity(texts.len());
    let table = pieces::byte_level_table();
    for (i, text) in texts.iter().enumerate() {
        match t.types[i] {
            UNKNOWN | CONTROL => out.push(text.as_bytes(), pieces::SPECIAL | pieces::ADDED),
            USER_DEFINED => out.push(text.as_bytes(), pieces::ADDED),
            BYTE if t.is_spm => match pieces::byte_of_name(text) {
                Some(byte) => out.push(&[byte], 0),
                None => out.push(text.as_bytes(), 0),
            },
            _ if t.is_spm => out.push(text.replace(SPACE, " ").as_bytes(), 0),
            _ => out.push(&pieces::bytes_of_byte_level(text, &table), 0),
        }
    }
    out.strip_leading = t.is_spm && t.space_prefix != SpacePrefix::None;
    out
}

impl Vocab {
    pub fn encode(&self, text: &str, add: bool, parse: bool) -> Result<Vec<u32>> {
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        let mut failed = None;
        if add {
            out.extend(self.prepend);
        }
        let mut at_start = true;
        self.specials.split(text, parse, &mut |part| {
            match part {
                Part::Token(id) => out.push(id),
                Part::Text(text) => {
                    if let Err(e) = self.encode_plain(text, at_start, &mut out) {
                        failed.get_or_insert(e);
                    }
                }
            }
            at_start = false;
        });
        if let Some(e) = failed {
            return Err(e);
        }
        if add {
            out.extend(self.append);
        }
        Ok(out)
    }

    fn encode_plain(&self, text: &str, at_start: bool, out: &mut Vec<u32>) -> Result<()> {
        match &self.core {
            Core::Spm(spm, prefix) => {
                let mut escaped = text.replace(' ', SPACE);
                let add = match prefix {
                    SpacePrefix::None => false,
                    SpacePrefix::Every => true,
                    SpacePrefix::First => at_start && !escaped.starts_with(SPACE),
                };
                if add {
                    escaped.insert_str(0, SPACE);
                }
                spm.encode(&escaped, out);
                Ok(())
            }
            Core::Bpe(bpe) => bpe.encode(text, out).map_err(|e| Error::format(format!("text: {e}"))),
        }
    }
}

impl Bpe {
    fn encode(&self, text: &str, out: &mut Vec<u32>) -> tokenizers::Result<()> {
        let mut normal = NormalizedString::from(text);
        if self.nfc {
            NFC.normalize(&mut normal)?;
        }
        let mut parts = PreTokenizedString::from(normal);
        self.split.pre_tokenize(&mut parts)?;
        for (part, _, _) in parts.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            out.extend(self.model.tokenize(part)?.iter().map(|t| t.id));
        }
        Ok(())
    }
}
