//! How Python prints values, JSON and dates: templates are written for Jinja2, and what they print
//! must come out as there.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use crate::budget;

/// Text that is charged to the budget as it grows.
#[derive(Default)]
pub struct Text(String);

impl Text {
    pub fn push(&mut self, s: &str) -> Result<(), Error> {
        budget::charge(s.len())?;
        self.0.push_str(s);
        Ok(())
    }

    fn push_char(&mut self, c: char) -> Result<(), Error> {
        self.push(c.encode_utf8(&mut [0; 4]))
    }

    pub fn finish(self) -> String {
        self.0
    }
}

/// str(v)
pub fn to_str(v: &Value) -> Result<String, Error> {
    let mut out = Text::default();
    write_str(&mut out, v)?;
    Ok(out.finish())
}

pub fn write_str(out: &mut Text, v: &Value) -> Result<(), Error> {
    match v.as_str() {
        Some(s) => out.push(s),
        None => write_repr(out, v),
    }
}

/// repr(v)
fn write_repr(out: &mut Text, v: &Value) -> Result<(), Error> {
    match v.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::None => out.push("None"),
        ValueKind::Bool => out.push(if v.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push(&number(v, false)),
        ValueKind::String => write_quoted(out, v.as_str().unwrap_or("")),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push("[")?;
            for (i, x) in v.try_iter()?.enumerate() {
                if i > 0 {
                    out.push(", ")?;
                }
                write_repr(out, &x)?;
            }
            out.push("]")
        }
        ValueKind::Map => {
            out.push("{")?;
            for (i, key) in v.try_iter()?.enumerate() {
                if i > 0 {
                    out.push(", ")?;
                }
                write_repr(out, &key)?;
                out.push(": ")?;
                write_repr(out, &v.get_item(&key)?)?;
            }
            out.push("}")
        }
        _ => out.push(&v.to_string()),
    }
}

fn write_quoted(out: &mut Text, s: &str) -> Result<(), Error> {
    let quote = if s.contains('\'') && !s.contains('"') { '"' } else { '\'' };
    out.push_char(quote)?;
    for c in s.chars() {
        match c {
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\\' => out.push("\\\\")?,
            c if c == quote => out.push(&format!("\\{c}"))?,
            c if is_printable(c) => out.push_char(c)?,
            c if (c as u32) < 0x100 => out.push(&format!("\\x{:02x}", c as u32))?,
            c if (c as u32) < 0x10000 => out.push(&format!("\\u{:04x}", c as u32))?,
            c => out.push(&format!("\\U{:08x}", c as u32))?,
        }
    }
    out.push_char(quote)
}

/// str.isprintable, but for code points that no Unicode version has assigned yet.
fn is_printable(c: char) -> bool {
    let other_space = c.is_whitespace() && c != ' ';
    let format = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}');
    !c.is_control() && !other_space && !format
}

fn number(v: &Value, json: bool) -> String {
    if v.is_integer() {
        return v.to_string();
    }
    match f64::try_from(v.clone()) {
        Ok(x) => float(x, json),
        Err(_) => v.to_string(),
    }
}

/// repr(float): the shortest digits that read back, with an exponent outside 1e-4 .. 1e16.
fn float(x: f64, json: bool) -> String {
    if x.is_nan() {
        return if json { "NaN" } else { "nan" }.into();
    }
    if x.is_infinite() {
        let name = if json { "Infinity" } else { "inf" };
        return format!("{}{name}", if x < 0.0 { "-" } else { "" });
    }
    let text = format!("{x:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{x}");
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}

/// The arguments of json.dumps that templates give.
pub struct Json {
    pub ascii: bool,
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

impl Json {
    pub fn write(&self, v: &Value) -> Result<String, Error> {
        let mut out = Text::default();
        self.value(&mut out, v, 0)?;
        Ok(out.finish())
    }

    fn value(&self, out: &mut Text, v: &Value, depth: usize) -> Result<(), Error> {
        match v.kind() {
            ValueKind::None => out.push("null"),
            ValueKind::Bool => out.push(if v.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push(&number(v, true)),
            ValueKind::String => self.string(out, v.as_str().unwrap_or("")),
            ValueKind::Seq | ValueKind::Iterable => self.list(out, v, depth),
            ValueKind::Map => self.map(out, v, depth),
            kind => Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("a value of type {kind} is not JSON serializable"),
            )),
        }
    }

    fn list(&self, out: &mut Text, v: &Value, depth: usize) -> Result<(), Error> {
        out.push("[")?;
        let mut empty = true;
        for x in v.try_iter()? {
            self.separate(out, empty, depth + 1)?;
            self.value(out, &x, depth + 1)?;
            empty = false;
        }
        self.close(out, "]", empty, depth)
    }

    fn map(&self, out: &mut Text, v: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = v.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        out.push("{")?;
        let empty = keys.is_empty();
        for (i, key) in keys.iter().enumerate() {
            self.separate(out, i == 0, depth + 1)?;
            match key.as_str() {
                Some(s) => self.string(out, s)?,
                None => {
                    let mut plain = Text::default();
                    self.value(&mut plain, key, 0)?;
                    self.string(out, &plain.finish())?;
                }
            }
            out.push(&self.key_separator)?;
            self.value(out, &v.get_item(key)?, depth + 1)?;
        }
        self.close(out, "}", empty, depth)
    }

    fn separate(&self, out: &mut Text, first: bool, depth: usize) -> Result<(), Error> {
        if !first {
            out.push(&self.item_separator)?;
        }
        self.new_line(out, depth)
    }

    fn close(&self, out: &mut Text, end: &str, empty: bool, depth: usize) -> Result<(), Error> {
        if !empty {
            self.new_line(out, depth)?;
        }
        out.push(end)
    }

    fn new_line(&self, out: &mut Text, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            out.push("\n")?;
            for _ in 0..depth {
                out.push(indent)?;
            }
        }
        Ok(())
    }

    fn string(&self, out: &mut Text, s: &str) -> Result<(), Error> {
        out.push("\"")?;
        for c in s.chars() {
            match c {
                '"' => out.push("\\\"")?,
                '\\' => out.push("\\\\")?,
                '\n' => out.push("\\n")?,
                '\r' => out.push("\\r")?,
                '\t' => out.push("\\t")?,
                '\u{8}' => out.push("\\b")?,
                '\u{c}' => out.push("\\f")?,
                c if (c as u32) < 0x20 => out.push(&format!("\\u{:04x}", c as u32))?,
                c if self.ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push(&format!("\\u{unit:04x}"))?;
                    }
                }
                c => out.push_char(c)?,
            }
        }
        out.push("\"")
    }
}

/// A moment without time zone, as the variable "now" gives it.
pub struct Moment {
    year: i32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

const MONTHS: [&str; 12] = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Moment {
    /// "2025-01-15", "2025-01-15T12:00", "2025-01-15 12:00:00"; what follows is ignored.
    pub fn parse(text: &str) -> Option<Moment> {
        let field = |from: usize, to: usize| -> Option<u32> {
            let digits = text.get(from..to)?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let at = |i: usize, c: &[u8]| text.as_bytes().get(i).is_some_and(|b| c.contains(b));
        if !at(4, b"-") || !at(7, b"-") {
            return None;
        }
        let mut m = Moment {
            year: field(0, 4)? as i32,
            month: field(5, 7)?,
            day: field(8, 10)?,
            hour: 0,
            minute: 0,
            second: 0,
        };
        if text.len() > 10 {
            if !at(10, b"T ") || !at(13, b":") {
                return None;
            }
            (m.hour, m.minute) = (field(11, 13)?, field(14, 16)?);
            if at(16, b":") {
                m.second = field(17, 19)?;
            }
        }
        let good = (1..=12).contains(&m.month)
            && (1..=31).contains(&m.day)
            && m.hour < 24
            && m.minute < 60
            && m.second < 61;
        good.then_some(m)
    }

    /// Days since 1970-01-01, by counting years from March on.
    fn days(&self) -> i64 {
        let (y, m) = (self.year as i64 - (self.month <= 2) as i64, self.month as i64);
        let from_march = (153 * ((m + 9) % 12) + 2) / 5 + self.day as i64 - 1;
        y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + from_march - 719_468
    }

    fn day_of_year(&self) -> i64 {
        let new_year = Moment { month: 1, day: 1, ..*self };
        self.days() - new_year.days() + 1
    }

    pub fn format(&self, format: &str) -> Result<String, Error> {
        let mut out = Text::default();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push_char(c)?;
                continue;
            }
            let mut code = chars.next();
            let bare = code == Some('-');
            if bare {
                code = chars.next();
            }
            let field = self.field(code.unwrap_or('%')).ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, format!("strftime format {format:?}"))
            })?;
            let digits = field.trim_start_matches(['0', ' ']);
            out.push(if bare && !digits.is_empty() { digits } else { &field })?;
        }
        Ok(out.finish())
    }

    fn field(&self, code: char) -> Option<String> {
        let hour12 = (self.hour + 11) % 12 + 1;
        let weekday = (self.days() + 4).rem_euclid(7) as usize;
        let month = MONTHS[self.month as usize - 1];
        Some(match code {
            'Y' => format!("{}", self.year),
            'y' => format!("{:02}", self.year % 100),
            'm' => format!("{:02}", self.month),
            'B' => month.into(),
            'b' | 'h' => month[..3].into(),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year()),
            'A' => DAYS[weekday].into(),
            'a' => DAYS[weekday][..3].into(),
            'w' => format!("{weekday}"),
            'u' => format!("{}", (weekday + 6) % 7 + 1),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{hour12:02}"),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'f' => "000000".into(),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.into(),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month, self.day),
            'T' | 'X' => format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
            'R' => format!("{:02}:{:02}", self.hour, self.minute),
            'D' | 'x' => format!("{:02}/{:02}/{:02}", self.month, self.day, self.year % 100),
            'Z' | 'z' => String::new(),
            'n' => "\n".into(),
            't' => "\t".into(),
            '%' => "%".into(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    #[test]
    fn floats_as_python_prints_them() {
        let cases = [
            (1.0, "1.0"), (0.1, "0.1"), (-0.0, "-0.0"), (1e15, "1000000000000000.0"),
            (1e16, "1e+16"), (1.5e-5, "1.5e-05"), (1e-4, "0.0001"), (123456.789, "123456.789"),
            (1e22, "1e+22"), (5e-324, "5e-324"), (f64::NAN, "nan"), (f64::NEG_INFINITY, "-inf"),
        ];
        for (x, text) in cases {
            assert_eq!(float(x, false), text);
        }
    }

    #[test]
    fn repr_of_values() {
        let _budget = Budget::start(1 << 20);
        let v: serde_json::Value =
            serde_json::from_str(r#"{"b": [1, null, true, "it's", "a\n\u0001"], "a": 2.0}"#).unwrap();
        let text = to_str(&Value::from_serialize(v)).unwrap();
        assert_eq!(text, r#"{'b': [1, None, True, "it's", 'a\n\x01'], 'a': 2.0}"#);
    }

    #[test]
    fn dates() {
        let m = Moment::parse("2025-01-05T14:03:09").unwrap();
        let _budget = Budget::start(1 << 20);
        assert_eq!(m.format("%a %A %d %-d %e %b %B %Y").unwrap(),
                   "Sun Sunday 05 5  5 Jan January 2025");
        assert_eq!(m.format("%j %H:%M:%S %I %p %y %w %u %%").unwrap(),
                   "005 14:03:09 02 PM 25 0 7 %");
        assert_eq!(Moment::parse("2024-12-31").unwrap().format("%j %-H").unwrap(), "366 00");
        assert_eq!(Moment::parse("2000-02-29").unwrap().format("%a").unwrap(), "Tue");
        assert!(m.format("%Q").is_err());
        for bad in ["", "2025", "2025-13-01", "2025-01-01T25:00", "2025-01-0x", "２０２５-01-01"] {
            assert!(Moment::parse(bad).is_none(), "{bad}");
        }
    }
}
