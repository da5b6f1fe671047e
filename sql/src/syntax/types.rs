//! Types as written; names of types are not resolved.

use std::hash::{Hash, Hasher};

use super::{Ident, Span};

#[derive(Clone, Debug)]
pub struct TypeName {
    pub kind: TypeNameKind,
    pub span: Span,
}

impl PartialEq for TypeName {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Eq for TypeName {}

impl Hash for TypeName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TypeNameKind {
    /// A built-in type without parts, or a type made with CREATE TYPE. Parameters mean something for DECIMAL only.
    Named {
        name: Ident,
        parameters: Vec<TypeParameter>,
    },
    /// `ARRAY<T>` or `T ARRAY`.
    Array(Box<TypeName>),
    Map(Box<TypeName>, Box<TypeName>),
    Struct(Vec<FieldDef>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldDef {
    pub name: Ident,
    pub ty: TypeName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TypeParameter {
    Number(i64),
    /// The word STRING, which is allowed and ignored.
    String,
}
