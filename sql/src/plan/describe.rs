//! Plans as text, for EXPLAIN and for tests: one line per node, inputs indented below.

use std::fmt::Write;

use millpond_types::{Schema, Value};

use super::{
    AggregateCall, JoinColumn, JoinKind, JoinOutput, KeyWindow, Node, NodeKind, PullPlan, QueryPlan, WindowKind,
    WindowSpec,
};
use crate::expr::{ArithmeticOp, CompareOp, ExprKind, TypedExpr};

/// The plan of a streaming query.
pub fn describe(plan: &QueryPlan) -> String {
    let mut out = String::new();
    if let Some(limit) = plan.limit {
        let _ = writeln!(out, "limit {limit}");
    }
    node(&mut out, &plan.root, 0);
    out
}

/// One expression over the columns of a schema.
pub fn describe_expr(this: &TypedExpr, schema: &Schema) -> String {
    let names: Vec<String> = schema.columns.iter().map(|c| c.name.clone()).collect();
    expr(this, &names)
}

/// The plan of a pull query.
pub fn describe_pull(plan: &PullPlan) -> String {
    let mut out = String::new();
    let names: Vec<String> = pull_names(plan);
    let show = |e: &TypedExpr| expr(e, &names);
    let grouped: Vec<String> =
        plan.group_by.iter().flatten().map(show).chain(plan.aggregates.iter().map(|c| aggregate(c, &names))).collect();
    let above = if plan.group_by.is_some() { &grouped } else { &names };
    let list = |items: Vec<String>| items.join(", ");
    if let Some(limit) = plan.limit {
        let _ = writeln!(out, "limit {limit}");
    }
    if !plan.order_by.is_empty() {
        let order = plan.order_by.iter().map(|o| {
            let direction = if o.descending { " DESC" } else { "" };
            format!("{}{direction}", expr(&o.expr, above))
        });
        let _ = writeln!(out, "order by {}", list(order.collect()));
    }
    let select = plan.select.iter().map(|(name, e)| format!("{name} = {}", expr(e, above)));
    let _ = writeln!(out, "select {} -> {}", list(select.collect()), plan.schema);
    if let Some(having) = &plan.having {
        let _ = writeln!(out, "having {}", expr(having, above));
    }
    if let Some(group_by) = &plan.group_by {
        let calls = plan.aggregates.iter().map(|c| aggregate(c, &names)).collect();
        let _ = writeln!(out, "group by [{}] compute [{}]", list(group_by.iter().map(show).collect()), list(calls));
    }
    if let Some(filter) = &plan.filter {
        let _ = writeln!(out, "filter {}", show(filter));
    }
    for (i, table) in plan.tables.iter().enumerate() {
        match i.checked_sub(1).and_then(|j| plan.joins.get(j)) {
            None => {
                let _ = writeln!(out, "table {}", table.name);
            }
            Some(join) => {
                let on = format!("{} = {}", show(&join.left), show(&join.right));
                let _ = writeln!(out, "{} join table {} on {on}", join_word(join.kind), table.name);
            }
        }
    }
    out
}

fn pull_names(plan: &PullPlan) -> Vec<String> {
    let mut names = Vec::new();
    for table in &plan.tables {
        let mut columns: Vec<&str> = table.schema.columns.iter().map(|c| c.name.as_str()).collect();
        if table.window.is_some() {
            columns.extend(["WINDOWSTART", "WINDOWEND"]);
        }
        columns.push("ROWTIME");
        names.extend(
            columns.into_iter().map(
                |c| {
                    if plan.tables.len() == 1 { c.to_owned() } else { format!("{}.{c}", table.name) }
                },
            ),
        );
    }
    names
}

fn names_of(schema: &Schema) -> Vec<String> {
    schema.columns.iter().map(|c| c.name.clone()).collect()
}

fn node(out: &mut String, this: &Node, depth: usize) {
    let input_names = this.inputs().first().map_or_else(Vec::new, |n| names_of(&n.schema));
    let show = |e: &TypedExpr| expr(e, &input_names);
    let list = |exprs: &[TypedExpr]| exprs.iter().map(show).collect::<Vec<_>>().join(", ");
    let line = match &this.kind {
        NodeKind::Source(source) => format!("source {} {}", this.relation.to_string().to_lowercase(), source.name),
        NodeKind::Filter { predicate, .. } => format!("filter {}", show(predicate)),
        NodeKind::Project { exprs, .. } => format!("project {}", list(exprs)),
        NodeKind::FlatMap { calls, .. } => format!("flat map {}", list(calls)),
        NodeKind::Rekey { keys, key_format, .. } => {
            format!("rekey [{}] in {}", list(keys), key_format.name)
        }
        NodeKind::Aggregate { group_by, calls, window, key_format, exchange, .. } => {
            let calls: Vec<String> = calls.iter().map(|c| aggregate(c, &input_names)).collect();
            let window = window.as_ref().map(window_text).unwrap_or_default();
            let exchange = if *exchange { format!(" exchange in {}", key_format.name) } else { String::new() };
            format!("aggregate by [{}] compute [{}]{window}{exchange}", list(group_by), calls.join(", "))
        }
        NodeKind::StreamStreamJoin { kind, before_ms, after_ms, grace_ms, output, .. } => {
            let grace = grace_ms.map(|g| format!(" grace {g} ms")).unwrap_or_default();
            let within = format!("within ({before_ms} ms, {after_ms} ms){grace}");
            format!("{} stream-stream join {within} {}", join_word(*kind), join_output(this, output))
        }
        NodeKind::StreamTableJoin { kind, output, .. } => {
            format!("{} stream-table join {}", join_word(*kind), join_output(this, output))
        }
        NodeKind::TableTableJoin { kind, output, .. } => {
            format!("{} table-table join {}", join_word(*kind), join_output(this, output))
        }
        NodeKind::ForeignKeyJoin { kind, left_key, output, .. } => {
            format!("{} foreign-key join on {} {}", join_word(*kind), show(left_key), join_output(this, output))
        }
    };
    let window = match &this.kind {
        NodeKind::Source(_) => this.window.map(|w| format!(" windowed {}", key_window(w))).unwrap_or_default(),
        _ => String::new(),
    };
    let _ = writeln!(out, "{:indent$}{line}{window} -> {}", "", this.schema, indent = depth * 2);
    for input in this.inputs() {
        node(out, input, depth + 1);
    }
}

fn join_output(this: &Node, output: &JoinOutput) -> String {
    let inputs = this.inputs();
    let name =
        |side: usize, i: usize| inputs.get(side).and_then(|n| n.schema.columns.get(i)).map_or("?", |c| c.name.as_str());
    let columns: Vec<String> = output
        .columns
        .iter()
        .map(|c| match c {
            JoinColumn::Key(i) => format!("key {i}"),
            JoinColumn::Left(i) => format!("left {}", name(0, *i)),
            JoinColumn::Right(i) => format!("right {}", name(1, *i)),
            JoinColumn::RowTime => "rowtime".to_owned(),
        })
        .collect();
    format!("[{}]", columns.join(", "))
}

fn join_word(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "inner",
        JoinKind::Left => "left",
        JoinKind::Right => "right",
        JoinKind::Full => "full",
    }
}

fn window_word(kind: WindowKind) -> &'static str {
    match kind {
        WindowKind::Tumbling => "tumbling",
        WindowKind::Hopping => "hopping",
        WindowKind::Session => "session",
    }
}

fn key_window(window: KeyWindow) -> String {
    match window.size_ms {
        Some(ms) => format!("{} {ms} ms", window_word(window.kind)),
        None => window_word(window.kind).to_owned(),
    }
}

fn window_text(window: &WindowSpec) -> String {
    let mut text = format!(" window {} {} ms", window_word(window.kind), window.size_ms);
    if window.kind == WindowKind::Hopping {
        let _ = write!(text, " advance {} ms", window.advance_ms);
    }
    for (word, value) in [("grace", window.grace_ms), ("retention", window.retention_ms)] {
        if let Some(ms) = value {
            let _ = write!(text, " {word} {ms} ms");
        }
    }
    if window.emit_final {
        text.push_str(" final");
    }
    text
}

fn aggregate(call: &AggregateCall, names: &[String]) -> String {
    let args = call.call.args.iter().map(|e| expr(e, names)).chain(call.init.iter().map(value));
    format!("{}({})", call.call.name, args.collect::<Vec<_>>().join(", "))
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Boolean(b) => b.to_string(),
        Value::Integer(i) => i.to_string(),
        Value::BigInt(i) => format!("{i}L"),
        Value::Double(d) => format!("{d:e}"),
        Value::Decimal { unscaled, scale, .. } => {
            let sign = if *unscaled < 0 { "-" } else { "" };
            let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(*scale) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(*scale));
            if fraction.is_empty() { format!("{sign}{whole}.") } else { format!("{sign}{whole}.{fraction}") }
        }
        Value::String(s) => format!("'{}'", s.replace('\'', "''")),
        other => format!("{other:?}"),
    }
}

fn expr(this: &TypedExpr, names: &[String]) -> String {
    let go = |e: &TypedExpr| expr(e, names);
    let list = |items: &[TypedExpr]| items.iter().map(go).collect::<Vec<_>>().join(", ");
    let not = |negated: bool| if negated { "NOT " } else { "" };
    match &this.kind {
        ExprKind::Column(i) => names.get(*i).cloned().unwrap_or_else(|| format!("#{i}")),
        ExprKind::Literal(v) => value(v),
        ExprKind::Negate(e) => format!("-{}", go(e)),
        ExprKind::Arithmetic { op, left, right } => {
            let op = match op {
                ArithmeticOp::Add => "+",
                ArithmeticOp::Subtract => "-",
                ArithmeticOp::Multiply => "*",
                ArithmeticOp::Divide => "/",
                ArithmeticOp::Modulo => "%",
            };
            format!("({} {op} {})", go(left), go(right))
        }
        ExprKind::Concat(a, b) => format!("({} || {})", go(a), go(b)),
        ExprKind::Compare { op, left, right } => {
            let op = match op {
                CompareOp::Eq => "=",
                CompareOp::NotEq => "<>",
                CompareOp::Less => "<",
                CompareOp::LessEq => "<=",
                CompareOp::Greater => ">",
                CompareOp::GreaterEq => ">=",
                CompareOp::IsDistinct => "IS DISTINCT FROM",
                CompareOp::IsNotDistinct => "IS NOT DISTINCT FROM",
            };
            format!("({} {op} {})", go(left), go(right))
        }
        ExprKind::And(a, b) => format!("({} AND {})", go(a), go(b)),
        ExprKind::Or(a, b) => format!("({} OR {})", go(a), go(b)),
        ExprKind::Not(e) => format!("(NOT {})", go(e)),
        ExprKind::IsNull { operand, negated } => format!("({} IS {}NULL)", go(operand), not(*negated)),
        ExprKind::Between { operand, low, high, negated } => {
            format!("({} {}BETWEEN {} AND {})", go(operand), not(*negated), go(low), go(high))
        }
        ExprKind::In { operand, list: items, negated } => {
            format!("({} {}IN ({}))", go(operand), not(*negated), list(items))
        }
        ExprKind::Like { operand, pattern, escape, negated } => {
            let escape = escape.map(|c| format!(" ESCAPE '{c}'")).unwrap_or_default();
            format!("({} {}LIKE {}{escape})", go(operand), not(*negated), go(pattern))
        }
        ExprKind::Case { branches, otherwise } => {
            let mut text = "CASE".to_owned();
            for (when, then) in branches {
                let _ = write!(text, " WHEN {} THEN {}", go(when), go(then));
            }
            if let Some(e) = otherwise {
                let _ = write!(text, " ELSE {}", go(e));
            }
            text + " END"
        }
        ExprKind::Cast(e) => format!("CAST({} AS {})", go(e), this.ty),
        ExprKind::Array(items) => format!("ARRAY[{}]", list(items)),
        ExprKind::Map(entries) => {
            let entries: Vec<String> = entries.iter().map(|(k, v)| format!("{} := {}", go(k), go(v))).collect();
            format!("MAP({})", entries.join(", "))
        }
        ExprKind::Struct(values) => {
            let fields = match &this.ty {
                millpond_types::SqlType::Struct(fields) => fields.iter().map(|f| f.name.as_str()).collect(),
                _ => Vec::new(),
            };
            let parts: Vec<String> = values
                .iter()
                .enumerate()
                .map(|(i, v)| format!("{} := {}", fields.get(i).copied().unwrap_or("?"), go(v)))
                .collect();
            format!("STRUCT({})", parts.join(", "))
        }
        ExprKind::Subscript { base, index } => format!("{}[{}]", go(base), go(index)),
        ExprKind::Field { base, index } => {
            let name = match &base.ty {
                millpond_types::SqlType::Struct(fields) => fields.get(*index).map(|f| f.name.as_str()),
                _ => None,
            };
            format!("{}->{}", go(base), name.unwrap_or("?"))
        }
        ExprKind::Call(call) => format!("{}({})", call.name, list(&call.args)),
        ExprKind::Lambda(lambda) => {
            let params: Vec<String> = lambda.params.iter().map(|p| format!("{}:{}", p.name, p.id)).collect();
            format!("({}) => {}", params.join(", "), go(&lambda.body))
        }
        ExprKind::LambdaParam(id) => format!("param:{id}"),
    }
}
