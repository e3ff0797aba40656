//! Chat templates: Jinja2 text that turns a conversation into a prompt, rendered by minijinja in
//! the way that `transformers` sets up Jinja2.
//!
//! A template comes with a model file and its variables from a request, so neither is trusted:
//! `guard` rewrites the syntax tree so that a rendering stays within its limits.

use minijinja::machinery::{
    ast::Stmt, make_string_output, parse, tokenize, CodeGenerator, Token, Vm, WhitespaceConfig,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};

use crate::budget::Budget;
use crate::builtins;
use crate::error::{Error, Result};
use crate::guard;

pub const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_VARIABLE_BYTES: usize = 128 << 20;
const NAME: &str = "template";
const MAX_TAG_TOKENS: usize = 4096;
const MAX_ELIFS: usize = 1024;
/// Enough for a tree of that depth many times over; only what is used becomes memory.
const STACK_BYTES: usize = 64 << 20;
/// As `transformers` configures Jinja2.
const WHITESPACE: WhitespaceConfig =
    WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };

/// Run `f` on a thread of its own, because callers' stacks may be small. A panic passes through.
fn on_large_stack<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, f)
            .map_err(|e| Error::limit(format!("no thread for a template: {e}")))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub struct Limits {
    pub fuel: u64,
    pub memory_bytes: usize,
    pub output_bytes: usize,
}

/// The source; it is compiled for each rendering, which takes far less time than any use of the
/// prompt, and makes for a value without references into itself.
pub struct Template {
    source: String,
}

impl Template {
    pub fn new(source: &[u8]) -> Result<Template> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::limit(format!(
                "template of {} bytes, at most {MAX_SOURCE_BYTES}",
                source.len()
            )));
        }
        let source =
            std::str::from_utf8(source).map_err(|_| Error::format("template is not valid UTF-8"))?;
        let template = Template { source: without_generation_tags(source) };
        template.check_nesting()?;
        on_large_stack(|| template.parse().map(drop))?;
        Ok(template)
    }

    /// The syntax tree is as deep as a chain of operators is long, and is built, copied, compiled
    /// and dropped by recursion; chains of "elif" nest as well. The parser limits only brackets.
    fn check_nesting(&self) -> Result<()> {
        let (mut in_tag, mut elifs) = (0, 0);
        for token in tokenize(&self.source, false, SyntaxConfig::default(), WHITESPACE) {
            match token.map_err(|e| explain(&e, false))?.0 {
                Token::TemplateData(_) | Token::BlockEnd | Token::VariableEnd => in_tag = 0,
                Token::Ident("elif") => elifs += 1,
                _ => in_tag += 1,
            }
            if in_tag > MAX_TAG_TOKENS || elifs > MAX_ELIFS {
                return Err(Error::limit(format!(
                    "template with more than {MAX_TAG_TOKENS} words and signs in one tag, or more \
                     than {MAX_ELIFS} elif"
                )));
            }
        }
        Ok(())
    }

    fn parse(&self) -> Result<Stmt<'_>> {
        parse(&self.source, NAME, SyntaxConfig::default(), WHITESPACE).map_err(|e| explain(&e, false))
    }

    pub fn render(&self, defaults: &[u8], variables: &[u8], limits: &Limits) -> Result<String> {
        on_large_stack(|| self.render_here(defaults, variables, limits))
    }

    fn render_here(&self, defaults: &[u8], variables: &[u8], limits: &Limits) -> Result<String> {
        let root = Value::from_serialize(variables_of(defaults, variables)?);
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Lenient);
        env.set_fuel(Some(limits.fuel));
        builtins::install(&mut env);

        let mut generator = CodeGenerator::new(NAME, &self.source);
        generator.compile_stmt(&guard::statement(&self.parse()?));
        let (instructions, blocks) = generator.finish();

        let mut text = String::new();
        let budget = Budget::start(limits.memory_bytes);
        let mut out = make_string_output(&mut text);
        Vm::new(&env)
            .eval(&instructions, root, &blocks, &mut out, AutoEscape::None)
            .map_err(|e| explain(&e, budget.exceeded()))?;
        if text.len() > limits.output_bytes {
            return Err(Error::limit(format!(
                "template prints {} bytes, at most {}",
                text.len(),
                limits.output_bytes
            )));
        }
        Ok(text)
    }
}

fn variables_of(
    defaults: &[u8],
    variables: &[u8],
) -> Result<serde_json::Map<String, serde_json::Value>> {
    let object = |what: &str, json: &[u8]| {
        if json.len() > MAX_VARIABLE_BYTES {
            return Err(Error::limit(format!("template {what} of {} bytes", json.len())));
        }
        serde_json::from_slice::<serde_json::Map<_, _>>(json)
            .map_err(|e| Error::format(format!("template {what}: {e}")))
    };
    let mut all = object("defaults", defaults)?;
    all.extend(object("variables", variables)?);
    Ok(all)
}

/// `{% generation %}` … `{% endgeneration %}` marks what a model wrote, for training. It prints
/// nothing; a condition that always holds has the same effect on white space.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |n| n + 2);
        let (tag, after) = tag.split_at(end);
        let inner = tag[2..].strip_suffix("%}").unwrap_or("");
        let word = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn explain(e: &minijinja::Error, exceeded: bool) -> Error {
    let what = match e.detail() {
        Some(detail) => detail.to_string(),
        None => e.kind().to_string(),
    };
    let text = match e.line() {
        Some(line) => format!("{what} (template line {line})"),
        None => what,
    };
    if exceeded || e.kind() == ErrorKind::OutOfFuel {
        return Error::limit(text);
    }
    Error::format(text)
}
