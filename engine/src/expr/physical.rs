//! Our nodes behind DataFusion's `PhysicalExpr`, for pull queries. Row errors are NULL there and end in a shared list.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use parking_lot::Mutex;

use super::{EvalContext, EvalInput, Expr, RowError};

/// An expression over the batch's columns by index. Two are equal only if they are one.
pub struct PhysicalNode {
    expr: Expr,
    name: String,
    context: Mutex<EvalContext>,
}

impl PhysicalNode {
    /// `name` is shown in plans.
    pub fn new(expr: Expr, name: impl Into<String>, now_ms: i64, seed: u64) -> Arc<Self> {
        Arc::new(Self { expr, name: name.into(), context: Mutex::new(EvalContext::new(now_ms, seed)) })
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
        let input = EvalInput::new(batch.columns(), batch.num_rows());
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
