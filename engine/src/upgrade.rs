//! Whether CREATE OR REPLACE may keep the state of the query that it replaces.
//!
//! State belongs to an operator by role and place. A plan may change between them (filters, projections, what is
//! selected) as long as the operators with state are the same, in the same order, with the same keys and values.

use millpond_sql::plan::{Node, NodeKind, QueryPlan, Relation};
use millpond_types::Schema;

/// Why the new plan cannot go on with the old one's state; `None` where it can.
pub fn incompatible(old: &QueryPlan, new: &QueryPlan) -> Option<String> {
    if old.sources != new.sources {
        return Some(format!("it reads [{}] and would read [{}]", old.sources.join(", "), new.sources.join(", ")));
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    operators(&old.root, false, &mut before);
    operators(&new.root, false, &mut after);
    for (i, a) in before.iter().enumerate() {
        match after.get(i) {
            Some(b) if a == b => {}
            Some(b) => return Some(format!("the state of {} cannot become that of {}", a, b)),
            None => return Some(format!("{a} would be gone, and its state with it")),
        }
    }
    after.get(before.len()).map(|b| format!("{b} would be new, without the state of what was read before"))
}

/// Operators with state and those that decide where rows go, each in words that tell their state apart. `kept`: whether
/// the rows that a table's changes replace are asked for, so that a table that is read is kept.
fn operators(node: &Node, kept: bool, out: &mut Vec<String>) {
    // What is kept of a row is its columns in their order: names count, as another column may have the same type.
    let columns =
        |schema: &Schema| schema.columns.iter().map(|c| format!("{} {}", c.name, c.ty)).collect::<Vec<_>>().join(", ");
    match &node.kind {
        NodeKind::Source(info) if kept && info.relation == Relation::Table => {
            out.push(format!("table {} with ({})", info.name, columns(&node.schema)));
        }
        NodeKind::Source(_) => {}
        NodeKind::Filter { input, .. } => operators(input, true, out),
        NodeKind::Project { input, .. } | NodeKind::FlatMap { input, .. } => {
            operators(input, kept, out);
        }
        NodeKind::Rekey { input, keys, .. } => {
            operators(input, kept, out);
            let keys: Vec<String> = keys.iter().map(|k| named(k, &input.schema)).collect();
            out.push(format!("PARTITION BY ({})", keys.join(", ")));
        }
        NodeKind::Aggregate { input, group_by, calls, window, .. } => {
            operators(input, true, out);
            let groups: Vec<String> = group_by.iter().map(|k| named(k, &input.schema)).collect();
            let calls: Vec<String> = calls
                .iter()
                .map(|c| {
                    let args: Vec<String> = c.call.args.iter().map(|a| named(a, &input.schema)).collect();
                    format!("{}({})", c.call.name, args.join(", "))
                })
                .collect();
            let window = window.as_ref().map_or_else(String::new, |w| {
                format!(
                    " in {:?} windows of {} ms by {} ms, grace {} ms",
                    w.kind,
                    w.size_ms,
                    w.advance_ms,
                    w.grace_ms()
                )
            });
            out.push(format!("GROUP BY ({}) with {}{window}", groups.join(", "), calls.join(", ")));
        }
        NodeKind::StreamStreamJoin { left, right, .. }
        | NodeKind::StreamTableJoin { left, right, .. }
        | NodeKind::TableTableJoin { left, right, .. }
        | NodeKind::ForeignKeyJoin { left, right, .. } => {
            operators(left, false, out);
            operators(right, false, out);
            out.push(format!("the join of ({}) and ({})", columns(&left.schema), columns(&right.schema)));
        }
    }
}

/// An expression with column names for indexes, which move when other columns are read.
fn named(expr: &millpond_sql::expr::TypedExpr, schema: &Schema) -> String {
    millpond_sql::plan::describe_expr(expr, schema)
}
