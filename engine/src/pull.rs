//! Pull queries: the state of materialised tables, read once.
//!
//! All tables of a statement are read from one snapshot, so the answer is that of one commit. Our own expression nodes
//! compute; DataFusion joins, groups, sorts and limits. A key that the filter pins is looked up instead of scanned.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema as ArrowSchema, SchemaRef};
use datafusion::common::{DataFusionError, JoinType, NullEquality, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use millpond_formats::{Decoder, Encoded, Encoder, Format, Schemas, Side};
use millpond_sql::expr::{CompareOp, ExprKind, TypedExpr};
use millpond_sql::functions::FunctionCatalog;
use millpond_sql::plan::{AggregateCall, JoinKind, PullPlan, SourceInfo};
use millpond_types::budget::Reservation;
use millpond_types::ports::{ScanLimits, StateReader};
use millpond_types::value::array_from_values;
use millpond_types::{Error, Result, Schema, SqlType, Value};
use parking_lot::Mutex;

use crate::aggregates::{Aggregate, State, compile_aggregate};
use crate::engine::Engine;
use crate::expr::{self, EvalContext, PhysicalNode, RowClock, hashed};
use crate::functions::FunctionLibrary;
use crate::memory::OperatorMemory;
use crate::query::EndReason;
use crate::state::table::{TableLayout, TableRows, WindowBounds};

/// Longest time a pull query may take.
const PULL_TIME_MAX: Duration = Duration::from_secs(60);
/// Memory that the operators of one pull query may use beside the rows read.
const PULL_MEMORY_BYTES_MAX: usize = 256 << 20;
/// Rows read from state at a time.
const SCAN_ROWS: usize = 4096;
const SCAN_BYTES: usize = 4 << 20;
/// More pinned keys than this are not looked up one by one.
const LOOKUP_KEYS_MAX: usize = 1000;

/// The answer to a pull query.
#[derive(Clone, Debug)]
pub struct PullResult {
    pub schema: Schema,
    pub batches: Vec<RecordBatch>,
    /// Why the rows of a stream end where they do; `None` for tables.
    pub end: Option<EndReason>,
    /// Counts the batches for as long as they are held with it.
    _room: Arc<Reservation>,
}

impl PullResult {
    pub(crate) fn new(schema: Schema, batches: Vec<RecordBatch>, room: Reservation) -> Self {
        Self { schema, batches, end: None, _room: Arc::new(room) }
    }

    /// The rows of a stream, which is read until it ends or the limit is reached.
    pub(crate) fn of_stream(schema: Schema, batches: Vec<RecordBatch>, end: EndReason, room: Reservation) -> Self {
        Self { end: Some(end), ..Self::new(schema, batches, room) }
    }
}

/// Counts a batch that a pull query keeps.
pub(crate) fn hold(room: &mut Reservation, batch: &RecordBatch) -> Result<()> {
    if room.try_grow(batch.get_array_memory_size()) {
        return Ok(());
    }
    Err(Error::retry(format!(
        "the memory for pull queries is used up: {} bytes are left of {}; ask for fewer rows, or try again later",
        room.pool().left(),
        room.pool().limit()
    )))
}

/// Runs a pull query to its end. Blocks; call it on a thread that may.
pub fn run(engine: &Engine, plan: &PullPlan) -> Result<PullResult> {
    let snapshot = engine.storage().snapshot();
    let pool = &engine.0.options.memory.pull_queries;
    let build = Build {
        engine,
        library: engine.functions(),
        now_ms: engine.0.clock.now_ms(),
        room: Mutex::new(pool.reservation()),
    };
    let physical = build.plan(plan, snapshot.as_ref())?;
    let mut room = pool.reservation();
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(OperatorMemory::shared(pool.passing("pull query", PULL_MEMORY_BYTES_MAX)))
        .build_arc()
        .map_err(failed)?;
    let context = Arc::new(TaskContext::default().with_runtime(runtime));
    let deadline = build.now_ms.saturating_add(PULL_TIME_MAX.as_millis() as i64);
    // Guests must not be called from an async task of tokio's, and nothing here waits for I/O: an executor of its own.
    let batches = futures::executor::block_on(async {
        let mut rows = execute_stream(physical, context).map_err(failed)?;
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(failed)?;
            if batch.num_rows() > 0 {
                hold(&mut room, &batch)?;
                batches.push(batch);
            }
            if engine.0.clock.now_ms() > deadline {
                return Err(Error::retry(format!("the pull query took longer than {} s", PULL_TIME_MAX.as_secs())));
            }
        }
        Ok(batches)
    })?;
    Ok(PullResult::new(plan.schema.clone(), batches, room))
}

fn failed(e: DataFusionError) -> Error {
    match e {
        DataFusionError::ResourcesExhausted(why) => {
            Error::retry(format!("the pull query needs too much memory: {why}"))
        }
        other => Error::bug(format!("pull query: {other}")),
    }
}

struct Build<'a> {
    engine: &'a Engine,
    library: &'a Arc<FunctionLibrary>,
    now_ms: i64,
    /// Counts the rows read.
    room: Mutex<Reservation>,
}

impl Build<'_> {
    fn node(&self, expr: &TypedExpr, name: &str, clock: &RowClock) -> Result<Arc<dyn PhysicalExpr>> {
        let clock = self.calls_guests(expr).then(|| clock.clone());
        Ok(PhysicalNode::new(expr::compile(expr, self.library)?, name, self.now_ms, clock))
    }

    fn calls_guests(&self, expr: &TypedExpr) -> bool {
        let mut found = false;
        expr.walk(&mut |e| {
            if let ExprKind::Call(call) = &e.kind {
                found |= self.library.function(&call.name).is_some_and(|f| f.module.is_some());
            }
        });
        found
    }

    fn plan(&self, plan: &PullPlan, reader: &dyn StateReader) -> Result<Arc<dyn ExecutionPlan>> {
        let mut base = 0;
        let names: Vec<&str> = plan.tables.iter().map(|t| t.name.as_str()).collect();
        let mut clock = RowClock { columns: Vec::new(), otherwise: 0, seed: hashed(names.join(",").as_bytes()) };
        let mut input: Option<Arc<dyn ExecutionPlan>> = None;
        for (i, table) in plan.tables.iter().enumerate() {
            let columns = table_columns(table);
            // Only a single table's keys can be pinned by the filter alone.
            let filter = if plan.tables.len() == 1 { plan.filter.as_ref() } else { None };
            let batch = self.read(table, &columns, filter, reader)?;
            clock.otherwise = clock.otherwise.max(greatest_time(&batch));
            let scan: Arc<dyn ExecutionPlan> =
                MemorySourceConfig::try_new_exec(&[batch], arrow_schema(&columns), None).map_err(failed)?;
            input = Some(match input.take() {
                None => scan,
                Some(left) => {
                    let join = &plan.joins[i - 1];
                    let mut right = join.right.clone();
                    shift_columns(&mut right, base);
                    let of_right = RowClock { columns: vec![columns.len() - 1], ..clock.clone() };
                    let on = vec![(self.node(&join.left, "left", &clock)?, self.node(&right, "right", &of_right)?)];
                    let kind = match join.kind {
                        JoinKind::Inner => JoinType::Inner,
                        JoinKind::Left => JoinType::Left,
                        JoinKind::Right => JoinType::Right,
                        JoinKind::Full => JoinType::Full,
                    };
                    let mode = PartitionMode::CollectLeft;
                    let nulls = NullEquality::NullEqualsNothing;
                    Arc::new(
                        HashJoinExec::try_new(left, scan, on, None, &kind, None, mode, nulls, false).map_err(failed)?,
                    )
                }
            });
            base += columns.len();
            // ROWTIME is a table's last column.
            clock.columns.push(base - 1);
        }
        let mut input = input.ok_or_else(|| Error::bug("a pull query without a table"))?;
        if let Some(filter) = &plan.filter {
            input = Arc::new(FilterExec::try_new(self.node(filter, "where", &clock)?, input).map_err(failed)?);
        }
        if let Some(groups) = &plan.group_by {
            input = self.aggregate(groups, &plan.aggregates, &clock, input)?;
            // A group has no time of its own.
            clock.columns.clear();
            if let Some(having) = &plan.having {
                input = Arc::new(FilterExec::try_new(self.node(having, "having", &clock)?, input).map_err(failed)?);
            }
        }
        let order = plan
            .order_by
            .iter()
            .map(|o| {
                let options = SortOptions { descending: o.descending, nulls_first: o.descending };
                Ok(PhysicalSortExpr::new(self.node(&o.expr, "order", &clock)?, options))
            })
            .collect::<Result<Vec<_>>>()?;
        let limit = plan.limit.map(|l| usize::try_from(l).unwrap_or(usize::MAX));
        if let Some(order) = LexOrdering::new(order) {
            input = Arc::new(SortExec::new(order, input).with_fetch(limit));
        } else if limit.is_some() {
            input = Arc::new(GlobalLimitExec::new(input, 0, limit));
        }
        let exprs = plan
            .select
            .iter()
            .map(|(name, expr)| Ok((self.node(expr, name, &clock)?, name.clone())))
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(exprs, input).map_err(failed)?))
    }

    fn aggregate(
        &self,
        groups: &[TypedExpr],
        calls: &[AggregateCall],
        clock: &RowClock,
        input: Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = input.schema();
        let keys = groups
            .iter()
            .enumerate()
            .map(|(i, g)| Ok((self.node(g, "group", clock)?, format!("group_{i}"))))
            .collect::<Result<Vec<_>>>()?;
        let mut aggregates = Vec::with_capacity(calls.len());
        for (i, call) in calls.iter().enumerate() {
            let mut args =
                call.call.args.iter().map(|a| self.node(a, "argument", clock)).collect::<Result<Vec<_>>>()?;
            if args.is_empty() {
                // DataFusion wants an argument; COUNT(*) does not look at it.
                args.push(datafusion::physical_expr::expressions::lit(1_i64));
            }
            let udf = AggregateUDF::new_from_impl(OwnAggregate {
                name: format!("{}_{i}", call.call.name),
                aggregate: compile_aggregate(call, self.library)?,
                args: call.call.args.len(),
                result: call.ty.to_arrow(),
                signature: Signature::variadic_any(Volatility::Immutable),
                now_ms: self.now_ms,
            });
            let built = AggregateExprBuilder::new(Arc::new(udf), args)
                .schema(schema.clone())
                .alias(format!("aggregate_{i}"))
                .build()
                .map_err(failed)?;
            aggregates.push(Arc::new(built));
        }
        let filters = vec![None; aggregates.len()];
        let groups = PhysicalGroupBy::new_single(keys);
        Ok(Arc::new(
            AggregateExec::try_new(AggregateMode::Single, groups, aggregates, filters, input, schema)
                .map_err(failed)?,
        ))
    }

    /// The rows of a table: those of pinned keys, or all.
    fn read(
        &self,
        table: &SourceInfo,
        columns: &[(String, SqlType)],
        filter: Option<&TypedExpr>,
        reader: &dyn StateReader,
    ) -> Result<Vec<RecordBatch>> {
        let catalog = self.engine.catalog();
        let query = catalog
            .writers(&table.name)
            .find(|q| q.creates_sink)
            .ok_or_else(|| Error::bad_request(format!("table \"{}\" is not materialised", table.name)))?;
        let layout = TableLayout::new(&query.id, &table.schema, table.window.is_some());
        let partitions = self.engine.topic_of(&table.topic)?.partitions;
        let rows_max = self.engine.0.options.pull_rows_max;
        let schema = arrow_schema(columns);
        let too_many = || {
            Error::bad_request(format!(
                "table \"{}\" has more than {rows_max} rows to read; name a key, or raise pull_rows_max",
                table.name
            ))
        };
        let topic = ThroughTopic::new(self.engine, table)?;
        let mut batches = Vec::new();
        let mut rows = 0;
        let mut add = |found: TableRows| -> Result<()> {
            if found.len == 0 {
                return Ok(());
            }
            rows += found.len;
            if rows > rows_max {
                return Err(too_many());
            }
            let options = RecordBatchOptions::new().with_row_count(Some(found.len));
            let mut columns = found.columns(&table.schema);
            if let Some(topic) = &topic {
                columns = topic.pass(table, columns, found.len)?;
            }
            let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)
                .map_err(|e| Error::corrupt(format!("state of table \"{}\": {e}", table.name)))?;
            hold(&mut self.room.lock(), &batch)?;
            batches.push(batch);
            Ok(())
        };
        if let Some(keys) = filter.and_then(|f| pinned_keys(f, &table.schema)) {
            for key in keys {
                let arrays: Vec<ArrayRef> = table
                    .schema
                    .keys()
                    .zip(&key)
                    .map(|(column, value)| array_from_values(&column.ty, std::slice::from_ref(value)))
                    .collect::<Result<_>>()?;
                for partition in 0..partitions {
                    // What is read is there twice for a moment: as bytes and as columns.
                    let bytes_max = self.engine.0.options.memory.pull_queries.left() / 2;
                    let limits = ScanLimits { entries_max: rows_max, bytes_max };
                    let (found, more) = layout.get(reader, partition, &arrays, 0, WindowBounds::default(), limits)?;
                    if more && found.len < rows_max {
                        return Err(Error::retry(format!(
                            "the memory for pull queries is used up: one key of table \"{}\" has more than {bytes_max} bytes",
                            table.name
                        )));
                    }
                    if more {
                        return Err(too_many());
                    }
                    add(found)?;
                }
            }
            return Ok(batches);
        }
        let limits = ScanLimits { entries_max: SCAN_ROWS, bytes_max: SCAN_BYTES };
        for partition in 0..partitions {
            let mut after = None;
            loop {
                let (found, next) =
                    layout.scan(reader, partition, after.as_deref(), WindowBounds::default(), limits)?;
                add(found)?;
                match next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(batches)
    }
}

/// What becomes of a table's values on their way through its topic: PROTOBUF has no NULL where its schema says none, be it a
/// number, the item of a list, or a field inside. Not of a table that is read from a topic: its rows came that way.
struct ThroughTopic {
    values: Vec<usize>,
    encoder: Encoder,
    decoder: Decoder,
}

impl ThroughTopic {
    fn new(engine: &Engine, table: &SourceInfo) -> Result<Option<Self>> {
        let spec = &table.value_format;
        if table.read_only || crate::serdes::format_of(spec)? != Format::Protobuf {
            return Ok(None);
        }
        let values: Vec<usize> =
            (0..table.schema.columns.len()).filter(|i| table.schema.columns[*i].is_value()).collect();
        let fields = crate::serdes::fields(table.schema.values());
        let schemas: Arc<dyn Schemas> = engine.schemas().clone();
        if fields.is_empty() || crate::schemas::writer_of(spec, Side::Value, schemas.as_ref())?.is_none() {
            return Ok(None);
        }
        let all: Vec<usize> = (0..fields.len()).collect();
        Ok(Some(Self {
            values,
            encoder: crate::serdes::encoder(spec, Side::Value, &fields, schemas.as_ref())?,
            decoder: crate::serdes::decoder(spec, Side::Value, &fields, &all, &schemas)?,
        }))
    }

    fn pass(&self, table: &SourceInfo, mut columns: Vec<ArrayRef>, rows: usize) -> Result<Vec<ArrayRef>> {
        let values: Vec<ArrayRef> = self.values.iter().filter_map(|i| columns.get(*i).cloned()).collect();
        if !values.iter().any(|array| has_null(&array.to_data())) {
            return Ok(columns);
        }
        let mut encoded = Encoded::default();
        self.encoder.encode(rows, &values, None, &mut encoded)?;
        let decoded = self.decoder.decode(encoded.iter())?;
        if let Some(error) = decoded.errors.first() {
            return Err(Error::corrupt(format!("state of table \"{}\": {}", table.name, error.message)));
        }
        for (i, array) in self.values.iter().zip(decoded.columns) {
            columns[*i] = array;
        }
        Ok(columns)
    }
}

fn has_null(data: &ArrayData) -> bool {
    data.null_count() > 0 || data.child_data().iter().any(has_null)
}

/// Columns of a table as a pull query sees them.
pub(crate) fn table_columns(table: &SourceInfo) -> Vec<(String, SqlType)> {
    let mut columns: Vec<(String, SqlType)> =
        table.schema.columns.iter().map(|c| (c.name.clone(), c.ty.clone())).collect();
    if table.window.is_some() {
        columns.push(("WINDOWSTART".into(), SqlType::BigInt));
        columns.push(("WINDOWEND".into(), SqlType::BigInt));
    }
    columns.push(("ROWTIME".into(), SqlType::BigInt));
    columns
}

/// The greatest ROWTIME, a table's last column, of what was read.
fn greatest_time(batches: &[RecordBatch]) -> i64 {
    let times = batches.iter().filter_map(|b| b.columns().last()?.as_primitive_opt::<Int64Type>());
    times.filter_map(arrow::compute::max).max().unwrap_or(0)
}

fn arrow_schema(columns: &[(String, SqlType)]) -> SchemaRef {
    Arc::new(ArrowSchema::new(
        columns.iter().map(|(name, ty)| Field::new(name.as_str(), ty.to_arrow(), true)).collect::<Vec<_>>(),
    ))
}

/// Moves the columns of an expression over the concatenated tables to those of one table that starts at `base`.
fn shift_columns(expr: &mut TypedExpr, base: usize) {
    expr.walk_mut(&mut |e| {
        if let ExprKind::Column(i) = &mut e.kind {
            *i = i.saturating_sub(base);
        }
    });
}

/// The keys that a filter allows, where it pins every key column to literals by `=` or IN under AND.
fn pinned_keys(filter: &TypedExpr, schema: &Schema) -> Option<Vec<Vec<Value>>> {
    let mut pinned: Vec<Option<Vec<Value>>> = vec![None; schema.keys().count()];
    let key_of = |e: &TypedExpr| match e.kind {
        // Key columns come first in a table's columns.
        ExprKind::Column(i) if i < schema.keys().count() => Some(i),
        _ => None,
    };
    fn conjuncts<'a>(e: &'a TypedExpr, out: &mut Vec<&'a TypedExpr>) {
        match &e.kind {
            ExprKind::And(a, b) => {
                conjuncts(a, out);
                conjuncts(b, out);
            }
            _ => out.push(e),
        }
    }
    let literal = |e: &TypedExpr| match &e.kind {
        ExprKind::Literal(v) if !v.is_null() => Some(v.clone()),
        _ => None,
    };
    let mut parts = Vec::new();
    conjuncts(filter, &mut parts);
    for part in parts {
        let (key, values) = match &part.kind {
            ExprKind::Compare { op: CompareOp::Eq, left, right } => match (key_of(left), key_of(right)) {
                (Some(key), _) => (key, literal(right).map(|v| vec![v])),
                (_, Some(key)) => (key, literal(left).map(|v| vec![v])),
                _ => continue,
            },
            ExprKind::In { operand, list, negated: false } => match key_of(operand) {
                Some(key) => (key, list.iter().map(literal).collect::<Option<Vec<_>>>()),
                None => continue,
            },
            _ => continue,
        };
        if let (Some(values), None) = (values, &pinned[key]) {
            pinned[key] = Some(values);
        }
    }
    let mut keys: Vec<Vec<Value>> = vec![Vec::new()];
    for values in pinned {
        let mut distinct: Vec<Value> = Vec::new();
        for value in values? {
            if !distinct.contains(&value) {
                distinct.push(value);
            }
        }
        keys = keys
            .iter()
            .flat_map(|key| distinct.iter().map(move |v| key.iter().cloned().chain([v.clone()]).collect()))
            .collect();
        if keys.len() > LOOKUP_KEYS_MAX {
            return None;
        }
    }
    Some(keys)
}

/// One of our aggregates behind DataFusion's interface.
struct OwnAggregate {
    name: String,
    aggregate: Arc<dyn Aggregate>,
    args: usize,
    result: DataType,
    signature: Signature,
    now_ms: i64,
}

impl fmt::Debug for OwnAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

// Names are unique within a plan, and no aggregate outlives its plan.
impl PartialEq for OwnAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.aggregate, &other.aggregate)
    }
}

impl Eq for OwnAggregate {}

impl Hash for OwnAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl AggregateUDFImpl for OwnAggregate {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(self.result.clone())
    }

    fn accumulator(&self, _: AccumulatorArgs) -> datafusion::common::Result<Box<dyn Accumulator>> {
        Ok(Box::new(OwnAccumulator {
            state: self.aggregate.create(),
            aggregate: self.aggregate.clone(),
            args: self.args,
            cx: Mutex::new(EvalContext::new(self.now_ms, 0)),
        }))
    }

    fn state_fields(&self, _: StateFieldsArgs) -> datafusion::common::Result<Vec<Arc<Field>>> {
        Ok(vec![Arc::new(Field::new("state", DataType::Binary, true))])
    }
}

struct OwnAccumulator {
    aggregate: Arc<dyn Aggregate>,
    state: State,
    args: usize,
    cx: Mutex<EvalContext>,
}

impl fmt::Debug for OwnAccumulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnAccumulator")
    }
}

fn external(e: Error) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}

impl Accumulator for OwnAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> datafusion::common::Result<()> {
        let rows = values.first().map_or(0, |v| v.len());
        let mut bound = self.aggregate.bind(&values[..self.args], self.cx.get_mut()).map_err(external)?;
        for row in 0..rows {
            match bound.update(&mut self.state, row) {
                Ok(()) => {}
                // As in a persistent query: the row counts for nothing.
                Err(crate::aggregates::UpdateError::Row(_)) => {}
                Err(crate::aggregates::UpdateError::Fatal(why)) => return Err(external(Error::bad_request(why))),
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> datafusion::common::Result<ScalarValue> {
        let mut results = self.aggregate.results(1);
        results.append(&self.state).map_err(external)?;
        ScalarValue::try_from_array(&results.finish().map_err(external)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> datafusion::common::Result<Vec<ScalarValue>> {
        let mut bytes = Vec::new();
        self.aggregate.encode(&self.state, &mut bytes);
        Ok(vec![ScalarValue::Binary(Some(bytes))])
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> datafusion::common::Result<()> {
        // Plans here aggregate in a single pass.
        Err(external(Error::bug("partial states of a pull query's aggregate")))
    }
}
