//! Tokenizers from a `tokenizer.json`, run by the Hugging Face library.
//!
//! Encoding goes through the library's own stages one by one, so that special tokens in text can
//! be left unparsed per call (the library has that as a setting of the whole tokenizer). Decoding
//! does not use the library's decoder: what each token adds to the text is worked out once here,
//! which makes decoding incremental by nature. That is possible for the decoders of byte-level and
//! SentencePiece-like BPE, and anything else is refused by name.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::{
    AddedVocabulary, Encoding, Model as _, OffsetReferential, OffsetType, PostProcessor,
    PreTokenizer,
};

use crate::error::{clip, Error, Result};
use crate::pieces::{self, Pieces};
use crate::pipeline;
use crate::special;
use crate::spm::SPACE;
use crate::tokenizer::{Model, Tokenizer, MAX_EXPANDED_BYTES, MAX_VOCAB};

pub const MAX_JSON_BYTES: usize = 128 << 20;
const MAX_ADDED_TOKENS: usize = 1 << 16;
const MAX_SURROUNDING: usize = 64;

pub struct Hf {
    tokenizer: tokenizers::Tokenizer,
    /// As the tokenizer's own, but with special tokens taken for text.
    unparsed: AddedVocabulary,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    /// How many times longer its normalizer and pre-tokenizer may make a text.
    growth: usize,
}

/// The parts of the file that we look at ourselves; the library reads the rest.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: ModelHead,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct ModelHead {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

/// What the decoder does, as far as it is one we know.
#[derive(Default)]
struct Decoding {
    byte_level: bool,
    byte_fallback: bool,
    /// SPACE stands for a space.
    spaces: bool,
    strip_leading: bool,
}

pub fn open(json: &[u8]) -> Result<Tokenizer> {
    if json.len() > MAX_JSON_BYTES {
        return Err(Error::limit(format!("{} bytes of JSON, at most {MAX_JSON_BYTES}", json.len())));
    }
    let file: File = serde_json::from_slice(json).map_err(|e| Error::format(e.to_string()))?;
    let decoding = check(&file)?;
    let growth = pipeline::check(&file.normalizer, &file.pre_tokenizer, &file.post_processor)?;
    let mut tokenizer =
        tokenizers::Tokenizer::from_bytes(json).map_err(|e| Error::format(e.to_string()))?;
    let mut model = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => model.clone(),
        _ => return Err(Error::unsupported("tokenizer model is not BPE")),
    };
    // Little gain (3 % on prose), and without it a tokenizer is immutable to the last bit.
    model.resize_cache(0);
    tokenizer.with_model(model);
    // These cut or fill encodings for training batches.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| Error::format(e.to_string()))?;

    let (pieces, by_text) = make_pieces(&tokenizer, &file, &decoding)?;
    let mut unparsed = tokenizer.get_added_vocabulary().clone();
    unparsed.set_encode_special_tokens(true);
    let (prefix, suffix) = surroundings(&tokenizer, pieces.len())?;
    let hf = Hf { tokenizer, unparsed, prefix, suffix, growth };
    Ok(Tokenizer { model: Model::Hf(Box::new(hf)), pieces, by_text })
}

fn check(file: &File) -> Result<Decoding> {
    let model = &file.model;
    match model.kind.as_deref() {
        Some("BPE") | None => (),
        Some(kind) => {
            return Err(Error::unsupported(format!(
                "tokenizer model {:?}, expected \"BPE\"",
                clip(kind, 32)
            )))
        }
    }
    if model.dropout.is_some_and(|p| p != 0.0) {
        return Err(Error::unsupported("BPE dropout makes encoding random"));
    }
    let affix = |s: &Option<String>| s.as_deref().is_some_and(|s| !s.is_empty());
    if affix(&model.continuing_subword_prefix) || affix(&model.end_of_word_suffix) {
        return Err(Error::unsupported("BPE with continuing_subword_prefix or end_of_word_suffix"));
    }
    if file.added_tokens.len() > MAX_ADDED_TOKENS {
        return Err(Error::limit(format!(
            "{} added tokens, at most {MAX_ADDED_TOKENS}",
            file.added_tokens.len()
        )));
    }
    special::check_sizes(file.added_tokens.iter().map(|t| t.content.len()))?;
    pipeline::check_depth("decoder", &file.decoder)?;
    let mut decoding = Decoding::default();
    read_decoder(&file.decoder, &mut decoding)?;
    if decoding.byte_level && (decoding.spaces || decoding.byte_fallback) {
        return Err(Error::unsupported("decoder mixes ByteLevel with SentencePiece steps"));
    }
    if !decoding.byte_level && !decoding.spaces && !decoding.byte_fallback {
        return Err(Error::unsupported("tokenizer has no decoder"));
    }
    Ok(decoding)
}

fn read_decoder(decoder: &Value, out: &mut Decoding) -> Result<()> {
    let text = |key: &str| decoder.get(key).and_then(Value::as_str).unwrap_or("");
    let number = |key: &str| decoder.get(key).and_then(Value::as_u64).unwrap_or(0);
    match (decoder, text("type")) {
        (Value::Null, _) => return Ok(()),
        (_, "Sequence") => {
            for step in decoder.get("decoders").and_then(Value::as_array).into_iter().flatten() {
                read_decoder(step, out)?;
            }
            return Ok(());
        }
        (_, "ByteLevel") => out.byte_level = true,
        (_, "ByteFallback") => out.byte_fallback = true,
        (_, "Fuse") => (),
        (_, "Replace") if text("content") == " " && replaced(decoder) == SPACE => out.spaces = true,
        (_, "Strip") if text("content") == " " && number("stop") == 0 && number("start") < 2 => {
            out.strip_leading |= number("start") == 1;
        }
        (_, "Metaspace") if text("replacement") == SPACE => {
            out.spaces = true;
            let never = text("prepend_scheme") == "never"
                || decoder.get("add_prefix_space") == Some(&Value::Bool(false));
            out.strip_leading |= !never;
        }
        (_, kind) => {
            return Err(Error::unsupported(format!("decoder {:?} or its settings", clip(kind, 32))))
        }
    }
    Ok(())
}

fn replaced(decoder: &Value) -> &str {
    decoder.get("pattern").and_then(|p| p.get("String")).and_then(Value::as_str).unwrap_or("")
}

fn make_pieces(
    tokenizer: &tokenizers::Tokenizer,
    file: &File,
    decoding: &Decoding,
) -> Result<(Pieces, HashMap<Box<str>, u32>)> {
    let added = tokenizer.get_added_tokens_decoder();
    for token in &file.added_tokens {
        let known = added.get(&token.id).is_some_and(|t| t.content == token.content);
        if !known && !token.content.is_empty() {
            return Err(Error::format(format!(
                "added token {:?} says id {}, which is not its place in the vocabulary",
                clip(&token.content, 64),
                token.id
            )));
        }
    }
    let mut texts: Vec<Option<String>> = Vec::new();
    for (text, id) in tokenizer.get_vocab(true) {
        if id as usize >= MAX_VOCAB {
            return Err(Error::limit(format!("token id {id}, at most {}", MAX_VOCAB - 1)));
        }
        if texts.len() <= id as usize {
            texts.resize(id as usize + 1, None);
        }
        texts[id as usize] = Some(text);
    }
    let table = pieces::byte_level_table();
    let mut out = Pieces::with_capacity(texts.len());
    let mut by_text = HashMap::with_capacity(texts.len());
    for (id, text) in texts.into_iter().enumerate() {
        let text = text.unwrap_or_default();
        if let Some(token) = added.get(&(id as u32)) {
            let special = if token.special { pieces::SPECIAL } else { 0 };
            out.push(token.content.as_bytes(), pieces::ADDED | special);
        } else {
            out.push(&decoded(&text, decoding, &table), 0);
        }
        if !text.is_empty() {
            by_text.insert(text.into_boxed_str(), id as u32);
        }
    }
    out.strip_leading = decoding.strip_leading;
    Ok((out, by_text))
}

fn decoded(text: &str, decoding: &Decoding, table: &[Option<u8>]) -> Vec<u8> {
    if decoding.byte_level {
        return pieces::bytes_of_byte_level(text, table);
    }
    if decoding.byte_fallback {
        if let Some(byte) = pieces::byte_of_name(text) {
            return vec![byte];
        }
    }
    if decoding.spaces {
        text.replace(SPACE, " ").into_bytes()
    } else {
        text.as_bytes().to_vec()
    }
}

/// What the post-processor puts around a text: found by giving it a text of one made-up token.
fn surroundings(t: &tokenizers::Tokenizer, n: usize) -> Result<(Vec<u32>, Vec<u32>)> {
    let Some(processor) = t.get_post_processor() else {
        return Ok((Vec::new(), Vec::new()));
    };
    let mark = u32::MAX;
    let one = Encoding::new(
        vec![mark], vec![0], vec!["x".into()], vec![None], vec![(0, 1)], vec![0], vec![1],
        Vec::new(), Default::default(),
    );
    let all = processor
        .process(one, None, true)
        .map_err(|e| Error::format(format!("post-processor: {e}")))?;
    let ids = all.get_ids();
    let at = ids
        .iter()
        .position(|id| *id == mark)
        .ok_or_else(|| Error::format("post-processor drops the text"))?;
    let (prefix, suffix) = (ids[..at].to_vec(), ids[at + 1..].to_vec());
    if prefix.len() + suffix.len() > MAX_SURROUNDING {
        return Err(Error::limit(format!("post-processor adds more than {MAX_SURROUNDING} tokens")));
    }
    if let Some(id) = prefix.iter().chain(&suffix).find(|id| **id as usize >= n) {
        return Err(Error::format(format!("post-processor adds token {id} of {n}")));
    }
    Ok((prefix, suffix))
}

impl Hf {
    pub fn encode(&self, text: &str, add: bool, parse: bool) -> Result<Vec<u32>> {
        if text.len().saturating_mul(self.growth) > MAX_EXPANDED_BYTES {
            return Err(Error::limit(format!(
                "text of {} bytes may grow {} times while it is normalized",
                text.len(),
                self.growth
            )));
        }
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        if add {
            out.extend(&self.prefix);
        }
        self.encode_text(text, parse, &mut out).map_err(|e| Error::format(format!("text: {e}")))?;
        if add {
            out.extend(&self.suffix);
        }
        Ok(out)
    }

    fn encode_text(&self, text: &str, parse: bool, out: &mut Vec<u32>) -> tokenizers::Result<()> {
        let t = &self.tokenizer;
        let added = if parse { t.get_added_vocabulary() } else { &self.unparsed };
        let mut parts = added.extract_and_normalize(t.get_normalizer(), text);
        if let Some(pre) = t.get_pre_tokenizer() {
            pre.pre_tokenize(&mut parts)?;
        }
        for (part, _, tokens) in parts.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            match tokens {
                Some(tokens) => out.extend(tokens.iter().map(|t| t.id)),
                None => out.extend(t.get_model().tokenize(part)?.iter().map(|t| t.id)),
            }
        }
        Ok(())
    }
}
