//! The exported functions, declared for C in `src/text/shoal_text_ffi.h` (same order, same names).
//!
//! Each one turns raw pointers into slices, runs safe code inside `guard`, which catches panics,
//! and writes results out. The header states what callers promise; that is the safety argument of
//! every `unsafe` here.

use std::ffi::{c_char, CStr};
use std::panic::{self, catch_unwind, AssertUnwindSafe};
use std::sync::{Mutex, Once, PoisonError};
use std::{ptr, slice};

use crate::error::{clip, Error, Kind, Result};
use crate::template::{Limits, Template};
use crate::tokenizer::Tokenizer;
use crate::vocab::{SpacePrefix, Tables};
use crate::{hf, vocab};

const ERROR_BYTES: usize = 252;
const NO_TOKEN: u32 = u32::MAX;

#[repr(C)]
pub struct TextError {
    code: i32,
    text: [u8; ERROR_BYTES],
}

#[repr(C)]
pub struct Ids {
    ids: *mut u32,
    n: usize,
}

#[repr(C)]
pub struct Bytes {
    bytes: *mut u8,
    n: usize,
}

#[repr(C)]
pub struct CVocab {
    kind: u32,
    space_prefix: u32,
    unknown: u32,
    prepend: u32,
    prepend_if_usual: u32,
    append: u32,
    n_tokens: u32,
    token_blob: *const u8,
    token_offsets: *const u64,
    scores: *const f32,
    types: *const u8,
    strips: *const u8,
    n_merges: u32,
    merge_blob: *const u8,
    merge_offsets: *const u64,
    pre: *const c_char,
}

#[repr(C)]
pub struct CPieces {
    n: u32,
    strip_leading: u32,
    blob: *const u8,
    offsets: *const u64,
    flags: *const u8,
}

#[repr(C)]
pub struct CLimits {
    fuel: u64,
    memory_bytes: u64,
    output_bytes: u64,
}

fn report(error: &mut TextError, kind: Kind, text: &str) -> i32 {
    error.code = kind as i32;
    error.text = [0; ERROR_BYTES];
    let line = text.lines().next().unwrap_or("");
    let line = clip(line, ERROR_BYTES - 1);
    error.text[..line.len()].copy_from_slice(line.as_bytes());
    error.code
}

/// Where the last panic happened (templates run on a thread of their own).
static PLACE: Mutex<String> = Mutex::new(String::new());

/// Panics are reported as errors, so they print nothing themselves. This hook is the process's, but
/// no other Rust code is in it.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info.location().map(|l| {
                let file = l.file().rsplit("/src/").next().unwrap_or("");
                format!("{file}:{}", l.line())
            });
            *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place.unwrap_or_default();
        }));
    });
}

/// Run `f`; put its value at `out`, or its error or panic at `error`.
unsafe fn guard<T>(error: *mut TextError, out: *mut T, f: impl FnOnce() -> Result<T>) -> i32 {
    keep_panics_quiet();
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => {
            ptr::write(out, value);
            0
        }
        Ok(Err(e)) => report(&mut *error, e.kind, &e.text),
        Err(cause) => {
            let text = cause
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(cause.downcast_ref::<&str>().copied())
                .unwrap_or("unknown cause");
            let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let text = format!("text library failed: {text} ({place})");
            let code = report(&mut *error, Kind::Panic, &text);
            // A payload whose destructor panics as well must not take the process down.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(cause)));
            code
        }
    }
}

/// `n` elements at `p`, which may be NULL if there are none.
unsafe fn slice_of<'a, T>(p: *const T, n: usize) -> &'a [T] {
    if p.is_null() || n == 0 {
        &[]
    } else {
        slice::from_raw_parts(p, n)
    }
}

/// The `n` strings of a table; offsets must not run backwards.
unsafe fn table_of<'a>(
    what: &str,
    blob: *const u8,
    offsets: *const u64,
    n: usize,
) -> Result<Vec<&'a [u8]>> {
    if offsets.is_null() || n == 0 {
        return Ok(Vec::new());
    }
    let offsets = slice::from_raw_parts(offsets, n + 1);
    if offsets.windows(2).any(|w| w[0] > w[1]) {
        return Err(Error::format(format!("{what} offsets are not ascending")));
    }
    let blob = slice_of(blob, offsets[n] as usize);
    Ok(offsets.windows(2).map(|w| &blob[w[0] as usize..w[1] as usize]).collect())
}

fn some_id(id: u32) -> Option<u32> {
    (id != NO_TOKEN).then_some(id)
}

#[no_mangle]
pub unsafe extern "C" fn shoal_text_ids_free(ids: Ids) {
    if !ids.ids.is_null() {
        drop(Box::from_raw(ptr::slice_from_raw_parts_mut(ids.ids, ids.n)));
    }
}

#[no_mangle]
pub unsafe extern "C" fn shoal_text_bytes_free(bytes: Bytes) {
    if !bytes.bytes.is_null() {
        drop(Box::from_raw(ptr::slice_from_raw_parts_mut(bytes.bytes, bytes.n)));
    }
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_from_vocab(
    vocab: *const CVocab,
    out: *mut *mut Tokenizer,
    error: *mut TextError,
) -> i32 {
    guard(error, out, || {
        let v = &*vocab;
        let n = v.n_tokens as usize;
        let is_spm = v.kind == 0;
        let pre = if v.pre.is_null() { c"" } else { CStr::from_ptr(v.pre) };
        let tables = Tables {
            tokens: table_of("token", v.token_blob, v.token_offsets, n)?,
            scores: slice_of(v.scores, n),
            types: slice_of(v.types, n),
            strips: slice_of(v.strips, n),
            merges: table_of("merge", v.merge_blob, v.merge_offsets, v.n_merges as usize)?,
            pre: pre.to_str().map_err(|_| Error::format("pre-tokenizer kind is not UTF-8"))?,
            space_prefix: match v.space_prefix {
                1 => SpacePrefix::Every,
                2 => SpacePrefix::First,
                _ => SpacePrefix::None,
            },
            unknown: some_id(v.unknown),
            prepend: some_id(v.prepend),
            prepend_if_usual: some_id(v.prepend_if_usual),
            append: some_id(v.append),
            is_spm,
        };
        if tables.types.len() != n || (is_spm && tables.scores.len() != n) {
            return Err(Error::format("vocabulary without token types or scores"));
        }
        Ok(Box::into_raw(Box::new(vocab::open(&tables)?)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_from_json(
    json: *const u8,
    bytes: usize,
    out: *mut *mut Tokenizer,
    error: *mut TextError,
) -> i32 {
    guard(error, out, || Ok(Box::into_raw(Box::new(hf::open(slice_of(json, bytes))?))))
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_free(t: *mut Tokenizer) {
    if !t.is_null() {
        drop(Box::from_raw(t));
    }
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_encode(
    t: *const Tokenizer,
    text: *const u8,
    bytes: usize,
    flags: u32,
    out: *mut Ids,
    error: *mut TextError,
) -> i32 {
    guard(error, out, || {
        let ids = (*t).encode(slice_of(text, bytes), flags)?.into_boxed_slice();
        let n = ids.len();
        Ok(Ids { ids: Box::into_raw(ids).cast(), n })
    })
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_pieces(t: *const Tokenizer, out: *mut CPieces) {
    let p = &(*t).pieces;
    *out = CPieces {
        n: p.len() as u32,
        strip_leading: p.strip_leading as u32,
        blob: p.blob.as_ptr(),
        offsets: p.offsets.as_ptr(),
        flags: p.flags.as_ptr(),
    };
}

#[no_mangle]
pub unsafe extern "C" fn shoal_tokenizer_find(
    t: *const Tokenizer,
    text: *const u8,
    bytes: usize,
) -> u32 {
    match std::str::from_utf8(slice_of(text, bytes)) {
        Ok(text) => (*t).by_text.get(text).copied().unwrap_or(NO_TOKEN),
        Err(_) => NO_TOKEN,
    }
}

#[no_mangle]
pub unsafe extern "C" fn shoal_template_new(
    source: *const u8,
    bytes: usize,
    out: *mut *mut Template,
    error: *mut TextError,
) -> i32 {
    guard(error, out, || Ok(Box::into_raw(Box::new(Template::new(slice_of(source, bytes))?))))
}

#[no_mangle]
pub unsafe extern "C" fn shoal_template_free(t: *mut Template) {
    if !t.is_null() {
        drop(Box::from_raw(t));
    }
}

#[no_mangle]
pub unsafe extern "C" fn shoal_template_render(
    t: *const Template,
    defaults: *const u8,
    default_bytes: usize,
    variables: *const u8,
    variable_bytes: usize,
    limits: *const CLimits,
    out: *mut Bytes,
    error: *mut TextError,
) -> i32 {
    guard(error, out, || {
        let limits = Limits {
            fuel: (*limits).fuel,
            memory_bytes: (*limits).memory_bytes as usize,
            output_bytes: (*limits).output_bytes as usize,
        };
        let defaults = slice_of(defaults, default_bytes);
        let text = (*t).render(defaults, slice_of(variables, variable_bytes), &limits)?;
        let bytes = text.into_bytes().into_boxed_slice();
        let n = bytes.len();
        Ok(Bytes { bytes: Box::into_raw(bytes).cast(), n })
    })
}
