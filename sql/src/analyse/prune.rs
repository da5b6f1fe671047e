//! Drops the columns that nobody reads, down to the sources, so that a decoder builds only what is wanted.
//!
//! Invariants: the result of the plan does not change; the rows of a table, and of each side of a join, keep their key
//! columns; a source keeps at least one column.

use millpond_types::Schema;

use crate::expr::{ExprKind, TypedExpr};
use crate::plan::{JoinColumn, JoinOutput, Node, NodeKind, Relation};

/// The plan with the same result and no idle columns.
pub(super) fn prune(root: Node) -> Node {
    let all = (0..root.schema.columns.len()).collect();
    narrow(root, all).0
}

/// Where each old column is now.
struct Moved(Vec<Option<usize>>);

impl Moved {
    fn of(kept: &[usize], width: usize) -> Self {
        let mut moved = vec![None; width];
        for (new, old) in kept.iter().enumerate() {
            if let Some(slot) = moved.get_mut(*old) {
                *slot = Some(new);
            }
        }
        Self(moved)
    }

    fn get(&self, old: usize) -> usize {
        self.0.get(old).copied().flatten().unwrap_or(old)
    }

    fn rewrite(&self, expr: &mut TypedExpr) {
        expr.walk_mut(&mut |e| {
            if let ExprKind::Column(i) = &mut e.kind {
                *i = self.get(*i);
            }
        });
    }
}

fn keep_columns(schema: Schema, kept: &[usize]) -> Schema {
    Schema::new(kept.iter().filter_map(|i| schema.columns.get(*i).cloned()).collect())
}

fn sorted(mut columns: Vec<usize>) -> Vec<usize> {
    columns.sort_unstable();
    columns.dedup();
    columns
}

fn key_columns(node: &Node) -> Vec<usize> {
    node.schema.columns.iter().enumerate().filter(|(_, c)| c.is_key()).map(|(i, _)| i).collect()
}

/// Keeps the wanted columns and those that must stay.
fn narrow(node: Node, mut wanted: Vec<usize>) -> (Node, Moved) {
    if node.relation == Relation::Table {
        wanted.extend(key_columns(&node));
    }
    let wanted = sorted(wanted);
    let Node { kind, schema, relation, window } = node;
    let width = schema.columns.len();
    let build = |kind: NodeKind, schema: Schema, moved: Moved| (Node { kind, schema, relation, window }, moved);
    match kind {
        NodeKind::Source(source) => {
            let kept = if wanted.is_empty() { vec![0] } else { wanted };
            let moved = Moved::of(&kept, width);
            build(NodeKind::Source(source), keep_columns(schema, &kept), moved)
        }
        NodeKind::Filter { input, mut predicate } => {
            let mut below = wanted;
            below.extend(predicate.columns());
            let (input, moved) = narrow(*input, below);
            moved.rewrite(&mut predicate);
            let schema = input.schema.clone();
            build(NodeKind::Filter { input: Box::new(input), predicate }, schema, moved)
        }
        NodeKind::Project { input, exprs } => {
            let mut kept_exprs: Vec<TypedExpr> =
                exprs.into_iter().enumerate().filter(|(i, _)| wanted.contains(i)).map(|(_, e)| e).collect();
            let below = kept_exprs.iter().flat_map(TypedExpr::columns).collect();
            let (input, below) = narrow(*input, below);
            kept_exprs.iter_mut().for_each(|e| below.rewrite(e));
            let moved = Moved::of(&wanted, width);
            let schema = keep_columns(schema, &wanted);
            build(NodeKind::Project { input: Box::new(input), exprs: kept_exprs }, schema, moved)
        }
        NodeKind::FlatMap { input, mut calls } => {
            let inner = input.schema.columns.len();
            let mut below: Vec<usize> = wanted.iter().copied().filter(|i| *i < inner).collect();
            below.extend(calls.iter().flat_map(TypedExpr::columns));
            let (input, below) = narrow(*input, below);
            calls.iter_mut().for_each(|e| below.rewrite(e));
            let now = input.schema.columns.len();
            let mut slots = below.0;
            slots.truncate(inner);
            slots.extend((0..calls.len()).map(|i| Some(now + i)));
            let mut columns = input.schema.columns.clone();
            columns.extend(schema.columns.into_iter().skip(inner));
            build(NodeKind::FlatMap { input: Box::new(input), calls }, Schema::new(columns), Moved(slots))
        }
        NodeKind::Rekey { input, mut keys, keep, key_format } => {
            let count = keys.len();
            let kept: Vec<usize> = (0..width).filter(|i| *i < count || wanted.contains(i)).collect();
            let keep: Vec<usize> =
                keep.into_iter().enumerate().filter(|(i, _)| wanted.contains(&(i + count))).map(|(_, c)| c).collect();
            let mut below = keep.clone();
            below.extend(keys.iter().flat_map(TypedExpr::columns));
            let (input, below) = narrow(*input, below);
            keys.iter_mut().for_each(|e| below.rewrite(e));
            let keep = keep.into_iter().map(|c| below.get(c)).collect();
            let moved = Moved::of(&kept, width);
            let schema = keep_columns(schema, &kept);
            build(NodeKind::Rekey { input: Box::new(input), keys, keep, key_format }, schema, moved)
        }
        NodeKind::Aggregate { input, mut group_by, mut calls, window: spec, key_format, exchange } => {
            let args = calls.iter().flat_map(|c| &c.call.args);
            let below = group_by.iter().chain(args).flat_map(TypedExpr::columns).collect();
            let (input, below) = narrow(*input, below);
            group_by.iter_mut().for_each(|e| below.rewrite(e));
            calls.iter_mut().flat_map(|c| &mut c.call.args).for_each(|e| below.rewrite(e));
            let all: Vec<usize> = (0..width).collect();
            let kind =
                NodeKind::Aggregate { input: Box::new(input), group_by, calls, window: spec, key_format, exchange };
            build(kind, schema, Moved::of(&all, width))
        }
        NodeKind::StreamStreamJoin { left, right, kind, before_ms, after_ms, grace_ms, output } => {
            let (kept, output) = narrow_output(output, &wanted);
            let (left, right, output, _) = narrow_sides(*left, *right, output, Vec::new());
            let kind = NodeKind::StreamStreamJoin { left, right, kind, before_ms, after_ms, grace_ms, output };
            build(kind, keep_columns(schema, &kept), Moved::of(&kept, width))
        }
        NodeKind::StreamTableJoin { left, right, kind, output } => {
            let (kept, output) = narrow_output(output, &wanted);
            let (left, right, output, _) = narrow_sides(*left, *right, output, Vec::new());
            let kind = NodeKind::StreamTableJoin { left, right, kind, output };
            build(kind, keep_columns(schema, &kept), Moved::of(&kept, width))
        }
        NodeKind::TableTableJoin { left, right, kind, output } => {
            let (kept, output) = narrow_output(output, &wanted);
            let (left, right, output, _) = narrow_sides(*left, *right, output, Vec::new());
            let kind = NodeKind::TableTableJoin { left, right, kind, output };
            build(kind, keep_columns(schema, &kept), Moved::of(&kept, width))
        }
        NodeKind::ForeignKeyJoin { left, right, kind, mut left_key, output } => {
            let (kept, output) = narrow_output(output, &wanted);
            let (left, right, output, moved) = narrow_sides(*left, *right, output, left_key.columns());
            moved.rewrite(&mut left_key);
            let kind = NodeKind::ForeignKeyJoin { left, right, kind, left_key, output };
            build(kind, keep_columns(schema, &kept), Moved::of(&kept, width))
        }
    }
}

/// The wanted columns of a join, and its key columns.
fn narrow_output(output: JoinOutput, wanted: &[usize]) -> (Vec<usize>, JoinOutput) {
    let mut kept = Vec::new();
    let mut columns = Vec::new();
    for (i, column) in output.columns.into_iter().enumerate() {
        if matches!(column, JoinColumn::Key(_)) || wanted.contains(&i) {
            kept.push(i);
            columns.push(column);
        }
    }
    (kept, JoinOutput { columns })
}

/// Both sides with what the output takes from them, their keys, and what else the left one needs.
fn narrow_sides(
    left: Node,
    right: Node,
    output: JoinOutput,
    more_left: Vec<usize>,
) -> (Box<Node>, Box<Node>, JoinOutput, Moved) {
    let mut of_left = key_columns(&left);
    let mut of_right = key_columns(&right);
    of_left.extend(more_left);
    for column in &output.columns {
        match column {
            JoinColumn::Left(i) => of_left.push(*i),
            JoinColumn::Right(i) => of_right.push(*i),
            JoinColumn::Key(_) | JoinColumn::RowTime => {}
        }
    }
    let (left, moved_left) = narrow(left, of_left);
    let (right, moved_right) = narrow(right, of_right);
    let columns = output
        .columns
        .into_iter()
        .map(|column| match column {
            JoinColumn::Left(i) => JoinColumn::Left(moved_left.get(i)),
            JoinColumn::Right(i) => JoinColumn::Right(moved_right.get(i)),
            other => other,
        })
        .collect();
    (Box::new(left), Box::new(right), JoinOutput { columns }, moved_left)
}
