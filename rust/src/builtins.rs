//! Filters, tests, functions and methods that differ from minijinja's own: because Jinja2's do
//! something else, because `transformers` adds them, or because their result may be far larger
//! than their arguments and has to be checked before it is built.

use minijinja::value::{from_args, Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::budget::{self, charge, charge_product, refuse};
use crate::guard;
use crate::python::{self, Json, Moment, Text};

const MAX_INDENT: usize = 4096;
const MAX_BATCH: usize = 1 << 16;

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.into())
}

pub fn install(env: &mut Environment) {
    env.set_formatter(emit);
    env.set_unknown_method_callback(method);

    env.add_function(guard::CHARGE, |v: Value| budget::charge_value(&v).map(|_| v));
    env.add_function(guard::DEEP, |v: Value| budget::charge_deep(&v).map(|_| v));
    env.add_function(guard::STORED, |v: Value| budget::charge_stored(&v).map(|_| v));
    env.add_function(guard::CONCAT, concat);
    env.add_function(guard::MULTIPLY, multiply);
    env.add_function(guard::REMAINDER, remainder);
    env.add_function(guard::KEEP, |v: Value| v);
    env.add_function(guard::TICK, budget::check_time);
    env.add_function(guard::UNAVAILABLE, || -> Result<Value, Error> {
        Err(invalid("a chat template cannot import, include or extend another"))
    });

    env.add_function("raise_exception", |text: String| -> Result<Value, Error> {
        Err(invalid(text))
    });
    env.add_function("strftime_now", strftime_now);
    env.add_function("joiner", minijinja_contrib::globals::joiner);
    env.add_function("cycler", minijinja_contrib::globals::cycler);

    env.add_filter("tojson", tojson);
    env.add_filter("string", |v: Value| python::to_str(&v));
    env.add_filter("join", join);
    env.add_filter("replace", |v: Value, old: String, new: String, count: Option<i64>| {
        replace(&python::to_str(&v)?, &old, &new, count)
    });
    env.add_filter("indent", indent);
    env.add_filter("format", |v: String, args: Rest<Value>| {
        check_widths(&v)?;
        minijinja::format_filter(minijinja::FormatStyle::Printf, &v, &args)
    });
    env.add_filter("batch", |state: &State, v: Value, n: usize, fill: Option<Value>| {
        if n > MAX_BATCH {
            return Err(refuse("batch is too large"));
        }
        minijinja::filters::batch(state, v, n, fill)
    });
    env.add_filter("slice", |state: &State, v: Value, n: usize, fill: Option<Value>| {
        if n > MAX_BATCH {
            return Err(refuse("slice is too large"));
        }
        minijinja::filters::slice(state, v, n, fill)
    });
    // Not in Jinja2; these could make values that unfold exponentially or print without limit.
    for name in ["zip", "chain", "lines", "split", "pprint"] {
        env.remove_filter(name);
    }

    use ValueKind as K;
    env.add_test("sequence", |v: Value| {
        matches!(v.kind(), K::String | K::Seq | K::Map | K::Undefined)
    });
    env.add_test("iterable", |v: Value| {
        matches!(v.kind(), K::String | K::Seq | K::Map | K::Iterable | K::Undefined)
    });
    env.add_test("number", |v: Value| matches!(v.kind(), K::Number | K::Bool));
}

/// All that is printed or captured goes through here.
fn emit(out: &mut Output, _: &State, v: &Value) -> Result<(), Error> {
    let failed = |_| Error::from(ErrorKind::WriteFailure);
    if v.kind() == ValueKind::String {
        let s = v.as_str().unwrap_or("");
        charge(s.len())?;
        return out.write_str(s).map_err(failed);
    }
    out.write_str(&python::to_str(v)?).map_err(failed)
}

fn concat(a: Value, b: Value) -> Result<String, Error> {
    let mut out = Text::default();
    python::write_str(&mut out, &a)?;
    python::write_str(&mut out, &b)?;
    Ok(out.finish())
}

fn multiply(a: Value, b: Value) -> Result<Value, Error> {
    let wrong = || invalid(format!("tried to multiply {} with {}", a.kind(), b.kind()));
    let (repeated, times) = if a.kind() == ValueKind::Number { (&b, &a) } else { (&a, &b) };
    if repeated.kind() == ValueKind::Number {
        return multiply_numbers(&a, &b).ok_or_else(wrong);
    }
    let n = i64::try_from(times.clone()).map_err(|_| wrong())?.max(0) as usize;
    if let Some(s) = repeated.as_str() {
        charge_product(n, s.len())?;
        return Ok(Value::from(s.repeat(n)));
    }
    if repeated.kind() != ValueKind::Seq {
        return Err(wrong());
    }
    let items: Vec<Value> = repeated.try_iter()?.collect();
    charge_product(n, items.len().saturating_mul(std::mem::size_of::<Value>()))?;
    Ok((0..n).flat_map(|_| items.iter().cloned()).collect())
}

fn multiply_numbers(a: &Value, b: &Value) -> Option<Value> {
    if a.is_integer() && b.is_integer() {
        let (x, y) = (i64::try_from(a.clone()).ok()?, i64::try_from(b.clone()).ok()?);
        return x.checked_mul(y).map(Value::from);
    }
    let (x, y) = (f64::try_from(a.clone()).ok()?, f64::try_from(b.clone()).ok()?);
    Some(Value::from(x * y))
}

/// `a % b`: the remainder with the sign of b, or text formatted as by printf.
fn remainder(a: Value, b: Value) -> Result<Value, Error> {
    if let Some(format) = a.as_str() {
        check_widths(format)?;
        let args: Vec<Value> = match b.kind() {
            ValueKind::Seq => b.try_iter()?.collect(),
            _ => vec![b],
        };
        let text = minijinja::format_filter(minijinja::FormatStyle::Printf, format, &args)?;
        charge(text.len())?;
        return Ok(Value::from(text));
    }
    let wrong = || invalid(format!("no remainder of {a} and {b}"));
    if a.is_integer() && b.is_integer() {
        let (x, y) = (i64::try_from(a.clone())?, i64::try_from(b.clone())?);
        let r = x.checked_rem(y).ok_or_else(wrong)?;
        return Ok(Value::from(if r != 0 && (r < 0) != (y < 0) { r + y } else { r }));
    }
    let (x, y) = (f64::try_from(a.clone())?, f64::try_from(b.clone())?);
    if y == 0.0 {
        return Err(wrong());
    }
    Ok(Value::from(x - y * (x / y).floor()))
}

/// Refuse "%1000000000d" and "{:>1000000000}".
fn check_widths(format: &str) -> Result<(), Error> {
    let long = format
        .as_bytes()
        .split(|b| !b.is_ascii_digit())
        .any(|digits| digits.iter().skip_while(|d| **d == b'0').count() > 4);
    if long && (format.contains('%') || format.contains('{')) {
        return Err(refuse("format string with a width above 9999"));
    }
    Ok(())
}

fn replace(s: &str, old: &str, new: &str, count: Option<i64>) -> Result<String, Error> {
    let found = if old.is_empty() { s.chars().count() + 1 } else { s.matches(old).count() };
    let n = match count {
        Some(count) if count >= 0 => found.min(count as usize),
        _ => found,
    };
    charge(s.len())?;
    charge_product(n, new.len())?;
    Ok(s.replacen(old, new, n))
}

fn join(v: Value, separator: Option<String>, kwargs: Kwargs) -> Result<String, Error> {
    let attribute: Option<String> = kwargs.get("attribute")?;
    let separator = match separator {
        Some(s) => s,
        None => kwargs.get::<Option<String>>("d")?.unwrap_or_default(),
    };
    kwargs.assert_all_used()?;
    let mut out = Text::default();
    for (i, item) in v.try_iter()?.enumerate() {
        if i > 0 {
            out.push(&separator)?;
        }
        let item = match &attribute {
            Some(name) => item.get_attr(name)?,
            None => item,
        };
        python::write_str(&mut out, &item)?;
    }
    Ok(out.finish())
}

/// indent(s, width=4, first=False, blank=False); width may be the text to indent with.
fn indent(
    s: String,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = match width {
        Some(width) => width,
        None => kwargs.get::<Option<Value>>("width")?.unwrap_or(Value::from(4)),
    };
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = blank.or(kwargs.get("blank")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let indention = match width.as_str() {
        Some(text) => text.to_string(),
        None => {
            let n = usize::try_from(width.clone())?;
            if n > MAX_INDENT {
                return Err(refuse("indent is too wide"));
            }
            " ".repeat(n)
        }
    };
    let mut out = Text::default();
    for (i, line) in s.split('\n').enumerate() {
        if i > 0 {
            out.push("\n")?;
        }
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push(&indention)?;
        }
        out.push(line)?;
    }
    Ok(out.finish())
}

/// tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False), as transformers
/// defines it: json.dumps, without the escaping for HTML that Jinja2's own does.
fn tojson(v: Value, ascii: Option<bool>, kwargs: Kwargs) -> Result<String, Error> {
    let ascii = ascii.or(kwargs.get("ensure_ascii")?).unwrap_or(false);
    let indent = match kwargs.get::<Option<Value>>("indent")? {
        None => None,
        Some(v) if v.is_none() => None,
        Some(v) => Some(match v.as_str() {
            Some(s) => s.to_string(),
            None => " ".repeat(usize::try_from(v)?.min(MAX_INDENT)),
        }),
    };
    let mut json = Json {
        ascii,
        item_separator: if indent.is_some() { "," } else { ", " }.into(),
        key_separator: ": ".into(),
        indent,
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    if let Some(separators) = kwargs.get::<Option<Value>>("separators")?.filter(|v| !v.is_none()) {
        let two: Vec<Value> = separators.try_iter()?.collect();
        let [item, key] = two.as_slice() else {
            return Err(invalid("tojson: separators must be two strings"));
        };
        (json.item_separator, json.key_separator) = (python::to_str(item)?, python::to_str(key)?);
    }
    kwargs.assert_all_used()?;
    json.write(&v)
}

fn strftime_now(state: &State, format: String) -> Result<String, Error> {
    let now = state.lookup("now").ok_or_else(|| invalid("strftime_now: the time is not known"))?;
    let moment = now
        .as_str()
        .and_then(Moment::parse)
        .ok_or_else(|| invalid(format!("now is {now}, expected 2025-01-31T12:00:00")))?;
    moment.format(&format)
}

/// Python's methods of strings, dicts and lists: minijinja-contrib's, but for those that differ,
/// grow or are missing there.
fn method(state: &State, v: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let result = match v.as_str() {
        Some(s) => string_method(state, v, s, name, args)?,
        None => unknown_method_callback(state, v, name, args)?,
    };
    budget::charge_value(&result)?;
    Ok(result)
}

fn string_method(
    state: &State,
    v: &Value,
    s: &str,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    Ok(match name {
        "replace" => {
            let (old, new, count): (String, String, Option<i64>) = from_args(args)?;
            Value::from(replace(s, &old, &new, count)?)
        }
        "join" => {
            let (items,): (Value,) = from_args(args)?;
            Value::from(join(items, Some(s.into()), Kwargs::from_iter::<[(&str, Value); 0]>([]))?)
        }
        "format" => {
            check_widths(s)?;
            unknown_method_callback(state, v, name, args)?
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(s.strip_prefix(prefix).unwrap_or(s))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(s.strip_suffix(suffix).unwrap_or(s))
        }
        "rsplit" => rsplit(s, args)?,
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (a, b, c) = match s.split_once(separator) {
                Some((a, c)) => (a, separator, c),
                None => (s, "", ""),
            };
            [a, b, c].into_iter().map(Value::from).collect()
        }
        // all() of nothing is true; Python says no.
        "isdigit" | "isnumeric" | "isalpha" | "isalnum" | "isspace" | "islower" | "isupper"
            if s.is_empty() =>
        {
            Value::from(false)
        }
        _ => unknown_method_callback(state, v, name, args)?,
    })
}

fn rsplit(s: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, max): (Option<String>, Option<i64>) = from_args(args)?;
    let n = match max {
        Some(max) if max >= 0 => max as usize + 1,
        _ => usize::MAX,
    };
    let mut parts: Vec<&str> = match &separator {
        Some(separator) if separator.is_empty() => return Err(invalid("rsplit: empty separator")),
        Some(separator) => s.rsplitn(n, separator.as_str()).collect(),
        None if max.is_none() => s.split_whitespace().rev().collect(),
        None => return Err(invalid("rsplit without separator but with a limit")),
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}
