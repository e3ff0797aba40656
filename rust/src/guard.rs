//! Rebuilds the syntax tree of a template with calls to the budget in it.
//!
//! minijinja counts instructions, but one instruction may join two long strings. So before code is
//! generated, every expression that makes something new is wrapped in a call of one of our
//! functions, under names that no template can write (and so neither call nor replace):
//!
//! * raw text becomes an expression, so that all output passes through the formatter;
//! * `a ~ b`, `a * b` and `a % b` become calls (`~` prints values as Python does, `%` formats
//!   text, which minijinja's do not); sums, slices and filtered values are charged after the fact, since they grow linearly;
//! * literals and values stored in a namespace are charged with all that they contain;
//! * bodies of loops and macros begin with a look at the clock.
//!
//! Constants are also kept from being folded while compiling, where no budget would be charged.
//! The tree's nodes cannot be changed in place, hence the copying.

use minijinja::machinery::ast::*;
use minijinja::machinery::Span;
use minijinja::Value;

/// Names of the functions; `builtins` defines them.
pub const CHARGE: &str = "$charge";
pub const DEEP: &str = "$deep";
pub const STORED: &str = "$stored";
pub const CONCAT: &str = "$concat";
pub const MULTIPLY: &str = "$multiply";
pub const REMAINDER: &str = "$remainder";
pub const KEEP: &str = "$keep";
pub const TICK: &str = "$tick";
pub const UNAVAILABLE: &str = "$unavailable";

fn call<'a>(name: &'static str, args: Vec<Expr<'a>>, span: Span) -> Spanned<Call<'a>> {
    let expr = Expr::Var(Spanned::new(Var { id: name }, span));
    Spanned::new(Call { expr, args: args.into_iter().map(CallArg::Pos).collect() }, span)
}

fn wrap<'a>(name: &'static str, arg: Expr<'a>, span: Span) -> Expr<'a> {
    Expr::Call(call(name, vec![arg], span))
}

pub fn statement<'a>(s: &Stmt<'a>) -> Stmt<'a> {
    match s {
        Stmt::Template(t) => {
            Stmt::Template(Spanned::new(Template { children: body(&t.children) }, t.span()))
        }
        Stmt::EmitExpr(e) => {
            Stmt::EmitExpr(Spanned::new(EmitExpr { expr: expression(&e.expr) }, e.span()))
        }
        Stmt::EmitRaw(e) => {
            let text = Const { value: Value::from(e.raw) };
            let expr = Expr::Const(Spanned::new(text, e.span()));
            Stmt::EmitExpr(Spanned::new(EmitExpr { expr }, e.span()))
        }
        Stmt::ForLoop(f) => Stmt::ForLoop(Spanned::new(
            ForLoop {
                target: target(&f.target),
                iter: expression(&f.iter),
                filter_expr: f.filter_expr.as_ref().map(expression),
                recursive: f.recursive,
                body: ticking(&f.body, f.span()),
                else_body: body(&f.else_body),
            },
            f.span(),
        )),
        Stmt::IfCond(c) => Stmt::IfCond(Spanned::new(
            IfCond {
                expr: expression(&c.expr),
                true_body: body(&c.true_body),
                false_body: body(&c.false_body),
            },
            c.span(),
        )),
        Stmt::WithBlock(w) => {
            let assign = |(t, e): &(Expr<'a>, Expr<'a>)| (target(t), expression(e));
            let assignments = w.assignments.iter().map(assign).collect();
            Stmt::WithBlock(Spanned::new(WithBlock { assignments, body: body(&w.body) }, w.span()))
        }
        Stmt::Set(s) => Stmt::Set(Spanned::new(set(s), s.span())),
        Stmt::SetBlock(s) => Stmt::SetBlock(Spanned::new(
            SetBlock {
                target: target(&s.target),
                filter: s.filter.as_ref().map(block_filter),
                body: body(&s.body),
            },
            s.span(),
        )),
        Stmt::AutoEscape(a) => Stmt::AutoEscape(Spanned::new(
            AutoEscape { enabled: expression(&a.enabled), body: body(&a.body) },
            a.span(),
        )),
        Stmt::FilterBlock(f) => Stmt::FilterBlock(Spanned::new(
            FilterBlock { filter: block_filter(&f.filter), body: body(&f.body) },
            f.span(),
        )),
        Stmt::Macro(m) => Stmt::Macro(macro_declaration(m)),
        Stmt::CallBlock(c) => Stmt::CallBlock(Spanned::new(
            CallBlock { call: call_node(&c.call), macro_decl: macro_declaration(&c.macro_decl) },
            c.span(),
        )),
        Stmt::Continue(c) => Stmt::Continue(Spanned::new(Continue, c.span())),
        Stmt::Break(b) => Stmt::Break(Spanned::new(Break, b.span())),
        Stmt::Do(d) => Stmt::Do(Spanned::new(Do { call: call_node(&d.call) }, d.span())),
        // Without inheritance a block is its content; there is nothing to inherit or import from.
        Stmt::Block(b) => Stmt::WithBlock(Spanned::new(
            WithBlock { assignments: Vec::new(), body: body(&b.body) },
            b.span(),
        )),
        Stmt::Import(s) => unavailable(s.span()),
        Stmt::FromImport(s) => unavailable(s.span()),
        Stmt::Extends(s) => unavailable(s.span()),
        Stmt::Include(s) => unavailable(s.span()),
    }
}

fn unavailable<'a>(span: Span) -> Stmt<'a> {
    Stmt::Do(Spanned::new(Do { call: call(UNAVAILABLE, Vec::new(), span) }, span))
}

fn body<'a>(statements: &[Stmt<'a>]) -> Vec<Stmt<'a>> {
    statements.iter().map(statement).collect()
}

fn ticking<'a>(statements: &[Stmt<'a>], span: Span) -> Vec<Stmt<'a>> {
    let tick = Stmt::Do(Spanned::new(Do { call: call(TICK, Vec::new(), span) }, span));
    std::iter::once(tick).chain(statements.iter().map(statement)).collect()
}

fn set<'a>(s: &Set<'a>) -> Set<'a> {
    let expr = expression(&s.expr);
    let stored = matches!(s.target, Expr::GetAttr(_));
    let expr = if stored { wrap(STORED, expr, s.expr.span()) } else { expr };
    Set { target: target(&s.target), expr }
}

fn macro_declaration<'a>(m: &Spanned<Macro<'a>>) -> Spanned<Macro<'a>> {
    Spanned::new(
        Macro {
            name: m.name,
            args: m.args.iter().map(target).collect(),
            defaults: expressions(&m.defaults),
            body: ticking(&m.body, m.span()),
        },
        m.span(),
    )
}

/// What is assigned to: a name, several, or an attribute. Not a value, so nothing to charge.
fn target<'a>(e: &Expr<'a>) -> Expr<'a> {
    match e {
        Expr::List(l) => {
            let items = l.items.iter().map(target).collect();
            Expr::List(Spanned::new(List { items }, l.span()))
        }
        Expr::GetAttr(a) => Expr::GetAttr(Spanned::new(
            GetAttr { expr: target(&a.expr), name: a.name },
            a.span(),
        )),
        other => expression(other),
    }
}

/// The filter of a block has no input expression at its root; its result is emitted or captured.
fn block_filter<'a>(e: &Expr<'a>) -> Expr<'a> {
    match e {
        Expr::Filter(f) => Expr::Filter(Spanned::new(
            Filter {
                name: f.name,
                expr: f.expr.as_ref().map(block_filter),
                args: arguments(&f.args),
            },
            f.span(),
        )),
        other => expression(other),
    }
}

fn expressions<'a>(list: &[Expr<'a>]) -> Vec<Expr<'a>> {
    list.iter().map(expression).collect()
}

fn arguments<'a>(args: &[CallArg<'a>]) -> Vec<CallArg<'a>> {
    let argument = |a: &CallArg<'a>| match a {
        CallArg::Pos(e) => CallArg::Pos(expression(e)),
        CallArg::Kwarg(name, e) => CallArg::Kwarg(name, expression(e)),
        CallArg::PosSplat(e) => CallArg::PosSplat(expression(e)),
        CallArg::KwargSplat(e) => CallArg::KwargSplat(expression(e)),
    };
    args.iter().map(argument).collect()
}

fn call_node<'a>(c: &Spanned<Call<'a>>) -> Spanned<Call<'a>> {
    // Never charged: as the callee, `loop` and method names are syntax.
    let expr = match &c.expr {
        Expr::GetAttr(a) => Expr::GetAttr(Spanned::new(
            GetAttr { expr: expression(&a.expr), name: a.name },
            a.span(),
        )),
        other => expression(other),
    };
    Spanned::new(Call { expr, args: arguments(&c.args) }, c.span())
}

pub fn expression<'a>(e: &Expr<'a>) -> Expr<'a> {
    let span = e.span();
    match e {
        Expr::Var(v) => Expr::Var(Spanned::new(Var { id: v.id }, span)),
        Expr::Const(c) => Expr::Const(Spanned::new(Const { value: c.value.clone() }, span)),
        Expr::Slice(s) => {
            let slice = Slice {
                expr: expression(&s.expr),
                start: s.start.as_ref().map(expression),
                stop: s.stop.as_ref().map(expression),
                step: s.step.as_ref().map(expression),
            };
            wrap(CHARGE, Expr::Slice(Spanned::new(slice, span)), span)
        }
        Expr::UnaryOp(u) => {
            let op = match u.op {
                UnaryOpKind::Not => UnaryOpKind::Not,
                UnaryOpKind::Neg => UnaryOpKind::Neg,
            };
            Expr::UnaryOp(Spanned::new(UnaryOp { op, expr: expression(&u.expr) }, span))
        }
        Expr::BinOp(b) => binary(b, span),
        Expr::Compare(c) => {
            let op = |o: &CompareOp<'a>| CompareOp { op: o.op, expr: expression(&o.expr) };
            let ops = c.ops.iter().map(op).collect();
            Expr::Compare(Spanned::new(Compare { expr: expression(&c.expr), ops }, span))
        }
        Expr::IfExpr(i) => Expr::IfExpr(Spanned::new(
            IfExpr {
                test_expr: expression(&i.test_expr),
                true_expr: expression(&i.true_expr),
                false_expr: i.false_expr.as_ref().map(expression),
            },
            span,
        )),
        Expr::Filter(f) => {
            let filter = Filter {
                name: f.name,
                expr: f.expr.as_ref().map(expression),
                args: arguments(&f.args),
            };
            wrap(CHARGE, Expr::Filter(Spanned::new(filter, span)), span)
        }
        Expr::Test(t) => Expr::Test(Spanned::new(
            Test { name: t.name, expr: expression(&t.expr), args: arguments(&t.args) },
            span,
        )),
        Expr::GetAttr(a) => Expr::GetAttr(Spanned::new(
            GetAttr { expr: expression(&a.expr), name: a.name },
            span,
        )),
        Expr::GetItem(g) => Expr::GetItem(Spanned::new(
            GetItem { expr: expression(&g.expr), subscript_expr: expression(&g.subscript_expr) },
            span,
        )),
        Expr::Call(c) => Expr::Call(call_node(c)),
        Expr::List(l) => {
            let list = List { items: expressions(&l.items) };
            wrap(DEEP, Expr::List(Spanned::new(list, span)), span)
        }
        Expr::Map(m) => {
            let map = Map { keys: expressions(&m.keys), values: expressions(&m.values) };
            wrap(DEEP, Expr::Map(Spanned::new(map, span)), span)
        }
    }
}

fn binary<'a>(b: &BinOp<'a>, span: Span) -> Expr<'a> {
    let (left, right) = (expression(&b.left), expression(&b.right));
    let keep = |op, left, right| Expr::BinOp(Spanned::new(BinOp { op, left, right }, span));
    match b.op {
        BinOpKind::Concat => Expr::Call(call(CONCAT, vec![left, right], span)),
        BinOpKind::Mul => Expr::Call(call(MULTIPLY, vec![left, right], span)),
        BinOpKind::Rem => Expr::Call(call(REMAINDER, vec![left, right], span)),
        // A call on one side keeps constants from being added up by the compiler.
        BinOpKind::Add => wrap(CHARGE, keep(b.op, wrap(KEEP, left, span), right), span),
        op => keep(op, left, right),
    }
}
