//! Calls: finds the function, chooses the overload, types lambdas, converts arguments.
//!
//! Choice: overloads that take the arguments as they are go before those that need conversions, fixed ones before
//! variadic ones, concrete ones before generic ones, then fewer widenings win. A NULL fits every parameter. What is
//! still undecided is an error.

use std::collections::HashMap;
use std::sync::Arc;

use millpond_types::{SqlType, Value};

use super::coerce::{coerce, common_type, merge, reads_text, widening_distance};
use super::scope::find_function;
use super::typer::{LambdaBinding, Typed, Typer, null};
use crate::diagnostic::{Code, Diagnostic};
use crate::expr::{ExprKind, FunctionCall, Lambda, LambdaVar, TypedExpr};
use crate::functions::{ArgType, Function, Overload, Param, ParamType, ResultType};
use crate::plan::{AggregateCall, AnalysisResult};
use crate::syntax::{self, Expr, Ident, Span};

/// What the type variables of an overload stand for.
type Variables = HashMap<&'static str, SqlType>;

/// An argument before the overload is chosen.
enum Argument<'e> {
    Value(Typed, &'e Expr),
    Lambda { parameters: &'e [Ident], body: &'e Expr, span: Span },
    Unit(Value, Span),
}

impl Argument<'_> {
    fn type_text(&self) -> String {
        match self {
            Self::Value(typed, _) => typed.type_text(),
            Self::Lambda { .. } => "LAMBDA".to_owned(),
            Self::Unit(..) => "INTERVALUNIT".to_owned(),
        }
    }
}

/// How well an overload fits; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    converts: bool,
    variadic: bool,
    generic: u32,
    widenings: u32,
}

impl Typer<'_> {
    /// The function of this name.
    pub fn function(&self, name: &Ident) -> AnalysisResult<Arc<Function>> {
        find_function(self.env.functions(), name)
    }

    /// A call of a scalar or table function, whichever the caller allows.
    pub fn resolve_call(&mut self, function: &Function, call: &syntax::Call, span: Span) -> AnalysisResult<TypedExpr> {
        let arguments = self.arguments(call)?;
        let shown = call.name.value.clone();
        let (overload, args, ty) = self.resolve(function, &shown, arguments, span)?;
        let kind = ExprKind::Call(FunctionCall { name: function.name.clone(), overload: overload.id, args });
        Ok(TypedExpr::new(kind, ty, span))
    }

    /// A call of a built-in function that the grammar has an own syntax for.
    pub fn call_typed(&mut self, name: &str, args: Vec<(Typed, &Expr)>, span: Span) -> AnalysisResult<TypedExpr> {
        let function = self.function(&Ident { value: name.to_owned(), quoted: false, span })?;
        let arguments = args.into_iter().map(|(typed, expr)| Argument::Value(typed, expr)).collect();
        let (overload, args, ty) = self.resolve(&function, name, arguments, span)?;
        let kind = ExprKind::Call(FunctionCall { name: function.name.clone(), overload: overload.id, args });
        Ok(TypedExpr::new(kind, ty, span))
    }

    /// A call of an aggregate function; the arguments behind the column arguments must be literals.
    pub fn aggregate(
        &mut self,
        function: &Function,
        call: &syntax::Call,
        span: Span,
    ) -> AnalysisResult<(AggregateCall, Overload)> {
        let arguments = self.arguments(call)?;
        let shown = call.name.value.clone();
        let (overload, mut args, ty) = self.resolve(function, &shown, arguments, span)?;
        let fixed = overload.params.len().saturating_sub(overload.init_params);
        let columns = match overload.variadic {
            // The variadic one is among the literals.
            Some(at) if at >= fixed => fixed,
            _ => args.len().saturating_sub(overload.init_params),
        };
        let mut init = Vec::with_capacity(args.len().saturating_sub(columns));
        for (i, arg) in args.split_off(columns).into_iter().enumerate() {
            match arg.kind {
                ExprKind::Literal(value) => init.push(value),
                _ => {
                    return Err(Diagnostic::at(
                        Code::Aggregate,
                        arg.span,
                        format!(
                            "parameter {} passed to function {} must be a literal constant, but was expression: '{}'",
                            columns + i + 1,
                            function.name,
                            call.arguments.get(columns + i).map(|a| self.show(a)).unwrap_or_default()
                        ),
                    ));
                }
            }
        }
        let call = FunctionCall { name: function.name.clone(), overload: overload.id, args };
        Ok((AggregateCall { call, init, ty }, overload))
    }

    fn arguments<'e>(&mut self, call: &'e syntax::Call) -> AnalysisResult<Vec<Argument<'e>>> {
        call.arguments
            .iter()
            .map(|argument| match &argument.kind {
                syntax::ExprKind::Lambda { parameters, body } => {
                    Ok(Argument::Lambda { parameters, body, span: argument.span })
                }
                _ => match argument.interval_unit() {
                    Some(unit) => Ok(Argument::Unit(Value::String(unit.word().to_owned()), argument.span)),
                    None => Ok(Argument::Value(self.typed(argument)?, argument)),
                },
            })
            .collect()
    }

    fn resolve(
        &mut self,
        function: &Function,
        shown: &str,
        arguments: Vec<Argument<'_>>,
        span: Span,
    ) -> AnalysisResult<(Overload, Vec<TypedExpr>, SqlType)> {
        let mut fitting: Vec<(Cost, &Overload)> =
            function.overloads.iter().filter_map(|o| Some((fit(o, &arguments)?, o))).collect();
        fitting.sort_by_key(|(cost, _)| *cost);
        let types = || arguments.iter().map(Argument::type_text).collect::<Vec<_>>().join(", ");
        let overload = match fitting.as_slice() {
            [] => {
                let alternatives: Vec<String> = function.overloads.iter().map(|o| signature(shown, o)).collect();
                return Err(Diagnostic::at(
                    Code::Type,
                    span,
                    format!("function '{shown}' does not accept parameters ({})", types()),
                )
                .with_hint(format!("valid alternatives are: {}", alternatives.join("; "))));
            }
            [(cost, _), (next, _), ..] if cost == next || ties(cost, next) => {
                return Err(Diagnostic::at(
                    Code::Type,
                    span,
                    format!("function '{shown}' cannot be resolved due to ambiguous method parameters ({})", types()),
                )
                .with_hint("cast the arguments to the wanted types"));
            }
            [(_, overload), ..] => (*overload).clone(),
        };
        let (args, variables) = self.convert(&overload, arguments)?;
        let ty = self.result_type(&overload, &args, &variables, span)?;
        Ok((overload, args, ty))
    }

    /// The arguments as the overload's parameter types.
    fn convert(
        &mut self,
        overload: &Overload,
        arguments: Vec<Argument<'_>>,
    ) -> AnalysisResult<(Vec<TypedExpr>, Variables)> {
        let Some(laid) = parameters(overload, arguments.len()) else {
            return Err(Diagnostic::bug("an overload was chosen that does not take the arguments"));
        };
        let params: Vec<ParamType> = laid.iter().map(|p| p.ty.clone()).collect();
        // What the type variables stand for follows from the values; lambdas come after that, from left to right.
        let mut variables = Variables::new();
        for (param, argument) in params.iter().zip(&arguments) {
            if let Argument::Value(Typed::Expr(e), _) = argument {
                bind(param, e, &mut variables);
            }
        }
        let mut args = Vec::with_capacity(arguments.len());
        for (param, argument) in params.iter().zip(arguments) {
            args.push(match argument {
                Argument::Unit(value, span) => TypedExpr::new(ExprKind::Literal(value), SqlType::String, span),
                Argument::Value(typed, expr) => {
                    let wanted = substitute(param, &variables);
                    match (typed, wanted) {
                        (Typed::Null(at), Some(ty)) => null(&ty, at),
                        (Typed::Null(at), None) => null(&placeholder(param), at),
                        (Typed::Expr(e), Some(ty)) => self.coerced(e, &ty, expr)?,
                        (Typed::Expr(e), None) => decimal_argument(e, param),
                    }
                }
                Argument::Lambda { parameters, body, span } => {
                    let ParamType::Lambda(inputs, output) = param else {
                        return Err(Diagnostic::bug("a lambda for a value"));
                    };
                    self.lambda(parameters, body, inputs, output, &mut variables, span)?
                }
            });
        }
        for (param, arg) in laid.iter().zip(&args) {
            if let (Some(check), ExprKind::Literal(Value::String(text))) = (param.check, &arg.kind)
                && let Err(why) = check(text)
                && self.env.refuses_constant(&why)
            {
                return Err(Diagnostic::at(Code::Invalid, arg.span, why));
            }
        }
        Ok((args, variables))
    }

    fn lambda(
        &mut self,
        names: &[Ident],
        body: &Expr,
        inputs: &[ParamType],
        output: &ParamType,
        variables: &mut Variables,
        span: Span,
    ) -> AnalysisResult<TypedExpr> {
        if names.len() != inputs.len() {
            return Err(Diagnostic::at(
                Code::Type,
                span,
                format!("the lambda should have {} parameters, not {}", inputs.len(), names.len()),
            ));
        }
        let depth = self.lambdas.len();
        let mut params = Vec::with_capacity(names.len());
        for (name, input) in names.iter().zip(inputs) {
            let Some(ty) = substitute(input, variables) else {
                return Err(Diagnostic::at(
                    Code::Type,
                    name.span,
                    format!("the type of lambda parameter {name} cannot be inferred, cast the other arguments"),
                ));
            };
            let id = self.next_lambda;
            self.next_lambda += 1;
            self.lambdas.push(LambdaBinding { name: name.value.clone(), id, ty: ty.clone() });
            params.push(LambdaVar { id, name: name.value.clone(), ty });
        }
        let written = body;
        let typed = self.typed(written);
        self.lambdas.truncate(depth);
        let body = match (typed?, substitute(output, variables)) {
            (Typed::Null(at), Some(ty)) => null(&ty, at),
            (Typed::Null(at), None) => null(&SqlType::String, at),
            (Typed::Expr(e), Some(ty)) => self.coerced(e, &ty, written)?,
            (Typed::Expr(e), None) => {
                bind(output, &e, variables);
                e
            }
        };
        let ty = body.ty.clone();
        Ok(TypedExpr::new(ExprKind::Lambda(Box::new(Lambda { params, body })), ty, span))
    }

    fn result_type(
        &self,
        overload: &Overload,
        args: &[TypedExpr],
        variables: &Variables,
        span: Span,
    ) -> AnalysisResult<SqlType> {
        match &overload.result {
            ResultType::Of(ty) => substitute_result(ty, variables, args).ok_or_else(|| {
                Diagnostic::at(
                    Code::Type,
                    span,
                    "the type of the result cannot be inferred from NULL arguments only; cast one of them",
                )
            }),
            ResultType::Computed(compute) => {
                let types: Vec<ArgType> = args
                    .iter()
                    .map(|arg| ArgType {
                        ty: arg.ty.clone(),
                        literal: match &arg.kind {
                            ExprKind::Literal(value) if !value.is_null() => Some(value.clone()),
                            _ => None,
                        },
                    })
                    .collect();
                compute(&types).map_err(|message| Diagnostic::at(Code::Type, span, message))
            }
        }
    }
}

/// Two overloads that both convert, one as general as the other: variadic ones are not told apart by widenings.
fn ties(a: &Cost, b: &Cost) -> bool {
    a.converts && a.variadic && b.converts && b.variadic && a.generic == b.generic
}

/// The overload's parameters laid out for so many arguments.
fn parameters(overload: &Overload, arguments: usize) -> Option<Vec<&Param>> {
    let params = &overload.params;
    let Some(at) = overload.variadic else {
        return (params.len() == arguments).then(|| params.iter().collect());
    };
    let repeated = (arguments + 1).checked_sub(params.len())?;
    let mut laid = Vec::with_capacity(arguments);
    for (i, param) in params.iter().enumerate() {
        laid.extend(std::iter::repeat_n(param, if i == at { repeated } else { 1 }));
    }
    Some(laid)
}

fn fit(overload: &Overload, arguments: &[Argument<'_>]) -> Option<Cost> {
    let params = parameters(overload, arguments.len())?;
    let mut cost = Cost { converts: false, variadic: overload.variadic.is_some(), generic: 0, widenings: 0 };
    let mut variables = Variables::new();
    for (param, argument) in params.iter().zip(arguments) {
        match argument {
            Argument::Unit(..) => {
                if param.ty != ParamType::IntervalUnit {
                    return None;
                }
            }
            Argument::Lambda { parameters, .. } => match &param.ty {
                ParamType::Lambda(inputs, _) if inputs.len() == parameters.len() => cost.generic += 1,
                _ => return None,
            },
            Argument::Value(Typed::Null(_), _) => {
                if matches!(param.ty, ParamType::IntervalUnit | ParamType::Lambda(..)) {
                    return None;
                }
            }
            Argument::Value(Typed::Expr(e), _) => {
                let distance = accepts(&param.ty, e, &mut variables, &mut cost.generic)?;
                cost.widenings += distance;
                cost.converts |= distance > 0;
            }
        }
    }
    Some(cost)
}

/// How far the argument is from the parameter; `None` if it does not fit.
fn accepts(param: &ParamType, arg: &TypedExpr, variables: &mut Variables, generic: &mut u32) -> Option<u32> {
    const TEXT: u32 = 10;
    match param {
        ParamType::Exact(ty) => match widening_distance(&arg.ty, ty) {
            Some(distance) => Some(distance),
            None if arg.ty == SqlType::String && reads_text(ty) => Some(TEXT),
            // ARRAY[], MAP() and STRUCT() of literals take the type that is wanted.
            None => (!arg.ty.is_primitive() && coerce(arg.clone(), ty).is_ok()).then_some(TEXT),
        },
        ParamType::Decimal => match &arg.ty {
            SqlType::Decimal { .. } => Some(0),
            SqlType::BigInt => Some(1),
            SqlType::Integer => Some(2),
            _ => None,
        },
        ParamType::Any => {
            *generic += 2;
            Some(0)
        }
        ParamType::AnyStruct => {
            *generic += 1;
            matches!(arg.ty, SqlType::Struct(_)).then_some(0)
        }
        ParamType::Generic(name) => {
            *generic += 1;
            match variables.get(name) {
                None => {
                    variables.insert(name, arg.ty.clone());
                    Some(0)
                }
                Some(known) if *known == arg.ty => Some(0),
                Some(known) => {
                    let common = merge(known, arg).ok()?;
                    variables.insert(name, common);
                    Some(1)
                }
            }
        }
        ParamType::Array(_) | ParamType::Map(..) => accepts_type(param, &arg.ty, variables, generic),
        ParamType::Lambda(..) | ParamType::IntervalUnit => None,
    }
}

/// As `accepts`, for parts of containers.
fn accepts_type(param: &ParamType, ty: &SqlType, variables: &mut Variables, generic: &mut u32) -> Option<u32> {
    match (param, ty) {
        (ParamType::Exact(wanted), ty) => widening_distance(ty, wanted),
        (ParamType::Decimal, SqlType::Decimal { .. }) => Some(0),
        (ParamType::Any, _) => {
            *generic += 2;
            Some(0)
        }
        (ParamType::AnyStruct, SqlType::Struct(_)) => {
            *generic += 1;
            Some(0)
        }
        (ParamType::Generic(name), ty) => {
            *generic += 1;
            match variables.get(name) {
                None => {
                    variables.insert(name, ty.clone());
                    Some(0)
                }
                Some(known) if known == ty => Some(0),
                Some(known) => {
                    let common = common_type(known, ty)?;
                    variables.insert(name, common);
                    Some(1)
                }
            }
        }
        (ParamType::Array(param), SqlType::Array(item)) => accepts_type(param, item, variables, generic),
        (ParamType::Map(k, v), SqlType::Map(key, value)) => {
            Some(accepts_type(k, key, variables, generic)? + accepts_type(v, value, variables, generic)?)
        }
        _ => None,
    }
}

/// Notes what the type variables of a parameter stand for, given the argument.
fn bind(param: &ParamType, arg: &TypedExpr, variables: &mut Variables) {
    let mut generic = 0;
    let _ = accepts(param, arg, variables, &mut generic);
}

/// The type that an argument must be converted to; `None` if it may stay what it is, or is not known yet.
fn substitute(param: &ParamType, variables: &Variables) -> Option<SqlType> {
    Some(match param {
        ParamType::Exact(ty) => ty.clone(),
        ParamType::Generic(name) => variables.get(name)?.clone(),
        ParamType::Array(item) => SqlType::array(substitute(item, variables)?),
        ParamType::Map(key, value) => SqlType::map(substitute(key, variables)?, substitute(value, variables)?),
        ParamType::IntervalUnit => SqlType::String,
        ParamType::Decimal | ParamType::Any | ParamType::AnyStruct | ParamType::Lambda(..) => return None,
    })
}

/// `substitute`, for results: a DECIMAL is the first DECIMAL argument's.
fn substitute_result(ty: &ParamType, variables: &Variables, args: &[TypedExpr]) -> Option<SqlType> {
    let first_decimal = || args.iter().find_map(|a| decimal_in(&a.ty));
    match ty {
        ParamType::Decimal => first_decimal(),
        ParamType::Array(item) => Some(SqlType::array(substitute_result(item, variables, args)?)),
        ParamType::Map(key, value) => {
            Some(SqlType::map(substitute_result(key, variables, args)?, substitute_result(value, variables, args)?))
        }
        ParamType::AnyStruct => args.iter().find(|a| matches!(a.ty, SqlType::Struct(_))).map(|a| a.ty.clone()),
        other => substitute(other, variables),
    }
}

fn decimal_in(ty: &SqlType) -> Option<SqlType> {
    match ty {
        SqlType::Decimal { .. } => Some(ty.clone()),
        SqlType::Array(item) => decimal_in(item),
        SqlType::Map(_, value) => decimal_in(value),
        _ => None,
    }
}

/// The type of a NULL for a parameter that leaves its type open.
fn placeholder(param: &ParamType) -> SqlType {
    match param {
        ParamType::Decimal => SqlType::decimal(38, 10),
        ParamType::Array(item) => SqlType::array(placeholder(item)),
        ParamType::Map(key, value) => SqlType::map(placeholder(key), placeholder(value)),
        ParamType::Exact(ty) => ty.clone(),
        ParamType::AnyStruct => SqlType::Struct(Vec::new()),
        _ => SqlType::String,
    }
}

/// Integers become the DECIMAL that holds them where a DECIMAL is wanted.
fn decimal_argument(arg: TypedExpr, param: &ParamType) -> TypedExpr {
    let to = match (&arg.ty, param) {
        (SqlType::Integer, ParamType::Decimal) => SqlType::decimal(10, 0),
        (SqlType::BigInt, ParamType::Decimal) => SqlType::decimal(19, 0),
        _ => return arg,
    };
    let span = arg.span;
    coerce(arg.clone(), &to).unwrap_or_else(|_| TypedExpr::new(ExprKind::Cast(Box::new(arg)), to, span))
}

fn signature(name: &str, overload: &Overload) -> String {
    let params: Vec<String> = overload
        .params
        .iter()
        .enumerate()
        .map(|(i, p)| {
            let dots = if overload.variadic == Some(i) { "..." } else { "" };
            format!("{}{dots} {}", p.ty, p.name).trim_end().to_owned()
        })
        .collect();
    format!("{name}({})", params.join(", "))
}
