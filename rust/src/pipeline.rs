//! Checks the stages that a `tokenizer.json` names before the library builds them.
//!
//! A stage can be harmless alone and ruinous in number: "replace a by aa" forty times in a row
//! makes a terabyte of a short text, and deep nesting makes the library's reader try exponentially
//! many readings. So: little nesting, a bound on how much longer a text can get, and only stages
//! for which that bound is known.

use serde_json::Value;

use crate::error::{clip, Error, Result};

/// A Sequence in a Sequence, with its items and their settings.
const MAX_DEPTH: usize = 9;
const MAX_STEPS: usize = 64;
/// Patterns, mostly; compiling one can take the square of its length.
const MAX_STRING_BYTES: usize = 1 << 14;

/// How many times longer the stages may make a text, at most.
pub fn check(normalizer: &Value, pre_tokenizer: &Value, post_processor: &Value) -> Result<usize> {
    check_depth("normalizer", normalizer)?;
    check_depth("pre_tokenizer", pre_tokenizer)?;
    check_depth("post_processor", post_processor)?;
    let mut growth = Growth { factor: 1, steps: 0 };
    growth.normalizer(normalizer)?;
    growth.pre_tokenizer(pre_tokenizer)?;
    check_post_processor(post_processor)?;
    Ok(growth.factor)
}

pub fn check_depth(what: &str, v: &Value) -> Result<()> {
    fn depth(v: &Value) -> usize {
        match v {
            Value::Array(a) => 1 + a.iter().map(depth).max().unwrap_or(0),
            Value::Object(o) => 1 + o.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }
    fn longest(v: &Value) -> usize {
        match v {
            Value::String(s) => s.len(),
            Value::Array(a) => a.iter().map(longest).max().unwrap_or(0),
            Value::Object(o) => o.values().map(longest).max().unwrap_or(0),
            _ => 0,
        }
    }
    if depth(v) > MAX_DEPTH {
        return Err(Error::limit(format!("{what} is nested more than {MAX_DEPTH} deep")));
    }
    if longest(v) > MAX_STRING_BYTES {
        return Err(Error::limit(format!("{what} has a text above {MAX_STRING_BYTES} bytes")));
    }
    Ok(())
}

fn kind(v: &Value) -> &str {
    v.get("type").and_then(Value::as_str).unwrap_or("")
}

fn items<'a>(v: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    v.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text_len(v: &Value, key: &str) -> usize {
    v.get(key).and_then(Value::as_str).map_or(0, str::len)
}

struct Growth {
    factor: usize,
    steps: usize,
}

impl Growth {
    fn times(&mut self, factor: usize) -> Result<()> {
        self.factor = self.factor.saturating_mul(factor);
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Error::limit(format!("more than {MAX_STEPS} normalizers and pre-tokenizers")));
        }
        Ok(())
    }

    fn normalizer(&mut self, v: &Value) -> Result<()> {
        if v.is_null() {
            return Ok(());
        }
        match kind(v) {
            "Sequence" => items(v, "normalizers").try_for_each(|step| self.normalizer(step)),
            "NFC" | "NFD" | "Lowercase" | "BertNormalizer" => self.times(3),
            "NFKC" | "NFKD" => self.times(11),
            "ByteLevel" => self.times(2),
            "Strip" | "StripAccents" | "Nmt" => self.times(1),
            // Once, in front of a text or of what follows a special token.
            "Prepend" => self.times(1 + text_len(v, "prepend")),
            // A pattern may match between all characters.
            "Replace" => self.times(1 + text_len(v, "content")),
            other => Err(Error::unsupported(format!("normalizer {:?}", clip(other, 32)))),
        }
    }

    fn pre_tokenizer(&mut self, v: &Value) -> Result<()> {
        if v.is_null() {
            return Ok(());
        }
        match kind(v) {
            "Sequence" => items(v, "pretokenizers").try_for_each(|step| self.pre_tokenizer(step)),
            "ByteLevel" => self.times(2),
            "Metaspace" => self.times(1 + text_len(v, "replacement")),
            "Split" | "Digits" | "Punctuation" | "Whitespace" | "WhitespaceSplit"
            | "UnicodeScripts" | "BertPreTokenizer" | "CharDelimiterSplit" => self.times(1),
            other => Err(Error::unsupported(format!("pre-tokenizer {:?}", clip(other, 32)))),
        }
    }
}

/// A template that names the text twice would double it; ten such, a thousandfold.
fn check_post_processor(v: &Value) -> Result<()> {
    match kind(v) {
        "Sequence" => {
            let steps: Vec<&Value> = items(v, "processors").collect();
            if steps.len() > MAX_STEPS {
                return Err(Error::limit(format!("more than {MAX_STEPS} post-processors")));
            }
            steps.into_iter().try_for_each(check_post_processor)
        }
        "TemplateProcessing" => {
            let texts = items(v, "single").filter(|item| item.get("Sequence").is_some()).count();
            if texts != 1 {
                return Err(Error::unsupported(format!("post-processor with {texts} texts in one")));
            }
            let known = |item: &Value| {
                let name = item.get("SpecialToken").and_then(|t| t.get("id"));
                name.and_then(Value::as_str).is_none_or(|n| {
                    v.get("special_tokens").is_some_and(|all| all.get(n).is_some())
                })
            };
            match items(v, "single").find(|item| !known(item)) {
                Some(item) => {
                    Err(Error::format(format!("post-processor names no ids for {item}")))
                }
                None => Ok(()),
            }
        }
        "ByteLevel" | "BertProcessing" | "RobertaProcessing" => Ok(()),
        "" if v.is_null() => Ok(()),
        other => Err(Error::unsupported(format!("post-processor {:?}", clip(other, 32)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn growth_multiplies() {
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
        let both = json!({"type": "Sequence", "normalizers": [replace, {"type": "NFC"}]});
        let bytes = json!({"type": "ByteLevel"});
        assert_eq!(check(&both, &bytes, &Value::Null).unwrap(), 4 * 3 * 2);
        assert_eq!(check(&Value::Null, &Value::Null, &Value::Null).unwrap(), 1);
    }

    #[test]
    fn refusals() {
        let null = &Value::Null;
        let many = json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "Digits"}); 65]});
        assert!(check(null, &many, null).is_err());
        let mut deep = json!({"type": "NFC"});
        for _ in 0..6 {
            deep = json!({"type": "Sequence", "normalizers": [deep]});
        }
        assert!(check(&deep, null, null).is_err());
        assert!(check(&json!({"type": "Precompiled"}), null, null).is_err());
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let twice = json!({"type": "TemplateProcessing", "single": [text, text]});
        assert!(check(null, null, &twice).is_err());
    }
}
