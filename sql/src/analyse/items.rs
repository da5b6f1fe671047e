//! SELECT lists: every `*` written out, every column named.
//!
//! Names: the alias; else a column's own name, in joins behind its source's where others have it too; else the field's
//! name for a dereference; else KSQL_COL_n. In joins `*` puts the source in front of every name.

use millpond_types::{Column, SqlType};

use super::input::{Input, bare_column, column_expr, unique};
use super::scope::{FromSource, Names, is_pseudo};
use super::typer::Typer;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{AnalysisResult, Environment};
use crate::syntax::{self, Expr, Literal, SelectItem, Span};

/// One column of the result as the SELECT list asks for it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub name: String,
    /// Qualified.
    pub expr: Expr,
    pub span: Span,
}

/// The SELECT list with every `*` written out and every column named.
pub(super) fn expand_items(
    select: &[SelectItem],
    names: &Names<'_>,
    input: &Input,
    partition_by: &[Expr],
    transient: bool,
    reserve_names: bool,
    env: &dyn Environment,
) -> AnalysisResult<Vec<Item>> {
    let sources = names.sources;
    let join = sources.len() > 1;
    let mut aliases = Aliases::new(sources);
    let mut items: Vec<Item> = Vec::with_capacity(select.len());
    let push_star = |items: &mut Vec<Item>, aliases: &mut Aliases, only: Option<&FromSource>, span: Span| {
        let mut exprs: Vec<(String, Expr)> = Vec::new();
        if let (None, Some(name)) = (only, names.synthetic_key)
            && partition_by.is_empty()
        {
            exprs.push((name.to_owned(), bare_column(name)));
        }
        let mut keys_last = Vec::new();
        for expr in partition_by {
            match expr.column() {
                Some(column) => {
                    let of = column.qualifier.as_ref().map_or("", |q| q.value.as_str());
                    if only.is_none_or(|s| s.alias == of) {
                        let name = &column.name.value;
                        exprs.push((if join { format!("{of}_{name}") } else { name.clone() }, expr.clone()));
                    }
                }
                None if only.is_none() && expr.literal() != Some(&Literal::Null) => {
                    exprs.push((aliases.of(expr), expr.clone()));
                }
                None => {}
            }
        }
        for source in sources.iter().filter(|s| only.is_none_or(|o| o.alias == s.alias)) {
            let columns = if join && !partition_by.is_empty() {
                // As ksqlDB has it: joined rows that are partitioned anew show their pseudo columns, keys go last.
                let (keys, rest): (Vec<&Column>, Vec<&Column>) = source.columns.iter().partition(|c| c.is_key());
                rest.into_iter().chain(keys).collect()
            } else {
                source.star(transient || join)
            };
            for column in columns {
                let expr = column_expr(&source.alias, &column.name);
                if exprs.iter().any(|(_, e)| *e == expr) {
                    continue;
                }
                let name = if join { format!("{}_{}", source.alias, column.name) } else { column.name.clone() };
                if !partition_by.is_empty() && column.is_key() && !join {
                    keys_last.push((name, expr));
                } else {
                    exprs.push((name, expr));
                }
            }
        }
        exprs.append(&mut keys_last);
        items.extend(exprs.into_iter().map(|(name, expr)| Item { name, expr: at_span(expr, span), span }));
    };
    for item in select {
        match item {
            SelectItem::All { star } => push_star(&mut items, &mut aliases, None, star.span),
            SelectItem::AllOf { source, star } => {
                let source = names.source(source)?;
                push_star(&mut items, &mut aliases, Some(source), star.span);
            }
            SelectItem::AllFields { base, star } => {
                let span = base.span.to(star.span);
                let base = names.qualify(base, "SELECT")?;
                let ty = Typer::new(env, &input.bindings, "SELECT", !join).expr(&base)?.ty;
                let SqlType::Struct(fields) = ty else {
                    return Err(Diagnostic::at(
                        Code::Type,
                        span,
                        format!("cannot use 'expression->*' with a value that is no STRUCT: {ty}"),
                    ));
                };
                for field in fields {
                    let kind = syntax::ExprKind::Field {
                        base: Box::new(base.clone()),
                        field: syntax::Ident::new(field.name.clone()),
                    };
                    items.push(Item { name: field.name, expr: Expr::new(kind, span), span });
                }
            }
            SelectItem::Expr { expr, alias } => {
                let qualified = names.qualify(expr, "SELECT")?;
                let span = item.span();
                let name = match alias {
                    Some(alias) => {
                        refuse_reserved(alias, &qualified, reserve_names)?;
                        alias.value.clone()
                    }
                    None => match qualified.column() {
                        Some(column) => {
                            let name = &column.name.value;
                            let clashes = sources.iter().filter(|s| s.has(name)).count() > 1;
                            match &column.qualifier {
                                Some(qualifier) if join && clashes => format!("{}_{name}", qualifier.value),
                                _ => {
                                    if reserve_names && is_pseudo(name) {
                                        return Err(Diagnostic::at(
                                            Code::Invalid,
                                            expr.span,
                                            format!(
                                                "reserved column name in select: `{name}`. Please remove or alias the \
                                                 column"
                                            ),
                                        ));
                                    }
                                    name.clone()
                                }
                            }
                        }
                        None => aliases.of(&qualified),
                    },
                };
                items.push(Item { name, expr: qualified, span });
            }
        }
    }
    if items.is_empty() {
        return Err(Diagnostic::new(Code::Invalid, "the projection is empty"));
    }
    Ok(items)
}

/// A pseudo column's name is nobody's alias; under its own name it goes to clients only.
fn refuse_reserved(alias: &syntax::Ident, expr: &Expr, reserve_names: bool) -> AnalysisResult<()> {
    let name = &alias.value;
    if !is_pseudo(&name.to_ascii_uppercase()) {
        return Ok(());
    }
    let own = expr.column().is_some_and(|c| c.name.value.eq_ignore_ascii_case(name));
    let message = match (own, reserve_names) {
        (false, _) => {
            format!("`{name}` is a reserved column name. You cannot use it as an alias for a column")
        }
        (true, true) => format!("reserved column name in select: `{name}`. Please remove or alias the column"),
        (true, false) => return Ok(()),
    };
    Err(Diagnostic::at(Code::Invalid, alias.span, message))
}

fn at_span(expr: Expr, span: Span) -> Expr {
    Expr { span, ..expr }
}

/// Makes names for expressions that have none.
pub(super) struct Aliases {
    taken: Vec<String>,
    next: u64,
}

impl Aliases {
    pub fn new(sources: &[FromSource]) -> Self {
        let taken = sources.iter().flat_map(|s| s.columns.iter().map(|c| c.name.clone())).collect();
        Self { taken, next: 0 }
    }

    /// The last field's name for a dereference, else KSQL_COL_n; never a name of a source's column.
    pub fn of(&mut self, expr: &Expr) -> String {
        if let syntax::ExprKind::Field { field, .. } = &expr.kind {
            let name = unique(&field.value, |n| self.taken.iter().any(|t| t == n));
            self.taken.push(name.clone());
            return name;
        }
        loop {
            let name = format!("KSQL_COL_{}", self.next);
            self.next += 1;
            if !self.taken.contains(&name) {
                return name;
            }
        }
    }
}
