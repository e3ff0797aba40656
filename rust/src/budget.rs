//! What one rendering may use, beyond the instructions that minijinja counts itself.
//!
//! Instructions alone bound neither memory (`x ~ x` in a loop doubles) nor time (comparing long
//! strings in a loop). So everything that a template builds is charged to a budget of bytes, in
//! total and not only what is alive, and there is a clock. `guard` inserts the calls. The budget
//! belongs to the thread that renders, for as long as the `Budget` lives.

use std::cell::Cell;
use std::time::{Duration, Instant};

use minijinja::value::{DynObject, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// Values nested deeper than this are refused: printing, comparing and dropping them recurses.
const MAX_DEPTH: usize = 96;
/// What a value in a container counts for.
const NODE_BYTES: usize = 64;
const MAX_TIME: Duration = Duration::from_secs(5);

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(0) };
    static END: Cell<Option<Instant>> = const { Cell::new(None) };
    static EXCEEDED: Cell<bool> = const { Cell::new(false) };
}

pub struct Budget;

impl Budget {
    pub fn start(bytes: usize) -> Budget {
        LEFT.set(bytes);
        END.set(Some(Instant::now() + MAX_TIME));
        EXCEEDED.set(false);
        Budget
    }

    /// Whether an error of the rendering was about the budget.
    pub fn exceeded(&self) -> bool {
        EXCEEDED.get()
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        LEFT.set(0);
        END.set(None);
    }
}

pub fn refuse(text: &str) -> Error {
    EXCEEDED.set(true);
    Error::new(ErrorKind::InvalidOperation, text.to_string())
}

/// Account for `n` bytes, before they are built if they could be many.
pub fn charge(n: usize) -> Result<(), Error> {
    match LEFT.get().checked_sub(n) {
        Some(left) => {
            LEFT.set(left);
            Ok(())
        }
        None => Err(refuse("template builds too much text")),
    }
}

/// `n` pieces of `each` bytes.
pub fn charge_product(n: usize, each: usize) -> Result<(), Error> {
    charge(n.saturating_mul(each))
}

pub fn check_time() -> Result<(), Error> {
    match END.get() {
        Some(end) if Instant::now() > end => Err(refuse("template runs too long")),
        _ => Ok(()),
    }
}

/// Account for a value just made: a string's bytes, or a container's own slots.
pub fn charge_value(v: &Value) -> Result<(), Error> {
    let n = match v.as_str() {
        Some(s) => s.len(),
        None => v.len().unwrap_or(0).saturating_mul(NODE_BYTES),
    };
    charge(n)
}

/// Account for a container and all that is in it, as often as it is in it. Only literals can put
/// a value into itself twice, so this is what stops structures that unfold exponentially.
pub fn charge_deep(v: &Value) -> Result<(), Error> {
    visit(v, 0, false)
}

/// As charge_deep, for a value about to be stored in a namespace: with no namespace inside it,
/// nothing can contain itself.
pub fn charge_stored(v: &Value) -> Result<(), Error> {
    visit(v, 0, true)
}

/// The type is private to minijinja, its name is not.
fn is_namespace(object: &DynObject) -> bool {
    object.type_name().ends_with("::Namespace")
}

fn visit(v: &Value, depth: usize, stored: bool) -> Result<(), Error> {
    charge(NODE_BYTES)?;
    let Some(object) = v.as_object() else { return Ok(()) };
    if depth > MAX_DEPTH {
        return Err(refuse("template nests values too deeply"));
    }
    if is_namespace(object) {
        return if stored || depth > 0 {
            Err(refuse("template puts a namespace into a value"))
        } else {
            Ok(())
        };
    }
    match v.kind() {
        ValueKind::Seq => object.try_iter().into_iter().flatten().try_for_each(|x| {
            visit(&x, depth + 1, stored)
        }),
        ValueKind::Map => object.try_iter_pairs().into_iter().flatten().try_for_each(|(_, x)| {
            visit(&x, depth + 1, stored)
        }),
        _ => Ok(()),
    }
}
