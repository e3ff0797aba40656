//! Tokenizers and chat templates for Shoal, as a static library with a C ABI.
//!
//! The C side is `src/text/`; the functions it may call are in `src/text/shoal_text_ffi.h`.
//! One file is one subject:
//!
//! * `ffi` - the exported functions: they check pointers, catch panics and translate errors;
//! * `tokenizer` - what both kinds of tokenizer have in common;
//! * `hf` - tokenizers from a `tokenizer.json`, by the Hugging Face library, after `pipeline` has
//!   looked at its stages;
//! * `vocab` - tokenizers from vocabulary tables (GGUF), with `pre` (split patterns by name),
//!   `spm` (SentencePiece BPE) and `special` (tokens matched before the text is split);
//! * `pieces` - which bytes a token stands for;
//! * `template` - chat templates, with `builtins` (filters, functions and methods as Python has
//!   them), `python` (how Python prints values and dates), and `guard` and `budget`, which keep a
//!   hostile template from using more memory and time than allowed.
//!
//! Everything that comes in is untrusted: model files and HTTP bodies reach this code as they are.

pub mod budget;
pub mod builtins;
pub mod error;
pub mod ffi;
pub mod guard;
pub mod hf;
pub mod pieces;
pub mod pipeline;
pub mod pre;
pub mod python;
pub mod special;
pub mod spm;
pub mod template;
pub mod tokenizer;
pub mod vocab;
