//! Types: `DECIMAL(4, 2)`, `MAP<STRING, ARRAY<INT>>`, `STRUCT<a INT>`, `INT ARRAY`, and names of user-defined types.

use super::cursor::{Cursor, too_deep};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::syntax::{DEPTH_MAX, FieldDef, Span, TypeName, TypeNameKind, TypeParameter};
use crate::token::TokenKind;

impl Cursor<'_> {
    pub(super) fn type_name(&mut self) -> Result<TypeName> {
        self.type_tree().map(|(ty, _)| ty)
    }

    /// A type and its height.
    fn type_tree(&mut self) -> Result<(TypeName, usize)> {
        self.enter()?;
        let start = self.span();
        let (kind, mut height) = self.type_kind()?;
        let mut ty = TypeName { kind, span: start.to(self.last_span()) };
        while self.is_word_at(0, "ARRAY") {
            height += 1;
            let span = start.to(self.advance());
            if height > DEPTH_MAX {
                return Err(too_deep(span));
            }
            ty = TypeName { kind: TypeNameKind::Array(Box::new(ty)), span };
        }
        self.leave();
        Ok((ty, height))
    }

    fn type_kind(&mut self) -> Result<(TypeNameKind, usize)> {
        if self.is_word_at(0, "ARRAY") {
            self.advance();
            self.expect_symbol("<")?;
            let (item, height) = self.type_tree()?;
            self.expect_symbol(">")?;
            return Ok((TypeNameKind::Array(Box::new(item)), checked(height + 1, self.last_span())?));
        }
        if self.is_word_at(0, "MAP") {
            self.advance();
            self.expect_symbol("<")?;
            let (key, key_height) = self.type_tree()?;
            self.expect_symbol(",")?;
            let (value, value_height) = self.type_tree()?;
            self.expect_symbol(">")?;
            let height = checked(key_height.max(value_height) + 1, self.last_span())?;
            return Ok((TypeNameKind::Map(Box::new(key), Box::new(value)), height));
        }
        if self.is_word_at(0, "STRUCT") {
            self.advance();
            return self.struct_type();
        }
        let name = self.name("a type")?;
        let mut parameters = Vec::new();
        if self.eat_symbol("(").is_some() {
            loop {
                parameters.push(self.type_parameter()?);
                if self.eat_symbol(",").is_none() {
                    break;
                }
            }
            self.expect_symbol(")")?;
        }
        Ok((TypeNameKind::Named { name, parameters }, 1))
    }

    fn struct_type(&mut self) -> Result<(TypeNameKind, usize)> {
        if self.eat_symbol("<>").is_some() {
            return Ok((TypeNameKind::Struct(vec![]), 1));
        }
        self.expect_symbol("<")?;
        let mut fields = Vec::new();
        let mut height = 0;
        if self.eat_symbol(">").is_some() {
            return Ok((TypeNameKind::Struct(fields), 1));
        }
        loop {
            let name = self.name("the name of a field")?;
            let (ty, field_height) = self.type_tree()?;
            height = height.max(field_height);
            fields.push(FieldDef { name, ty });
            if self.eat_symbol(",").is_none() {
                break;
            }
        }
        self.expect_symbol(">")?;
        Ok((TypeNameKind::Struct(fields), checked(height + 1, self.last_span())?))
    }

    fn type_parameter(&mut self) -> Result<TypeParameter> {
        if self.eat("STRING").is_some() {
            return Ok(TypeParameter::String);
        }
        if let Some(TokenKind::Integer(digits)) = self.kind(0) {
            let span = self.advance();
            let too_large = |_| Diagnostic::at(Code::Literal, span, format!("the number {digits} is too large"));
            return digits.parse().map(TypeParameter::Number).map_err(too_large);
        }
        Err(self.expected("a whole number"))
    }
}

fn checked(height: usize, span: Span) -> Result<usize> {
    if height > DEPTH_MAX { Err(too_deep(span)) } else { Ok(height) }
}
