//! Our nodes behind DataFusion's `PhysicalExpr`, for pull queries. Row errors are NULL there and end in a shared list.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use parking_lot::Mutex;

use super::{EvalContext, EvalInput, Expr, Names, Origin, RowError};

/// An expression over the batch's columns by index. Two are equal only if they are one.
pub struct PhysicalNode {
    expr: Expr,
    name: String,
    context: Mutex<EvalContext>,
    /// Where guests are called.
    clock: Option<RowClock>,
}

/// What time it is in a row of a pull query, for guests.
#[derive(Clone, Debug)]
pub struct RowClock {
    /// Columns with the times of the tables' rows; the greatest counts.
    pub columns: Vec<usize>,
    /// Where there is none: what was read ends here.
    pub otherwise: i64,
    /// From what their random numbers follow, besides the row's values.
    pub seed: u64,
}

impl RowClock {
    fn times(&self, batch: &RecordBatch) -> Vec<i64> {
        let columns: Vec<_> =
            self.columns.iter().filter_map(|i| batch.columns().get(*i)?.as_primitive_opt::<Int64Type>()).collect();
        (0..batch.num_rows())
            .map(|row| {
                let times = columns.iter().filter(|c| c.is_valid(row)).map(|c| c.value(row));
                times.max().unwrap_or(self.otherwise)
            })
            .collect()
    }
}

impl PhysicalNode {
    /// `name` is shown in plans.
    pub fn new(expr: Expr, name: impl Into<String>, now_ms: i64, clock: Option<RowClock>) -> Arc<Self> {
        let mut context = EvalContext::new(now_ms, 0);
        context.name_inputs(clock.as_ref().map_or(0, |c| c.seed), Vec::new());
        Arc::new(Self { expr, name: name.into(), context: Mutex::new(context), clock })
    }

    /// Row errors since the last call, and how many there were in truth.
    pub fn take_errors(&self) -> (Vec<RowError>, u64) {
        self.context.lock().take_errors()
    }
}

impl fmt::Debug for PhysicalNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PhysicalNode").field(&self.name).finish()
    }
}

impl fmt::Display for PhysicalNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for PhysicalNode {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for PhysicalNode {}

impl Hash for PhysicalNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::from_ref(self).hash(state);
    }
}

impl PhysicalExpr for PhysicalNode {
    fn data_type(&self, _: &Schema) -> DataFusionResult<DataType> {
        Ok(self.expr.ty().to_arrow())
    }

    fn nullable(&self, _: &Schema) -> DataFusionResult<bool> {
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DataFusionResult<ColumnarValue> {
        let mut input = EvalInput::new(batch.columns(), batch.num_rows());
        let times = self.clock.as_ref().map(|clock| clock.times(batch));
        if let Some(time) = &times {
            input = input.of(Origin { time, names: Names::Values });
        }
        let mut context = self.context.lock();
        let array = self.expr.column_of(&input, &mut context);
        array.map(ColumnarValue::Array).map_err(|e| DataFusionError::External(Box::new(e)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn PhysicalExpr>>) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
