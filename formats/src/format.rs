//! The formats by name, and what each of them can hold. The analyser asks here before a statement is accepted; the
//! messages are ksqlDB's, as its users know them.

use millpond_types::{Error, Field, Result, SqlType};

/// How the bytes of a key or a value are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Marks that a side has no columns; its bytes are never looked at.
    None,
    Kafka,
    Delimited {
        /// An ASCII character.
        delimiter: u8,
    },
    Json,
    /// JSON with a schema id in front.
    JsonSr,
    Avro,
    Protobuf,
    /// Protobuf derived from the columns, without a schema registry.
    ProtobufNosr {
        nullable: Nullable,
    },
}

/// How a protobuf message tells a scalar that is NULL from one with its type's default value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Nullable {
    /// Not at all: NULL is read back as the default.
    #[default]
    Unset,
    /// By fields that are there or not (`optional`).
    Optional,
    /// By a message around the value (`google.protobuf.Int32Value` and the like).
    Wrapper,
}

/// Which part of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Side {
    Key,
    #[default]
    Value,
}

impl Format {
    /// DELIMITED with a comma.
    pub const DELIMITED: Self = Self::Delimited { delimiter: b',' };
    /// PROTOBUF_NOSR without a representation of NULL scalars.
    pub const PROTOBUF_NOSR: Self = Self::ProtobufNosr { nullable: Nullable::Unset };

    /// A format by its name, in any case.
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name.to_uppercase().as_str() {
            "NONE" => Self::None,
            "KAFKA" => Self::Kafka,
            "DELIMITED" => Self::DELIMITED,
            "JSON" => Self::Json,
            "JSON_SR" => Self::JsonSr,
            "AVRO" => Self::Avro,
            "PROTOBUF" => Self::Protobuf,
            "PROTOBUF_NOSR" => Self::PROTOBUF_NOSR,
            _ => return Err(Error::bad_request(format!("Unknown format: {name}"))),
        })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Kafka => "KAFKA",
            Self::Delimited { .. } => "DELIMITED",
            Self::Json => "JSON",
            Self::JsonSr => "JSON_SR",
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
            Self::ProtobufNosr { .. } => "PROTOBUF_NOSR",
        }
    }

    /// The format with the delimiter of a `KEY_DELIMITER` or `VALUE_DELIMITER` property: one character, TAB or SPACE.
    pub fn with_delimiter(self, property: &str, text: &str) -> Result<Self> {
        let Self::Delimited { .. } = self else {
            return Err(Error::bad_request(format!(
                "{} does not support the following configs: [delimiter]",
                self.name()
            )));
        };
        let mut chars = text.chars();
        let delimiter = match (text.to_uppercase().as_str(), chars.next(), chars.next()) {
            ("TAB", ..) => b'\t',
            ("SPACE", ..) => b' ',
            (_, Some(c), None) if c.is_ascii() && !matches!(c, '"' | '\n' | '\r') => c as u8,
            (_, Some(c), None) => {
                return Err(Error::unsupported(format!(
                    "Configuration {property} is invalid: the character {c:?} cannot be a delimiter"
                )));
            }
            _ => {
                return Err(Error::bad_request(format!(
                    "Configuration {property} is invalid: Invalid delimiter value: '{text}'. Delimiter must be a single \
                     character or TAB,SPACE\nExample valid value: ';'"
                )));
            }
        };
        Ok(Self::Delimited { delimiter })
    }

    /// The format with the representation of NULL that a `KEY_` or `VALUE_PROTOBUF_NULLABLE_REPRESENTATION` property
    /// names: OPTIONAL or WRAPPER.
    pub fn with_nullable(self, property: &str, text: &str) -> Result<Self> {
        let Self::ProtobufNosr { .. } = self else {
            return Err(Error::bad_request(format!(
                "{} does not support the following configs: [nullableRepresentation]",
                self.name()
            )));
        };
        let nullable = match text.to_uppercase().as_str() {
            "OPTIONAL" => Nullable::Optional,
            "WRAPPER" => Nullable::Wrapper,
            _ => {
                return Err(Error::bad_request(format!(
                    "Configuration {property} is invalid: \"{text}\" is not OPTIONAL or WRAPPER"
                )));
            }
        };
        Ok(Self::ProtobufNosr { nullable })
    }

    /// Whether schemas of this format live in a schema registry.
    pub fn uses_schema_registry(&self) -> bool {
        matches!(self, Self::JsonSr | Self::Avro | Self::Protobuf)
    }

    /// Whether several columns can make up one side.
    pub fn holds_many_columns(&self) -> bool {
        !matches!(self, Self::None | Self::Kafka)
    }

    /// Whether a single column can be a member of an enclosing record.
    pub fn can_wrap(&self) -> bool {
        !matches!(self, Self::None | Self::Kafka | Self::Delimited { .. })
    }

    /// Whether a single column can stand by itself.
    pub fn can_unwrap(&self) -> bool {
        !matches!(self, Self::None | Self::Protobuf)
    }

    /// Whether a side with these columns is written without an enclosing record, given the statement's
    /// `WRAP_SINGLE_VALUE` or, failing that, the configured default. A single key column is never wrapped where the
    /// format can do without.
    pub fn unwraps(
        &self,
        side: Side,
        columns: &[Field],
        wrap: Option<bool>,
        default_wrap: Option<bool>,
    ) -> Result<bool> {
        let single = columns.len() == 1;
        if side == Side::Key {
            return Ok(single && self.can_unwrap());
        }
        if let Some(wrap) = wrap {
            if !(if wrap { self.can_wrap() } else { self.can_unwrap() }) {
                return Err(Error::bad_request(format!(
                    "Format '{}' does not support 'WRAP_SINGLE_VALUE' set to '{wrap}'.",
                    self.name()
                )));
            }
            if !single {
                return Err(Error::bad_request("'WRAP_SINGLE_VALUE' is only valid for single-field value schemas"));
            }
        }
        Ok(single
            && match (self.can_wrap(), self.can_unwrap()) {
                (true, true) => wrap.or(default_wrap) == Some(false),
                (_, unwrap) => unwrap,
            })
    }

    /// Whether the format can hold these columns; the error says why not.
    pub fn check_columns(&self, side: Side, columns: &[Field]) -> Result<()> {
        let Some(reason) = self.objection(side, columns) else { return Ok(()) };
        if *self == Self::None {
            return Err(Error::bad_request(reason));
        }
        let side_name = if side == Side::Key { "Key" } else { "Value" };
        let unwrapped_key = side == Side::Key && columns.len() == 1 && self.can_wrap() && self.can_unwrap();
        Err(Error::bad_request(format!(
            "{side_name} format does not support schema.\nformat: {}\nschema: Persistence{{columns=[{}], features=[{}]}}\n\
             reason: {reason}",
            self.name(),
            listed(side, columns),
            if unwrapped_key { "UNWRAP_SINGLES" } else { "" },
        )))
    }

    /// Why the format cannot hold these columns.
    pub fn objection(&self, side: Side, columns: &[Field]) -> Option<String> {
        let name = self.name();
        match self {
            Self::None => (!columns.is_empty()).then(|| {
                let got = listed(side, columns);
                format!("The 'NONE' format can only be used when no columns are defined. Got: [{got}]")
            }),
            Self::Kafka => {
                if columns.len() > 1 {
                    let got = listed(side, columns);
                    return Some(format!("The 'KAFKA' format only supports a single field. Got: [{got}]"));
                }
                let refused = columns.iter().map(|c| &c.ty).find(|ty| {
                    !matches!(
                        ty,
                        SqlType::Integer | SqlType::BigInt | SqlType::Double | SqlType::String | SqlType::Bytes
                    )
                })?;
                Some(format!("The '{name}' format does not support type '{}'", base_name(refused)))
            }
            Self::Delimited { .. } => columns.iter().find(|c| !c.ty.is_primitive()).map(|c| {
                format!("The '{name}' format does not support type '{}', column: `{}`", base_name(&c.ty), c.name)
            }),
            Self::Json | Self::JsonSr => columns
                .iter()
                .any(|c| !maps_have_string_keys(&c.ty))
                .then(|| "JSON only supports MAP types with STRING keys".to_owned()),
            Self::Avro => {
                if columns.iter().any(|c| !maps_have_string_keys(&c.ty)) {
                    return Some("Avro only supports MAPs with STRING keys".to_owned());
                }
                // A key that stands alone has no name.
                let unwrapped = side == Side::Key && columns.len() == 1;
                let why = crate::avro::columns::objection(columns, unwrapped)?;
                Some(format!("Schema is not compatible with Avro: {why}"))
            }
            Self::Protobuf | Self::ProtobufNosr { .. } => {
                if columns.iter().any(|c| !maps_have_string_keys(&c.ty)) {
                    return Some("PROTOBUF format only supports MAP types with STRING keys".to_owned());
                }
                let why = if *self == Self::Protobuf { crate::protobuf::columns::objection(columns) } else { None };
                why.map(|why| format!("Schema is not compatible with Protobuf: {why}"))
            }
        }
    }
}

fn listed(side: Side, columns: &[Field]) -> String {
    let key = if side == Side::Key { " KEY" } else { "" };
    columns.iter().map(|c| format!("`{}` {}{key}", c.name, c.ty)).collect::<Vec<_>>().join(", ")
}

/// The type's name without its parameters.
fn base_name(ty: &SqlType) -> &'static str {
    match ty {
        SqlType::Boolean => "BOOLEAN",
        SqlType::Integer => "INTEGER",
        SqlType::BigInt => "BIGINT",
        SqlType::Double => "DOUBLE",
        SqlType::Decimal { .. } => "DECIMAL",
        SqlType::String => "STRING",
        SqlType::Bytes => "BYTES",
        SqlType::Date => "DATE",
        SqlType::Time => "TIME",
        SqlType::Timestamp => "TIMESTAMP",
        SqlType::Array(_) => "ARRAY",
        SqlType::Map(..) => "MAP",
        SqlType::Struct(_) => "STRUCT",
    }
}

fn maps_have_string_keys(ty: &SqlType) -> bool {
    match ty {
        SqlType::Array(item) => maps_have_string_keys(item),
        SqlType::Map(key, value) => **key == SqlType::String && maps_have_string_keys(value),
        SqlType::Struct(fields) => fields.iter().all(|f| maps_have_string_keys(&f.ty)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(types: &[SqlType]) -> Vec<Field> {
        types.iter().enumerate().map(|(i, ty)| Field::new(format!("C{i}"), ty.clone())).collect()
    }

    #[test]
    fn names_and_delimiters() {
        assert_eq!(Format::parse("json").unwrap(), Format::Json);
        assert_eq!(Format::parse("Delimited").unwrap(), Format::DELIMITED);
        assert_eq!(Format::parse("FOO").unwrap_err().message(), "Unknown format: FOO");
        let with = |text| Format::DELIMITED.with_delimiter("VALUE_DELIMITER", text);
        assert_eq!(with("tab").unwrap(), Format::Delimited { delimiter: b'\t' });
        assert_eq!(with("|").unwrap(), Format::Delimited { delimiter: b'|' });
        assert!(with("<~>").unwrap_err().message().contains("Invalid delimiter value: '<~>'."));
        assert!(with("\"").is_err() && with("").is_err() && with("é").is_err());
        let nosr = Format::parse("protobuf_nosr").unwrap();
        assert_eq!(nosr.with_nullable("P", "wrapper").unwrap(), Format::ProtobufNosr { nullable: Nullable::Wrapper });
        assert!(nosr.with_nullable("P", "x").is_err() && Format::Json.with_nullable("P", "WRAPPER").is_err());
        assert_eq!(
            Format::Json.with_delimiter("VALUE_DELIMITER", "|").unwrap_err().message(),
            "JSON does not support the following configs: [delimiter]"
        );
    }

    #[test]
    fn objections() {
        let array = SqlType::array(SqlType::Integer);
        let int_map = SqlType::map(SqlType::Integer, SqlType::Double);
        for (format, side, types, expected) in [
            (Format::Kafka, Side::Value, vec![array.clone()], "The 'KAFKA' format does not support type 'ARRAY'"),
            (
                Format::Kafka,
                Side::Key,
                vec![SqlType::Boolean],
                "schema: Persistence{columns=[`C0` BOOLEAN KEY], features=[]}",
            ),
            (
                Format::Kafka,
                Side::Value,
                vec![SqlType::Integer, SqlType::String],
                "The 'KAFKA' format only supports a single field. Got: [`C0` INTEGER, `C1` STRING]",
            ),
            (
                Format::DELIMITED,
                Side::Key,
                vec![array.clone()],
                "The 'DELIMITED' format does not support type 'ARRAY', column: `C0`",
            ),
            (
                Format::None,
                Side::Key,
                vec![SqlType::String],
                "The 'NONE' format can only be used when no columns are defined. Got: [`C0` STRING KEY]",
            ),
            (Format::Json, Side::Value, vec![SqlType::array(int_map)], "JSON only supports MAP types with STRING keys"),
        ] {
            let error = format.check_columns(side, &fields(&types)).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
        }
        assert!(Format::Json.check_columns(Side::Key, &fields(&[array, SqlType::Boolean])).is_ok());
        assert!(Format::Kafka.check_columns(Side::Key, &[]).is_ok());
    }

    #[test]
    fn wrapping() {
        let one = fields(&[SqlType::Integer]);
        let two = fields(&[SqlType::Integer, SqlType::Integer]);
        let value = |format: Format, columns: &[Field], wrap| format.unwraps(Side::Value, columns, wrap, None);
        assert!(!value(Format::Json, &one, None).unwrap());
        assert!(value(Format::Json, &one, Some(false)).unwrap());
        assert!(Format::Json.unwraps(Side::Value, &one, None, Some(false)).unwrap());
        assert!(Format::Json.unwraps(Side::Key, &one, None, None).unwrap());
        assert!(!Format::Json.unwraps(Side::Key, &two, None, None).unwrap());
        assert!(value(Format::Kafka, &one, None).unwrap());
        assert_eq!(
            value(Format::DELIMITED, &one, Some(true)).unwrap_err().message(),
            "Format 'DELIMITED' does not support 'WRAP_SINGLE_VALUE' set to 'true'."
        );
        assert!(value(Format::Json, &two, Some(false)).unwrap_err().message().contains("single-field value schemas"));
    }
}
