//! The rows that the clauses of a query work on: a source, or sources joined, with what is known about their key.

use millpond_types::{ColumnRole, Schema};

use super::scope::FromSource;
use super::typer::Binding;
use crate::plan::{Node, NodeKind, Relation};
use crate::syntax::{ColumnRef, Expr, ExprKind, Ident, Span};

/// A key column of the rows and the names under which a projection may pick it.
#[derive(Clone, Debug)]
pub(super) struct KeyColumn {
    /// Index in the node's schema.
    pub index: usize,
    /// Everything known to equal the key: columns, and for joins also expressions. Preferred ones first.
    pub equal: Vec<Expr>,
}

impl KeyColumn {
    /// The columns that can name the key.
    pub fn viable(&self) -> impl Iterator<Item = &Expr> {
        self.equal.iter().filter(|e| e.column().is_some())
    }
}

/// A node and how expressions refer to its columns.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub node: Node,
    pub bindings: Vec<Binding>,
    pub keys: Vec<KeyColumn>,
    /// Partitions of the rows, for joins that need equally many.
    pub partitions: i32,
    /// Format in which the rows are partitioned by their key.
    pub key_format: crate::plan::FormatSpec,
    /// A key that no source column names: its name.
    pub synthetic_key: Option<String>,
    /// The left table of a foreign-key join, whose rules about keys in the projection differ.
    pub foreign_key_left: Option<String>,
}

impl Input {
    pub fn of_source(source: &FromSource) -> Self {
        let schema = Schema::new(source.columns.clone());
        let bindings = source
            .columns
            .iter()
            .enumerate()
            .map(|(index, c)| Binding { expr: column_expr(&source.alias, &c.name), index, ty: c.ty.clone() })
            .collect();
        let keys = source
            .columns
            .iter()
            .enumerate()
            .filter(|(_, c)| c.role == ColumnRole::Key)
            .map(|(index, c)| KeyColumn { index, equal: vec![column_expr(&source.alias, &c.name)] })
            .collect();
        let info = &source.info;
        Self {
            node: Node { kind: NodeKind::Source(info.clone()), schema, relation: info.relation, window: info.window },
            bindings,
            keys,
            partitions: info.partitions,
            key_format: info.key_format.clone(),
            synthetic_key: None,
            foreign_key_left: None,
        }
    }

    pub fn relation(&self) -> Relation {
        self.node.relation
    }

    /// Whether the rows are keyed by exactly this expression.
    pub fn is_keyed_by(&self, expr: &Expr) -> bool {
        matches!(self.keys.as_slice(), [key] if key.equal.contains(expr))
    }
}

pub(super) fn column_expr(source: &str, name: &str) -> Expr {
    let column = ColumnRef { qualifier: Some(Ident::new(source)), name: Ident::new(name) };
    Expr::new(ExprKind::Column(column), Span::default())
}

pub(super) fn bare_column(name: &str) -> Expr {
    Expr::new(ExprKind::Column(ColumnRef { qualifier: None, name: Ident::new(name) }), Span::default())
}

/// A name that is not taken: itself, or with `_1`, `_2` ... behind it.
pub(super) fn unique(name: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(name) {
        return name.to_owned();
    }
    let mut n = 1u64;
    loop {
        let candidate = format!("{name}_{n}");
        if !taken(&candidate) {
            return candidate;
        }
        n += 1;
    }
}
