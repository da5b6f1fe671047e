//! How built-in functions are written down: signature and code in one place.
//!
//! `scalar!((text: Str, n: Int) -> Str => ...)` declares an overload over marker types. It reads columns and scalars
//! alike, gives NULL where an argument is NULL (unless it is `Opt<..>`), and turns an `Err` of the body into a failed row.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, ListArray, ListBuilder,
    PrimitiveArray, PrimitiveBuilder, StringArray, StringBuilder,
};
use arrow::datatypes::{
    Date32Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType, TimestampMillisecondType,
};
use millpond_sql::functions::{ArgType, CheckText, Function, FunctionKind, Overload, Param, ParamType, ResultType};
use millpond_types::{Error, Result, SqlType};

use super::{CallSite, Failures, Implementation, Returned, ScalarFunction, ScalarImpl, TableFunction};
use crate::aggregates::AggregateFunction;
use crate::java_time;

/// Bytes that a function may make for one row by repeating or padding.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Bytes of one result column; its offsets are 32 bits wide.
const COLUMN_BYTES_MAX: usize = 1 << 30;
/// Elements that one call may lay out for a batch.
pub const ITEMS_MAX: usize = 1 << 24;
/// Compiled patterns that one call site keeps.
const MEMO_ENTRIES_MAX: usize = 64;

/// An overload with its code.
pub struct Def {
    params: Vec<Param>,
    variadic: Option<usize>,
    init_params: usize,
    undo: bool,
    result: ResultType,
    code: Implementation,
}

pub fn param(name: &str, ty: ParamType) -> Param {
    Param { name: name.into(), ty, check: None }
}

/// A parameter of a marker type.
pub fn param_of<K: Kind>(name: &str) -> Param {
    Param { name: name.into(), ty: K::param(), check: K::check() }
}

pub fn exact(ty: SqlType) -> ParamType {
    ParamType::Exact(ty)
}

/// The type variable `T`.
pub const T: ParamType = ParamType::Generic("T");

pub fn list_of(item: ParamType) -> ParamType {
    ParamType::Array(Box::new(item))
}

pub fn map_of(key: ParamType, value: ParamType) -> ParamType {
    ParamType::Map(Box::new(key), Box::new(value))
}

/// A result type that follows from the arguments' types.
pub fn computed(f: impl Fn(&[ArgType]) -> Result<SqlType, String> + Send + Sync + 'static) -> ResultType {
    ResultType::Computed(Arc::new(f))
}

impl Def {
    /// A scalar overload whose code is made per call site.
    pub fn scalar(params: Vec<Param>, result: ResultType, code: impl ScalarFunction + 'static) -> Self {
        let code = Implementation::Scalar(Arc::new(code));
        Self { params, variadic: None, init_params: 0, undo: false, result, code }
    }

    pub fn table(params: Vec<Param>, result: ResultType, code: impl TableFunction + 'static) -> Self {
        let code = Implementation::Table(Arc::new(code));
        Self { params, variadic: None, init_params: 0, undo: false, result, code }
    }

    pub fn aggregate(params: Vec<Param>, result: ResultType, code: impl AggregateFunction + 'static) -> Self {
        let code = Implementation::Aggregate(Arc::new(code));
        Self { params, variadic: None, init_params: 0, undo: false, result, code }
    }

    /// The parameter at this index may occur any number of times.
    pub fn variadic(mut self, index: usize) -> Self {
        self.variadic = Some(index);
        self
    }

    /// So many of the last parameters take literals only.
    pub fn init(mut self, count: usize) -> Self {
        self.init_params = count;
        self
    }

    pub fn undo(mut self) -> Self {
        self.undo = true;
        self
    }
}

/// The built-in functions while they register.
#[derive(Default)]
pub struct Builtin {
    functions: BTreeMap<&'static str, (Function, Vec<Implementation>)>,
}

impl Builtin {
    pub fn add(&mut self, name: &'static str, category: &str, description: &str, defs: Vec<Def>) {
        let kind = defs.first().map_or(FunctionKind::Scalar, |d| d.code.kind());
        let mut code = Vec::with_capacity(defs.len());
        let overloads = (0..)
            .zip(defs)
            .map(|(id, def)| {
                code.push(def.code);
                Overload {
                    id,
                    params: def.params,
                    variadic: def.variadic,
                    init_params: def.init_params,
                    result: def.result,
                    undo: def.undo,
                    description: description.into(),
                }
            })
            .collect();
        let function = Function {
            name: name.into(),
            kind,
            description: description.into(),
            category: category.into(),
            author: "Millpond".into(),
            module: None,
            overloads,
        };
        debug_assert!(!self.functions.contains_key(name), "function {name} is declared twice");
        self.functions.insert(name, (function, code));
    }

    pub fn into_functions(self) -> Vec<(Function, Vec<Implementation>)> {
        self.functions.into_values().collect()
    }
}

/// Code given as what `bind` does.
pub struct Bind<B>(pub B);

impl<B: Fn(&CallSite<'_>) -> Result<Arc<dyn ScalarImpl>> + Send + Sync> ScalarFunction for Bind<B> {
    fn bind(&self, site: &CallSite<'_>) -> Result<Arc<dyn ScalarImpl>> {
        (self.0)(site)
    }
}

/// As [`Bind`], for functions whose results differ from call to call.
pub struct BindVolatile<B>(pub B);

impl<B: Fn(&CallSite<'_>) -> Result<Arc<dyn ScalarImpl>> + Send + Sync> ScalarFunction for BindVolatile<B> {
    fn bind(&self, site: &CallSite<'_>) -> Result<Arc<dyn ScalarImpl>> {
        (self.0)(site)
    }

    fn deterministic(&self) -> bool {
        false
    }
}

/// Code that is the same for every call site.
pub fn same<F>(code: F) -> Bind<impl Fn(&CallSite<'_>) -> Result<Arc<dyn ScalarImpl>> + Send + Sync>
where
    F: ScalarImpl + 'static,
{
    let code: Arc<dyn ScalarImpl> = Arc::new(code);
    Bind(move |_: &CallSite<'_>| Ok(code.clone()))
}

/// A marker for a SQL type.
pub trait Kind {
    fn param() -> ParamType;

    /// What literals are held to.
    fn check() -> Option<CheckText> {
        None
    }
}

/// A type that arguments are read as.
pub trait Read: Kind {
    type Reader<'a>;
    type Item<'a>;

    fn reader(array: &ArrayRef, scalar: bool) -> Result<Self::Reader<'_>>;
    /// `None` makes the result NULL.
    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Option<Self::Item<'a>>;
}

/// A type that results are written as.
pub trait Write: Kind {
    type Out: Output;

    fn output(rows: usize) -> Self::Out;
}

/// A column, or a scalar that stands for every row.
pub struct Lane<'a, A> {
    array: &'a A,
    step: usize,
}

impl<'a, A: Array> Lane<'a, A> {
    fn new(given: &ArrayRef, array: Option<&'a A>, scalar: bool) -> Result<Self> {
        let wrong = || Error::bug(format!("a function was given a column of type {}", given.data_type()));
        Ok(Self { array: array.ok_or_else(wrong)?, step: usize::from(!scalar) })
    }

    #[inline]
    fn at(&self, row: usize) -> Option<usize> {
        let at = row * self.step;
        self.array.is_valid(at).then_some(at)
    }
}

/// A column under construction.
pub trait Output {
    fn append_null(&mut self);
    fn finish(self) -> Result<Returned>;
}

/// Values that a column takes.
pub trait Push<V> {
    fn push(&mut self, row: usize, value: V);
}

pub struct Out<B> {
    builder: B,
    failures: Failures,
    /// Elements, or bytes in them, so far.
    size: usize,
}

impl<B> Out<B> {
    fn new(builder: B) -> Self {
        Self { builder, failures: Failures::default(), size: 0 }
    }
}

impl<B, V> Push<Option<V>> for Out<B>
where
    Self: Push<V> + Output,
{
    #[inline]
    fn push(&mut self, row: usize, value: Option<V>) {
        match value {
            Some(value) => self.push(row, value),
            None => self.append_null(),
        }
    }
}

impl<B, V> Push<Result<V, String>> for Out<B>
where
    Self: Push<V> + Output,
{
    #[inline]
    fn push(&mut self, row: usize, value: Result<V, String>) {
        match value {
            Ok(value) => self.push(row, value),
            Err(message) => {
                self.failures.push(row, || message);
                self.append_null();
            }
        }
    }
}

macro_rules! output {
    ($builder:ty) => {
        impl Output for Out<$builder> {
            #[inline]
            fn append_null(&mut self) {
                self.builder.append_null();
            }

            fn finish(mut self) -> Result<Returned> {
                Ok(Returned { array: Arc::new(self.builder.finish()) as ArrayRef, failures: self.failures })
            }
        }
    };
}

macro_rules! bytes_output {
    ($builder:ty, [$($push:ty),*]) => {
        $(impl Push<$push> for Out<$builder> {
            #[inline]
            fn push(&mut self, row: usize, value: $push) {
                if self.builder.values_slice().len() + value.len() > COLUMN_BYTES_MAX {
                    self.failures.push(row, || "the results of the batch are too large".into());
                    self.builder.append_null();
                } else {
                    self.builder.append_value(value);
                }
            }
        })*
    };
}

macro_rules! kind {
    ($kind:ident, $sql:expr, $array:ty, $as:ident $(::<$arrow:ty>)?, $item:ty, $builder:ty, [$($push:ty),*]) => {
        pub struct $kind;

        impl Kind for $kind {
            fn param() -> ParamType {
                ParamType::Exact($sql)
            }
        }

        impl Read for $kind {
            type Reader<'a> = Lane<'a, $array>;
            type Item<'a> = $item;

            fn reader(array: &ArrayRef, scalar: bool) -> Result<Self::Reader<'_>> {
                Lane::new(array, array.$as$(::<$arrow>)?(), scalar)
            }

            #[inline]
            fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Option<Self::Item<'a>> {
                reader.at(row).map(|at| reader.array.value(at))
            }
        }

        impl Write for $kind {
            type Out = Out<$builder>;

            fn output(_rows: usize) -> Self::Out {
                Out::new(<$builder>::new())
            }
        }

        output!($builder);

        $(impl Push<$push> for Out<$builder> {
            #[inline]
            fn push(&mut self, _row: usize, value: $push) {
                self.builder.append_value(value);
            }
        })*
    };
}

kind!(Str, SqlType::String, StringArray, as_string_opt::<i32>, &'a str, StringBuilder, []);
bytes_output!(StringBuilder, [&str, String, Cow<'_, str>]);
kind!(Byt, SqlType::Bytes, BinaryArray, as_binary_opt::<i32>, &'a [u8], BinaryBuilder, []);
bytes_output!(BinaryBuilder, [&[u8], Vec<u8>]);
kind!(Bool, SqlType::Boolean, BooleanArray, as_boolean_opt, bool, BooleanBuilder, [bool]);
kind!(
    Int,
    SqlType::Integer,
    PrimitiveArray<Int32Type>,
    as_primitive_opt::<Int32Type>,
    i32,
    PrimitiveBuilder<Int32Type>,
    [i32]
);
kind!(
    Big,
    SqlType::BigInt,
    PrimitiveArray<Int64Type>,
    as_primitive_opt::<Int64Type>,
    i64,
    PrimitiveBuilder<Int64Type>,
    [i64]
);
kind!(
    Dbl,
    SqlType::Double,
    PrimitiveArray<Float64Type>,
    as_primitive_opt::<Float64Type>,
    f64,
    PrimitiveBuilder<Float64Type>,
    [f64]
);
kind!(
    Dat,
    SqlType::Date,
    PrimitiveArray<Date32Type>,
    as_primitive_opt::<Date32Type>,
    i32,
    PrimitiveBuilder<Date32Type>,
    [i32]
);
kind!(
    Tim,
    SqlType::Time,
    PrimitiveArray<Time32MillisecondType>,
    as_primitive_opt::<Time32MillisecondType>,
    i32,
    PrimitiveBuilder<Time32MillisecondType>,
    [i32]
);
kind!(
    Ts,
    SqlType::Timestamp,
    PrimitiveArray<TimestampMillisecondType>,
    as_primitive_opt::<TimestampMillisecondType>,
    i64,
    PrimitiveBuilder<TimestampMillisecondType>,
    [i64]
);

/// Types that are read as STRINGs.
macro_rules! text {
    ($kind:ident, $param:expr, $check:expr) => {
        impl Kind for $kind {
            fn param() -> ParamType {
                $param
            }

            fn check() -> Option<CheckText> {
                $check
            }
        }

        impl Read for $kind {
            type Reader<'a> = Lane<'a, StringArray>;
            type Item<'a> = &'a str;

            fn reader(array: &ArrayRef, scalar: bool) -> Result<Self::Reader<'_>> {
                Str::reader(array, scalar)
            }

            #[inline]
            fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Option<&'a str> {
                Str::get(reader, row)
            }
        }
    };
}

/// A bare word such as DAYS.
pub struct Unit;
/// A regular expression.
pub struct Pat;
/// A pattern of Java's `DateTimeFormatter`.
pub struct TimePat;
/// A time zone's name or offset.
pub struct ZoneName;

text!(Unit, ParamType::IntervalUnit, None);
text!(Pat, Str::param(), Some(|text| super::regex::compile(text).map(drop)));
text!(TimePat, Str::param(), Some(|text| java_time::Pattern::compile(text).map(drop)));
text!(ZoneName, Str::param(), Some(|text| java_time::Zone::parse(text).map(drop)));

/// An argument that may be NULL without making the result so.
pub struct Opt<K>(std::marker::PhantomData<K>);

impl<K: Kind> Kind for Opt<K> {
    fn param() -> ParamType {
        K::param()
    }

    fn check() -> Option<CheckText> {
        K::check()
    }
}

impl<K: Read> Read for Opt<K> {
    type Reader<'a> = K::Reader<'a>;
    type Item<'a> = Option<K::Item<'a>>;

    fn reader(array: &ArrayRef, scalar: bool) -> Result<Self::Reader<'_>> {
        K::reader(array, scalar)
    }

    #[inline]
    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Option<Self::Item<'a>> {
        Some(K::get(reader, row))
    }
}

/// ARRAY of a readable or writable type.
pub struct List<K>(std::marker::PhantomData<K>);

impl<K: Kind> Kind for List<K> {
    fn param() -> ParamType {
        list_of(K::param())
    }
}

/// An ARRAY argument.
pub struct ListReader<'a, R> {
    list: Lane<'a, ListArray>,
    items: R,
}

impl<K: Read + 'static> Read for List<K> {
    type Reader<'a> = ListReader<'a, K::Reader<'a>>;
    type Item<'a> = Vec<Option<K::Item<'a>>>;

    fn reader(array: &ArrayRef, scalar: bool) -> Result<Self::Reader<'_>> {
        let list = Lane::new(array, array.as_list_opt::<i32>(), scalar)?;
        Ok(ListReader { items: K::reader(list.array.values(), false)?, list })
    }

    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Option<Self::Item<'a>> {
        let at = reader.list.at(row)?;
        let range = reader.list.array.value_offsets()[at] as usize..reader.list.array.value_offsets()[at + 1] as usize;
        Some(range.map(|i| K::get(&reader.items, i)).collect())
    }
}

macro_rules! list_output {
    ($kind:ident, $builder:ty, $item:ty, $weight:expr) => {
        output!(ListBuilder<$builder>);

        impl Write for List<$kind> {
            type Out = Out<ListBuilder<$builder>>;

            fn output(_rows: usize) -> Self::Out {
                Out::new(ListBuilder::new(<$builder>::new()))
            }
        }

        impl Push<Vec<$item>> for Out<ListBuilder<$builder>> {
            fn push(&mut self, row: usize, value: Vec<$item>) {
                self.push(row, value.into_iter().map(Some).collect::<Vec<_>>());
            }
        }

        impl Push<Vec<Option<$item>>> for Out<ListBuilder<$builder>> {
            fn push(&mut self, row: usize, value: Vec<Option<$item>>) {
                let weight: fn(&$item) -> usize = $weight;
                let bytes: usize = value.iter().flatten().map(weight).sum();
                let size = self.size + value.len() * 8 + bytes;
                if size > COLUMN_BYTES_MAX {
                    self.failures.push(row, || "the results of the batch are too large".into());
                    self.builder.append(false);
                    return;
                }
                self.size = size;
                value.into_iter().for_each(|item| self.builder.values().append_option(item));
                self.builder.append(true);
            }
        }
    };
}

list_output!(Str, StringBuilder, String, |t| t.len());
list_output!(Byt, BinaryBuilder, Vec<u8>, |t| t.len());
list_output!(Int, PrimitiveBuilder<Int32Type>, i32, |_| 0);
list_output!(Big, PrimitiveBuilder<Int64Type>, i64, |_| 0);

/// Things compiled from texts (patterns, paths), kept for the life of a call site.
pub struct Memo<V> {
    entries: HashMap<String, Result<V, String>>,
}

impl<V> Default for Memo<V> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<V> Memo<V> {
    pub fn get(&mut self, text: &str, compile: impl FnOnce(&str) -> Result<V, String>) -> Result<&V, String> {
        if !self.entries.contains_key(text) {
            if self.entries.len() >= MEMO_ENTRIES_MAX {
                self.entries.clear();
            }
            self.entries.insert(text.to_owned(), compile(text));
        }
        match self.entries.get(text) {
            Some(Ok(value)) => Ok(value),
            Some(Err(message)) => Err(message.clone()),
            None => Err("the pattern that was just compiled is missing".into()),
        }
    }
}

/// Declares a scalar overload; see the module's introduction. `memo: Type;` in front gives the body a mutable `memo`
/// of that type that lasts as long as the call site.
macro_rules! scalar {
    ($memo:ident: $memo_ty:ty; ($($arg:ident: $kind:ty),*) -> $out:ty => $body:expr) => {
        $crate::functions::typed::Def::scalar(
            vec![$($crate::functions::typed::param_of::<$kind>(stringify!($arg))),*],
            millpond_sql::functions::ResultType::Of(<$out as $crate::functions::typed::Kind>::param()),
            $crate::functions::typed::Bind(|_: &$crate::functions::CallSite<'_>| {
                let shared = parking_lot::Mutex::new(<$memo_ty>::default());
                let code: std::sync::Arc<dyn $crate::functions::ScalarImpl> = std::sync::Arc::new(
                    move |args: &$crate::functions::Args<'_>, _: &mut $crate::expr::EvalContext| {
                        // Another thread may have it; then a fresh one does.
                        let mut guard = shared.try_lock();
                        let mut fresh = <$memo_ty>::default();
                        let $memo = guard.as_deref_mut().unwrap_or(&mut fresh);
                        scalar!(@loop args, ($($arg: $kind),*) -> $out => $body)
                    },
                );
                Ok(code)
            }),
        )
    };
    (($($arg:ident: $kind:ty),*) -> $out:ty => $body:expr) => {
        $crate::functions::typed::Def::scalar(
            vec![$($crate::functions::typed::param_of::<$kind>(stringify!($arg))),*],
            millpond_sql::functions::ResultType::Of(<$out as $crate::functions::typed::Kind>::param()),
            $crate::functions::typed::same(
                move |args: &$crate::functions::Args<'_>, _: &mut $crate::expr::EvalContext| {
                    scalar!(@loop args, ($($arg: $kind),*) -> $out => $body)
                },
            ),
        )
    };
    (@loop $args:ident, ($($arg:ident: $kind:ty),*) -> $out:ty => $body:expr) => {{
        #[allow(unused_imports, reason = "functions without parameters read nothing")]
        use $crate::functions::typed::{Output as _, Push as _, Read as _, Write as _};
        #[allow(unused_mut, unused_variables, reason = "functions without parameters read nothing")]
        let mut next = 0..;
        $(
            let $arg = $args.values(next.next().unwrap_or(usize::MAX))?;
            let $arg = <$kind as $crate::functions::typed::Read>::reader($arg.array(), $arg.is_scalar())?;
        )*
        let mut out = <$out as $crate::functions::typed::Write>::output($args.rows);
        for row in 0..$args.rows {
            $(
                let Some($arg) = <$kind as $crate::functions::typed::Read>::get(&$arg, row) else {
                    out.append_null();
                    continue;
                };
            )*
            out.push(row, $body);
        }
        out.finish()
    }};
}
pub(crate) use scalar;
