//! How byte-level BPE vocabularies split text before merging, by the name that GGUF files state in
//! `tokenizer.ggml.pre`.
//!
//! Each family's own tokenizer definition fixes a list of patterns; the first splits the text, the
//! next splits each part again, and so on. The names are those that llama.cpp's converter writes.
//! A name that is not here is refused: the wrong pattern gives plausible but wrong ids.

use crate::error::{clip, Error, Result};

pub struct Pre {
    /// Applied one after the other; every match is a part of its own, and so is what lies between.
    pub patterns: Vec<String>,
    /// A part that is a token as it stands is not built from merges.
    pub ignore_merges: bool,
    /// Text is brought into Unicode normal form C first.
    pub nfc: bool,
    /// The beginning-of-text token is put in front if the file does not say.
    pub add_bos: bool,
}

const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const DEEPSEEK_V3: [&str; 3] = [
    r"\p{N}{1,3}",
    r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
        r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
];
const CJK: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";

/// The letters that the DeepSeek-LLM definition lists: cased ones, as of an older Unicode.
const DEEPSEEK_LETTERS: &[&str] = &[
    r"\x{41}-\x{5A}\x{61}-\x{7A}\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}",
    r"\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}",
    r"\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}",
    r"\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}",
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}",
    r"\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}",
    r"\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}",
    r"\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}",
    r"\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}",
    r"\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}",
    r"\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}",
    r"\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}",
    r"\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}",
    r"\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}",
    r"\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}",
    r"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}",
    r"\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}",
];

fn deepseek_llm() -> Vec<String> {
    vec![
        r"[\r\n]".into(),
        format!(r"\s?[{}]+", DEEPSEEK_LETTERS.concat()),
        r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+".into(),
        r"\s+$".into(),
        CJK.into(),
        r"\p{N}+".into(),
    ]
}

fn strings(patterns: &[&str]) -> Vec<String> {
    patterns.iter().map(|p| p.to_string()).collect()
}

pub fn by_name(name: &str) -> Result<Pre> {
    let plain =
        |patterns| Pre { patterns, ignore_merges: false, nfc: false, add_bos: false };
    Ok(match name {
        "default" | "gpt-2" | "gpt2" | "mpt" | "phi-2" | "jais" | "trillion" => {
            plain(strings(&[GPT2]))
        }
        "olmo" | "dolma" | "gpt-neox" | "pythia" => Pre { nfc: true, ..plain(strings(&[GPT2])) },
        "starcoder" | "refact" | "smollm" | "codeshell" | "exaone" | "minerva-7b" => {
            plain(strings(&[r"\p{N}", GPT2]))
        }
        "command-r" => Pre { nfc: true, add_bos: true, ..plain(strings(&[r"\p{N}", GPT2])) },
        "falcon" => plain(strings(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"])),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "pixtral" | "lfm2" => Pre {
            ignore_merges: true,
            add_bos: true,
            ..plain(strings(&[LLAMA3]))
        },
        "smaug-bpe" | "dbrx" | "chatglm-bpe" | "glm4" => plain(strings(&[LLAMA3])),
        "qwen2" | "deepseek-r1-qwen" | "stablelm2" | "megrez" => {
            Pre { nfc: true, ..plain(strings(&[QWEN2])) }
        }
        "deepseek-llm" => plain(deepseek_llm()),
        "deepseek-coder" => {
            plain(strings(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"]))
        }
        "deepseek-v3" => plain(strings(&DEEPSEEK_V3)),
        "tekken" => Pre { ignore_merges: true, add_bos: true, ..plain(strings(&[TEKKEN])) },
        "gpt-4o" | "llama4" => plain(strings(&[GPT4O])),
        _ => {
            return Err(Error::unsupported(format!(
                "pre-tokenizer kind {:?} is not known",
                clip(name, 64)
            )))
        }
    })
}
