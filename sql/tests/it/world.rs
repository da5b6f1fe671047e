//! A world for the analyser: sources, topics, settings, formats' limits, and functions as `data/functions.txt` lists them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use millpond_sql::analyse::{analyse, resolve_type};
use millpond_sql::diagnostic::Diagnostic;
use millpond_sql::functions::{
    ArgType, Function, FunctionCatalog, FunctionKind, Overload, Param, ParamType, ResultType,
};
use millpond_sql::parse::parse;
use millpond_sql::plan::{Analysed, Environment, FormatError, FormatSpec, Side, SourceInfo};
use millpond_sql::syntax::{Parsed, Statement};
use millpond_types::{Field, SqlType};

#[derive(Default)]
pub struct World {
    pub sources: BTreeMap<String, Arc<SourceInfo>>,
    pub types: BTreeMap<String, SqlType>,
    pub topics: BTreeMap<String, (i32, i16)>,
    /// Topics of CREATE statements are there already, with the partitions these say, else four.
    pub topics_on_demand: bool,
    pub properties: BTreeMap<String, String>,
    /// Takes formats that need a schema registry, where columns are declared.
    pub registry: bool,
}

impl World {
    /// Parses, analyses and carries out what changes the world; the analysed statements, or the first problem with
    /// whether it was in the last statement.
    pub fn run(&mut self, sql: &str) -> Result<Vec<Analysed>, (Diagnostic, bool)> {
        let parsed = parse(sql).map_err(|d| (d, true))?;
        let mut out = Vec::new();
        for (i, one) in parsed.iter().enumerate() {
            let last = i + 1 == parsed.len();
            if let Some(analysed) = self.step(one).map_err(|d| (d, last))? {
                out.push(analysed);
            }
        }
        Ok(out)
    }

    fn step(&mut self, parsed: &Parsed) -> Result<Option<Analysed>, Diagnostic> {
        match &parsed.statement {
            Statement::CreateType { name, ty, .. } => {
                let ty = resolve_type(ty, self)?;
                self.types.insert(name.value.clone(), ty);
                return Ok(None);
            }
            Statement::Set(set) => {
                self.properties.insert(set.key.node.clone(), set.value.node.clone());
                return Ok(None);
            }
            Statement::AlterSource(alter) => {
                let added = millpond_sql::analyse::alter_columns(alter, self)?;
                if let Some(source) = self.sources.get_mut(&alter.name.value) {
                    let mut changed = (**source).clone();
                    changed.schema.columns.extend(added);
                    *source = Arc::new(changed);
                }
                return Ok(None);
            }
            Statement::CreateSource(_)
            | Statement::CreateAs(_)
            | Statement::InsertInto(_)
            | Statement::InsertValues(_)
            | Statement::Query(_) => {}
            Statement::DropSource(drop) => {
                let removed = self.sources.remove(&drop.name.value);
                return match removed {
                    None if !drop.if_exists => Err(Diagnostic::new(
                        millpond_sql::diagnostic::Code::UnknownName,
                        format!("{} does not exist", drop.name.value),
                    )),
                    _ => Ok(None),
                };
            }
            _ => return Ok(None),
        }
        if let (true, Statement::CreateSource(create)) = (self.topics_on_demand, &parsed.statement) {
            let value = |name: &str| create.properties.get(name).map(|v| v.node.to_string());
            let partitions = value("PARTITIONS").and_then(|p| p.parse().ok()).unwrap_or(4);
            if let Some(topic) = value("KAFKA_TOPIC") {
                self.topics.entry(topic.trim_matches('\'').to_owned()).or_insert((partitions, 1));
            }
        }
        let analysed = analyse(&parsed.statement, &parsed.text, self)?;
        match &analysed {
            Analysed::CreateSource { source, .. }
            | Analysed::CreateAs { sink: millpond_sql::plan::Sink { source, .. }, .. } => {
                self.topics.insert(source.topic.clone(), (source.partitions, source.replicas));
                self.sources.entry(source.name.clone()).or_insert_with(|| Arc::new(source.clone()));
            }
            _ => {}
        }
        Ok(Some(analysed))
    }
}

impl Environment for World {
    fn source(&self, name: &str) -> Option<Arc<SourceInfo>> {
        self.sources.get(name).cloned()
    }

    fn source_names(&self) -> Vec<String> {
        self.sources.keys().cloned().collect()
    }

    fn custom_type(&self, name: &str) -> Option<SqlType> {
        self.types.get(name).cloned()
    }

    fn functions(&self) -> &dyn FunctionCatalog {
        catalog()
    }

    fn topic(&self, name: &str) -> Option<(i32, i16)> {
        self.topics.get(name).copied()
    }

    fn property(&self, name: &str) -> Option<String> {
        self.properties.get(name).cloned()
    }

    fn check_format(&self, spec: &FormatSpec, side: Side, columns: &[(String, SqlType)]) -> Result<(), FormatError> {
        if (columns.is_empty() || !self.registry)
            && matches!(spec.name.as_str(), "AVRO" | "PROTOBUF" | "PROTOBUF_NOSR" | "JSON_SR")
        {
            return Err(FormatError::Unsupported(format!("the {} format is not supported yet", spec.name)));
        }
        objection(&spec.name, side, columns).map_or(Ok(()), |why| Err(FormatError::Invalid(why)))
    }

    fn key_format_supports(&self, name: &str, columns: &[(String, SqlType)]) -> bool {
        objection(name, Side::Key, columns).is_none()
    }
}

fn objection(format: &str, side: Side, columns: &[(String, SqlType)]) -> Option<String> {
    let shown = || {
        let key = if side == Side::Key { " KEY" } else { "" };
        let columns: Vec<String> = columns.iter().map(|(n, t)| format!("`{n}` {t}{key}")).collect();
        format!("[{}]", columns.join(", "))
    };
    let unsupported = |ty: &SqlType, name: &str| {
        let base = ty.to_string();
        let base = base.split(['<', '(']).next().unwrap_or("");
        format!("The '{format}' format does not support type '{base}', column: `{name}`")
    };
    match format {
        "NONE" => (!columns.is_empty())
            .then(|| format!("The 'NONE' format can only be used when no columns are defined. Got: {}", shown())),
        "KAFKA" if columns.len() > 1 => {
            Some(format!("The 'KAFKA' format only supports a single field. Got: {}", shown()))
        }
        "KAFKA" => columns
            .iter()
            .find(|(_, t)| {
                !matches!(t, SqlType::Integer | SqlType::BigInt | SqlType::Double | SqlType::String | SqlType::Bytes)
            })
            .map(|(n, t)| unsupported(t, n)),
        "DELIMITED" => columns.iter().find(|(_, t)| !t.is_primitive()).map(|(n, t)| unsupported(t, n)),
        "JSON" | "AVRO" | "PROTOBUF" | "PROTOBUF_NOSR" | "JSON_SR" => {
            columns.iter().any(|(_, t)| odd_map(t)).then(|| "JSON only supports MAP types with STRING keys".to_owned())
        }
        other => Some(format!("Unknown format: {other}")),
    }
}

fn odd_map(ty: &SqlType) -> bool {
    match ty {
        SqlType::Map(key, value) => **key != SqlType::String || odd_map(value),
        SqlType::Array(item) => odd_map(item),
        SqlType::Struct(fields) => fields.iter().any(|f| odd_map(&f.ty)),
        _ => false,
    }
}

struct Catalog(BTreeMap<String, Arc<Function>>);

impl FunctionCatalog for Catalog {
    fn function(&self, name: &str) -> Option<Arc<Function>> {
        self.0.get(name).cloned()
    }

    fn functions(&self) -> Vec<Arc<Function>> {
        self.0.values().cloned().collect()
    }
}

fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(|| {
        let lines = include_str!("../data/functions.txt").lines();
        Catalog(lines.map(function).map(|f| (f.name.clone(), Arc::new(f))).collect())
    })
}

/// `kind[+undo] NAME (params)->result; ...`; `!` marks literal parameters, `...` variadic ones.
fn function(line: &str) -> Function {
    let mut words = line.splitn(3, ' ');
    let (kind, name, overloads) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let undo = kind.ends_with("+undo");
    let kind = match kind.trim_end_matches("+undo") {
        "aggregate" => FunctionKind::Aggregate,
        "table" => FunctionKind::Table,
        _ => FunctionKind::Scalar,
    };
    let overloads = overloads
        .split("; ")
        .enumerate()
        .map(|(id, text)| {
            let (params, result) = text.rsplit_once(")->").unwrap();
            let params = parts(params.strip_prefix('(').unwrap());
            let variadic = params.iter().position(|p| p.ends_with("..."));
            let init_params = params.iter().filter(|p| p.starts_with('!')).count();
            let params = params
                .iter()
                .map(|p| Param {
                    name: String::new(),
                    ty: param(p.trim_start_matches('!').trim_end_matches("...")),
                    check: None,
                })
                .collect();
            Overload {
                id: id as u32,
                params,
                variadic,
                init_params,
                result: result_type(result),
                undo,
                description: String::new(),
            }
        })
        .collect();
    Function {
        name: name.to_owned(),
        kind,
        description: String::new(),
        category: String::new(),
        author: String::new(),
        module: None,
        overloads,
    }
}

/// Splits at the commas that are in no brackets.
fn parts(text: &str) -> Vec<String> {
    let (mut depth, mut out, mut current) = (0, Vec::new(), String::new());
    for c in text.chars() {
        match c {
            '<' | '(' => depth += 1,
            ')' => depth -= 1,
            '>' if !current.ends_with('=') => depth -= 1,
            ',' if depth == 0 => {
                out.push(std::mem::take(&mut current).trim().to_owned());
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    if !current.trim().is_empty() {
        out.push(current.trim().to_owned());
    }
    out
}

fn param(text: &str) -> ParamType {
    let text = text.trim();
    if let Some((inputs, output)) = text.split_once(")=>") {
        let inputs = parts(inputs.strip_prefix('(').unwrap()).iter().map(|p| param(p)).collect();
        return ParamType::Lambda(inputs, Box::new(param(output)));
    }
    if let Some(item) = text.strip_prefix("ARRAY<").and_then(|t| t.strip_suffix('>')) {
        return ParamType::Array(Box::new(param(item)));
    }
    if let Some(entry) = text.strip_prefix("MAP<").and_then(|t| t.strip_suffix('>')) {
        let kv = parts(entry);
        return ParamType::Map(Box::new(param(&kv[0])), Box::new(param(&kv[1])));
    }
    ParamType::Exact(match text {
        "BOOLEAN" => SqlType::Boolean,
        "INT" => SqlType::Integer,
        "BIGINT" => SqlType::BigInt,
        "DOUBLE" => SqlType::Double,
        "STRING" => SqlType::String,
        "BYTES" => SqlType::Bytes,
        "DATE" => SqlType::Date,
        "TIME" => SqlType::Time,
        "TIMESTAMP" => SqlType::Timestamp,
        "A_STRUCT" => SqlType::Struct(vec![Field::new("A", SqlType::String)]),
        "DECIMAL" => return ParamType::Decimal,
        "ANY" => return ParamType::Any,
        "STRUCT" => return ParamType::AnyStruct,
        "UNIT" => return ParamType::IntervalUnit,
        variable => {
            let name = ["K", "V", "T", "S", "R"].into_iter().find(|v| *v == variable);
            return ParamType::Generic(name.unwrap_or_else(|| panic!("what is {variable}?")));
        }
    })
}

fn result_type(text: &str) -> ResultType {
    let computed = |f: fn(&[ArgType]) -> Result<SqlType, String>| ResultType::Computed(Arc::new(f));
    match text {
        "ENTRIES" => computed(|args| match args.first().map(|a| &a.ty) {
            Some(SqlType::Map(key, value)) => Ok(SqlType::array(SqlType::Struct(vec![
                Field::new("K", (**key).clone()),
                Field::new("V", (**value).clone()),
            ]))),
            _ => Err("no map".to_owned()),
        }),
        "TOPK" => computed(|args| {
            let columns = &args[..args.len() - 1];
            let name = |i: usize| if i == 0 { "sort_col".to_owned() } else { format!("col{}", i - 1) };
            let fields = columns.iter().enumerate().map(|(i, a)| Field::new(name(i), a.ty.clone())).collect();
            Ok(SqlType::array(SqlType::Struct(fields)))
        }),
        "WIDEST" => computed(|args| {
            let mut widest = (0, 0);
            for arg in args {
                if let SqlType::Decimal { precision, scale } = arg.ty {
                    widest = (widest.0.max(precision - scale), widest.1.max(scale));
                }
            }
            Ok(SqlType::decimal(widest.0 + widest.1, widest.1))
        }),
        other => ResultType::Of(param(other)),
    }
}
