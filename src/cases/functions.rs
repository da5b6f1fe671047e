//! The functions that ksqlDB's own test class path adds for its query cases. They are no part of the product: a case's
//! engine registers them as an embedding program would register its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::ArrayRef;
use arrow::buffer::OffsetBuffer;
use millpond_engine::aggregates::{
    Aggregate, AggregateFunction, AggregateSite, ResultColumn, State, UpdateError, UpdateResult, Updater,
};
use millpond_engine::expr::EvalContext;
use millpond_engine::functions::{
    Args, CallSite, Expanded, Failures, FunctionLibrary, Implementation, Returned, ScalarFunction, ScalarImpl,
    TableFunction, TableImpl,
};
use millpond_formats::value_text;
use millpond_sql::functions::{Function, FunctionKind, Overload, Param, ParamType, ResultType};
use millpond_types::value::{array_from_values, value_at};
use millpond_types::{Error, Field, Result, SqlType, Value};

/// What an overload does with one row's arguments.
type RowFn = Arc<dyn Fn(&[Value]) -> Result<Value, String> + Send + Sync>;
/// The same for table functions: the items of one row.
type ItemsFn = Arc<dyn Fn(&[Value]) -> Result<Vec<Value>, String> + Send + Sync>;

struct Declared {
    params: Vec<ParamType>,
    variadic: Option<usize>,
    init_params: usize,
    result: ParamType,
    undo: bool,
    code: Implementation,
}

impl Declared {
    fn scalar(
        params: &[SqlType],
        result: SqlType,
        f: impl Fn(&[Value]) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        let code = Implementation::Scalar(Arc::new(ByRow(Arc::new(f))));
        let params = params.iter().cloned().map(ParamType::Exact).collect();
        Self { params, variadic: None, init_params: 0, result: ParamType::Exact(result), undo: false, code }
    }

    fn table(
        params: Vec<ParamType>,
        result: ParamType,
        f: impl Fn(&[Value]) -> Result<Vec<Value>, String> + Send + Sync + 'static,
    ) -> Self {
        let code = Implementation::Table(Arc::new(ItemsByRow(Arc::new(f))));
        Self { params, variadic: None, init_params: 0, result, undo: false, code }
    }

    fn aggregate(params: Vec<ParamType>, result: ParamType, code: Folding) -> Self {
        let undo = code.undo;
        let code = Implementation::Aggregate(Arc::new(code));
        Self { params, variadic: None, init_params: 0, result, undo, code }
    }

    fn variadic(mut self, index: usize) -> Self {
        self.variadic = Some(index);
        self
    }

    fn init(mut self, count: usize) -> Self {
        self.init_params = count;
        self
    }
}

fn add(library: &FunctionLibrary, name: &str, kind: FunctionKind, declared: Vec<Declared>) -> Result<()> {
    let mut overloads = Vec::new();
    let mut code = Vec::new();
    for d in declared {
        overloads.push(Overload {
            id: 0,
            params: (0..).zip(d.params).map(|(i, ty)| Param { name: format!("ARG{i}"), ty, check: None }).collect(),
            variadic: d.variadic,
            init_params: d.init_params,
            result: ResultType::Of(d.result),
            undo: d.undo,
            description: String::new(),
        });
        code.push(d.code);
    }
    let function = Function {
        name: name.into(),
        kind,
        description: "of ksqlDB's test class path".into(),
        category: "TEST".into(),
        author: String::new(),
        module: None,
        overloads,
    };
    library.register(function, code).map(|_| ())
}

/// Adds all of them.
pub fn register(library: &FunctionLibrary) -> Result<()> {
    use SqlType::{BigInt, Boolean, Integer, String as Text};
    let a = || SqlType::Struct(vec![Field::new("A", Text)]);
    let struct_of_a = |text: Value| Value::Struct(vec![("A".into(), text)]);
    let named = |name: &'static str| move |_: &[Value]| Ok(Value::String(name.into()));

    // NULL for every second call, whatever the argument.
    let calls = AtomicUsize::new(0);
    let every_second = move |args: &[Value]| {
        let odd = calls.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        Ok(if odd { args[0].clone() } else { Value::Null })
    };
    let throw = |_: &[Value]| Err("You asked me to throw...".to_string());
    let throw_if = |args: &[Value]| match args[0] {
        Value::Boolean(true) => Err("You asked me to throw...".to_string()),
        _ => Ok(Value::Integer(0)),
    };
    add(
        library,
        "BAD_UDF",
        FunctionKind::Scalar,
        vec![
            Declared::scalar(&[Boolean], Integer, throw_if),
            Declared::scalar(&[Text], Text, every_second),
            Declared::scalar(&[Integer], Integer, throw),
        ],
    )?;
    let first_of = |args: &[Value]| match &args[0] {
        Value::Struct(fields) => Ok(fields.first().map_or(Value::Null, |(_, v)| v.clone())),
        _ => Ok(Value::Null),
    };
    add(
        library,
        "TEST_UDF",
        FunctionKind::Scalar,
        vec![
            Declared::scalar(&[Integer, Text], Text, named("doStuffIntString")),
            Declared::scalar(&[BigInt, Text], Text, named("doStuffLongString")),
            Declared::scalar(&[BigInt, BigInt, Text], Text, named("doStuffLongLongString")),
            Declared::scalar(&[BigInt], Text, named("doStuffLongVarargs")).variadic(0),
            Declared::scalar(&[a()], Text, first_of),
            Declared::scalar(&[], a(), move |_| Ok(struct_of_a(Value::String("foo".into())))),
        ],
    )?;
    let guarded = |args: &[Value]| match args[1] {
        Value::Boolean(false) => Err("this branch should not run".to_string()),
        _ => Ok(args[0].clone()),
    };
    add(library, "WHENCONDITION", FunctionKind::Scalar, vec![Declared::scalar(&[Boolean, Boolean], Boolean, guarded)])?;
    add(library, "WHENRESULT", FunctionKind::Scalar, vec![Declared::scalar(&[Integer, Boolean], Integer, guarded)])?;
    let to_struct = move |args: &[Value]| Ok(struct_of_a(args[0].clone()));
    add(library, "TOSTRUCT", FunctionKind::Scalar, vec![Declared::scalar(&[Text], a(), to_struct)])?;
    register_tables(library)?;
    register_aggregates(library)?;
    Ok(())
}

fn text(value: &Value) -> Value {
    value_text(value).map_or(Value::Null, Value::String)
}

fn register_tables(library: &FunctionLibrary) -> Result<()> {
    use SqlType::{BigInt, Boolean, Double, Integer, String as Text};
    let kinds = || {
        let a = SqlType::Struct(vec![Field::new("A", Text)]);
        let mut kinds: Vec<ParamType> = [Integer, BigInt, Double, Boolean, Text].map(ParamType::Exact).into();
        kinds.extend([ParamType::Decimal, ParamType::Exact(a)]);
        kinds
    };
    let lists = kinds().into_iter().map(|k| ParamType::Array(Box::new(k))).collect();
    let maps = kinds().into_iter().map(|k| ParamType::Map(Box::new(ParamType::Exact(Text)), Box::new(k))).collect();
    let texts = |args: &[Value]| Ok(args.iter().map(text).collect());
    let firsts = |args: &[Value]| {
        let first = |v: &Value| match v {
            Value::Array(items) => items.first().map_or(Value::Null, text),
            Value::Map(entries) => entries.first().map_or(Value::Null, |(_, v)| text(v)),
            _ => Value::Null,
        };
        Ok(args.iter().map(first).collect())
    };
    let mut overloads = vec![
        Declared::table(kinds(), ParamType::Exact(Text), texts),
        Declared::table(lists, ParamType::Exact(Text), firsts),
        Declared::table(maps, ParamType::Exact(Text), firsts),
    ];
    overloads.extend(kinds().into_iter().map(|k| {
        let result = if k == ParamType::Decimal { ParamType::Exact(SqlType::decimal(30, 10)) } else { k.clone() };
        Declared::table(vec![k], result, |args: &[Value]| Ok(vec![args[0].clone()]))
    }));
    add(library, "TEST_UDTF", FunctionKind::Table, overloads)?;
    let throws = Declared::table(vec![ParamType::Exact(Integer)], ParamType::Exact(Integer), |_| {
        Err("You asked me to throw...".to_string())
    });
    add(library, "THROWING_UDTF", FunctionKind::Table, vec![throws])
}

/// The number that a value adds: itself, or the length of a text.
fn weight(value: &Value) -> i64 {
    match value {
        Value::Integer(n) => i64::from(*n),
        Value::BigInt(n) => *n,
        Value::String(s) => s.encode_utf16().count() as i64,
        _ => 0,
    }
}

fn register_aggregates(library: &FunctionLibrary) -> Result<()> {
    use SqlType::{BigInt, Double, Integer, String as Text};
    let exact = |types: &[SqlType]| types.iter().cloned().map(ParamType::Exact).collect::<Vec<_>>();
    let long = || ParamType::Exact(BigInt);
    let weigh = |init: bool, undo: bool| Folding { fold: Fold::Weigh { init }, undo };
    let kind = FunctionKind::Aggregate;
    let one = |d: Declared| vec![d];

    let pair = SqlType::Struct(vec![Field::new("A", Integer), Field::new("B", Integer)]);
    add(
        library,
        "TEST_UDAF",
        kind,
        vec![
            Declared::aggregate(exact(&[Integer]), long(), weigh(false, true)),
            Declared::aggregate(exact(&[BigInt]), long(), weigh(false, true)),
            Declared::aggregate(
                exact(&[Double]),
                ParamType::Exact(Double),
                Folding { fold: Fold::SumDouble, undo: true },
            ),
            Declared::aggregate(exact(&[Text, Text]), long(), weigh(true, false)).init(1),
            Declared::aggregate(
                vec![ParamType::Exact(pair.clone())],
                ParamType::Exact(pair),
                Folding { fold: Fold::SumFields, undo: false },
            ),
        ],
    )?;
    let var_arg = Declared::aggregate(exact(&[BigInt, Text]), long(), weigh(false, false)).variadic(1);
    add(library, "VAR_ARG", kind, one(var_arg))?;
    let mid =
        Declared::aggregate(exact(&[BigInt, Text, Integer, Integer]), long(), weigh(true, false)).variadic(1).init(2);
    add(library, "MID_VAR_ARG", kind, one(mid))?;
    for (name, columns) in [
        ("MULTI_ARG", vec![BigInt, Text]),
        ("FOUR_ARG", vec![BigInt, Text, Text, Text]),
        ("FIVE_ARG", vec![BigInt, Text, Text, Text, Integer]),
    ] {
        let all = [columns, vec![Integer, Text]].concat();
        let last = all.len() - 1;
        let d = Declared::aggregate(exact(&all), long(), weigh(true, false)).variadic(last).init(2);
        add(library, name, kind, one(d))?;
    }
    let first = ParamType::Generic("A");
    let generic = Declared::aggregate(
        vec![first.clone(), ParamType::Generic("B"), ParamType::Generic("C")],
        ParamType::Array(Box::new(first)),
        Folding { fold: Fold::CollectFirst, undo: false },
    );
    add(library, "GENERIC_VAR_ARG", kind, one(generic.variadic(2)))?;
    let object = Declared::aggregate(
        vec![ParamType::Exact(Integer), ParamType::Any],
        ParamType::Array(Box::new(ParamType::Exact(Integer))),
        Folding { fold: Fold::CollectFirst, undo: false },
    );
    add(library, "OBJ_COL_ARG", kind, one(object.variadic(1)))
}

struct ByRow(RowFn);

/// The values of all arguments, row by row.
fn rows_of(args: &Args<'_>, types: &[SqlType]) -> Result<Vec<Vec<Value>>> {
    let columns =
        (0..types.len()).map(|i| args.values(i)?.clone().into_array(args.rows)).collect::<Result<Vec<ArrayRef>>>()?;
    let row = |row: usize| columns.iter().zip(types).map(|(c, ty)| value_at(c, ty, row)).collect();
    Ok((0..args.rows).map(row).collect())
}

impl ScalarFunction for ByRow {
    fn bind(&self, site: &CallSite<'_>) -> Result<Arc<dyn ScalarImpl>> {
        let types: Vec<SqlType> = site.args.iter().map(|a| a.ty.clone()).collect();
        let (result, f) = (site.result.clone(), self.0.clone());
        Ok(Arc::new(move |args: &Args<'_>, _: &mut EvalContext| {
            let mut failures = Failures::default();
            let mut values = Vec::with_capacity(args.rows);
            for (i, row) in rows_of(args, &types)?.into_iter().enumerate() {
                values.push(f(&row).unwrap_or_else(|why| {
                    failures.push(i, || why);
                    Value::Null
                }));
            }
            Ok(Returned { array: array_from_values(&result, &values)?, failures })
        }))
    }

    fn deterministic(&self) -> bool {
        false
    }
}

struct ItemsByRow(ItemsFn);

struct BoundItems {
    types: Vec<SqlType>,
    result: SqlType,
    f: ItemsFn,
}

impl TableFunction for ItemsByRow {
    fn bind(&self, site: &CallSite<'_>) -> Result<Arc<dyn TableImpl>> {
        let types = site.args.iter().map(|a| a.ty.clone()).collect();
        Ok(Arc::new(BoundItems { types, result: site.result.clone(), f: self.0.clone() }))
    }
}

impl TableImpl for BoundItems {
    fn expand(&self, args: &Args<'_>, _: &mut EvalContext) -> Result<Expanded> {
        let mut failures = Failures::default();
        let (mut items, mut lengths) = (Vec::new(), Vec::with_capacity(args.rows));
        for (i, row) in rows_of(args, &self.types)?.into_iter().enumerate() {
            let found = (self.f)(&row).unwrap_or_else(|why| {
                failures.push(i, || why);
                Vec::new()
            });
            lengths.push(found.len());
            items.extend(found);
        }
        let fit = |v: Value| match (v, &self.result) {
            // A DECIMAL argument comes with its own scale.
            (Value::Decimal { unscaled, scale, .. }, SqlType::Decimal { precision, scale: wanted }) => {
                let factor = 10_i128.pow(u32::from(wanted.saturating_sub(scale)));
                Value::Decimal { unscaled: unscaled * factor, precision: *precision, scale: *wanted }
            }
            (v, _) => v,
        };
        let items: Vec<Value> = items.into_iter().map(fit).collect();
        let items = array_from_values(&self.result, &items)?;
        Ok(Expanded { offsets: OffsetBuffer::from_lengths(lengths), items, failures })
    }
}

/// How a row goes into a group's state.
#[derive(Clone, Copy)]
enum Fold {
    /// Adds the weights of all arguments; `init`: there are literal ones, whose weights count once.
    Weigh {
        init: bool,
    },
    SumDouble,
    /// Sums of a struct's fields.
    SumFields,
    /// Collects the first argument of rows without a NULL.
    CollectFirst,
}

#[derive(Clone, Copy)]
struct Folding {
    fold: Fold,
    undo: bool,
}

struct Bound {
    folding: Folding,
    types: Vec<SqlType>,
    result: SqlType,
    start: i64,
}

impl AggregateFunction for Folding {
    fn bind(&self, site: &AggregateSite<'_>) -> Result<Arc<dyn Aggregate>> {
        let start = match self.fold {
            Fold::Weigh { init: true } => site.init.iter().map(weight).sum(),
            _ => 0,
        };
        Ok(Arc::new(Bound { folding: *self, types: site.args.clone(), result: site.result.clone(), start }))
    }
}

struct BoundUpdater<'a> {
    bound: &'a Bound,
    args: &'a [ArrayRef],
}

impl BoundUpdater<'_> {
    fn apply(&self, state: &mut State, row: usize, sign: i64) -> UpdateResult {
        let values: Vec<Value> = self.args.iter().zip(&self.bound.types).map(|(a, ty)| value_at(a, ty, row)).collect();
        match (self.bound.folding.fold, state) {
            (Fold::Weigh { .. }, State::I64(sum)) => *sum += sign * values.iter().map(weight).sum::<i64>(),
            (Fold::SumDouble, State::F64(sum)) => {
                if let Some(Value::Double(d)) = values.first() {
                    *sum += sign as f64 * d;
                }
            }
            (Fold::SumFields, State::Values(sums)) => {
                if let Some(Value::Struct(fields)) = values.first() {
                    for (sum, (_, field)) in sums.iter_mut().zip(fields) {
                        *sum = Value::Integer((weight(sum) + sign * weight(field)) as i32);
                    }
                }
            }
            (Fold::CollectFirst, State::Values(items)) => {
                if let Some(first) = values.first()
                    && !values.iter().any(Value::is_null)
                {
                    items.push(first.clone());
                }
            }
            _ => return Err(UpdateError::Fatal("a state of another aggregate".into())),
        }
        Ok(())
    }
}

impl Updater for BoundUpdater<'_> {
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult {
        self.apply(state, row, 1)
    }

    fn undo(&mut self, state: &mut State, row: usize) -> UpdateResult {
        self.apply(state, row, -1)
    }
}

impl Aggregate for Bound {
    fn create(&self) -> State {
        match (self.folding.fold, &self.result) {
            (Fold::Weigh { .. }, _) => State::I64(self.start),
            (Fold::SumDouble, _) => State::F64(0.0),
            (Fold::SumFields, SqlType::Struct(fields)) => State::Values(vec![Value::Integer(0); fields.len()]),
            _ => State::Values(Vec::new()),
        }
    }

    fn bind<'a>(&'a self, args: &'a [ArrayRef], _: &'a mut EvalContext) -> Result<Box<dyn Updater + 'a>> {
        Ok(Box::new(BoundUpdater { bound: self, args }))
    }

    fn has_undo(&self) -> bool {
        self.folding.undo
    }

    fn merge(&self, _: &mut State, _: &State) -> UpdateResult {
        Err(UpdateError::Fatal("no case merges sessions of this aggregate".into()))
    }

    fn results(&self, capacity: usize) -> Box<dyn ResultColumn + '_> {
        Box::new(Results { bound: self, values: Vec::with_capacity(capacity) })
    }
}

struct Results<'a> {
    bound: &'a Bound,
    values: Vec<Value>,
}

impl ResultColumn for Results<'_> {
    fn append(&mut self, state: &State) -> Result<()> {
        self.values.push(match (state, &self.bound.result) {
            (State::I64(n), _) => Value::BigInt(*n),
            (State::F64(d), _) => Value::Double(*d),
            (State::Values(sums), SqlType::Struct(fields)) => {
                Value::Struct(fields.iter().map(|f| f.name.clone()).zip(sums.iter().cloned()).collect())
            }
            (State::Values(items), _) => Value::Array(items.clone()),
            _ => return Err(Error::bug("a state of another aggregate")),
        });
        Ok(())
    }

    fn append_null(&mut self) {
        self.values.push(Value::Null);
    }

    fn finish(self: Box<Self>) -> Result<ArrayRef> {
        array_from_values(&self.bound.result, &self.values)
    }
}
